"""Whole slides: readers, tissue, grids of patches, and files of features.

Names are imported on first use; `__init__.pyi` lists their modules; most of it needs the extra `wsi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
