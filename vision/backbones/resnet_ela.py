"""The authors' ResNet blocks with ELA in timm's names; the blocks are in `regard.vision.hosts.resnet`.

Source: Xuwei86/ELA_Code@cd4594d, semantic/network/backbone/resnet.py (`Bottleneck`, `BasicBlock`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

__all__ = ["convert_block"]


def convert_block(state_dict: Mapping[str, Tensor], block: nn.Module) -> dict[str, Tensor]:
    """Bring one of the authors' residual blocks to ours.

    The authors' attention is `feat1` in a Bottleneck and `feat0` in a BasicBlock; all other names are timm's.

    Args:
        state_dict: of the authors' block.
        block: ours that will load it, with one ELA in it; where it is held is read from its own names.

    Raises:
        ValueError: `block` holds no ELA, or more than one.
    """
    held = sorted({name.removesuffix("gn.weight") for name in block.state_dict() if name.endswith("gn.weight")})
    if len(held) != 1:
        raise ValueError(f"the block should hold one ELA, it holds {len(held)}: {held}")
    return {re.sub(r"^feat[01]\.", held[0], name): tensor for name, tensor in state_dict.items()}
