"""Images for restoration: pairs of low- and high-quality images, and degradations that make them.

Names are imported on first use; `__init__.pyi` lists their modules.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
