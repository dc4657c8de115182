"""Published backbones, one family a file; importing this registers them with timm."""

from types import ModuleType

from . import mobilenetv2_ela, van, vig, vig_h

__all__ = ["FAMILIES", "mobilenetv2_ela", "van", "vig", "vig_h"]

#: Name of a family -> its module, with `default_cfgs`, `PAPER` and `TOP1`.
FAMILIES: dict[str, ModuleType] = {
    "van": van,
    "mobilenetv2_ela": mobilenetv2_ela,
    "vig": vig,
    "vig_h": vig_h,
}
from . import biformer, mobilenetv2_ela, van

__all__ = ["FAMILIES", "biformer", "mobilenetv2_ela", "van"]

#: Name of a family -> its module, with `default_cfgs`, `PAPER` and `TOP1`.
FAMILIES: dict[str, ModuleType] = {"van": van, "mobilenetv2_ela": mobilenetv2_ela, "biformer": biformer}
from . import halonet, mobilenetv2_ela, van

__all__ = ["FAMILIES", "halonet", "mobilenetv2_ela", "van"]

#: Name of a family -> its module, with `default_cfgs`, `PAPER` and `TOP1`.
FAMILIES: dict[str, ModuleType] = {"van": van, "mobilenetv2_ela": mobilenetv2_ela, "halonet": halonet}
from . import mobilenetv2_ela, sparsifiner, van

__all__ = ["FAMILIES", "mobilenetv2_ela", "sparsifiner", "van"]

#: Name of a family -> its module, with `default_cfgs`, `PAPER` and `TOP1`.
FAMILIES: dict[str, ModuleType] = {"van": van, "mobilenetv2_ela": mobilenetv2_ela, "sparsifiner": sparsifiner}
