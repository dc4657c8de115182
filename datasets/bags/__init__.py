"""Bags: the features of slides, their table and their folds, and bundled sets of bags.

Names are imported on first use; `__init__.pyi` lists their modules.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
