"""Sessions: the attention function, edits of attention, second streams, and the state and activity of a call.

Names are imported on first use; `__init__.pyi` lists their modules.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
