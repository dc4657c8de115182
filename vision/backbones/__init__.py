"""Published backbones, one family in each file; importing this registers them with timm."""

from types import ModuleType

from . import biformer, halonet, hat, mobilenetv2_ela, sparsifiner, van, vig, vig_h

__all__ = ["FAMILIES", "biformer", "halonet", "hat", "mobilenetv2_ela", "sparsifiner", "van", "vig", "vig_h"]

#: Name of a family -> its module, with `default_cfgs`, `PAPER`, `TOP1`, and `KEYS`: patterns of parameter
#: names that only files of the family have.
FAMILIES: dict[str, ModuleType] = {
    "halonet": halonet,
    "biformer": biformer,
    "van": van,
    "vig": vig,
    "vig_h": vig_h,
    "sparsifiner": sparsifiner,
    "mobilenetv2_ela": mobilenetv2_ela,
    "hat": hat,
}
