"""Published backbones, one family a file; importing this registers them with timm."""

from types import ModuleType

from . import mobilenetv2_ela, sparsifiner, van

__all__ = ["FAMILIES", "mobilenetv2_ela", "sparsifiner", "van"]

#: Name of a family -> its module, with `default_cfgs`, `PAPER` and `TOP1`.
FAMILIES: dict[str, ModuleType] = {"van": van, "mobilenetv2_ela": mobilenetv2_ela, "sparsifiner": sparsifiner}
