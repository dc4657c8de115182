"""What the checks of multiple-instance heads share: a head from a case's weights, by way of the authors' names."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from case import Case
from safetensors.torch import save_file
from torch import Tensor, nn

from regard.heads import load_head


def head_of(case: Case, name: str | None = None, **own: Any) -> nn.Module:
    """The head of a case, loaded from a file as a user would."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        save_file({key: value.contiguous() for key, value in case.state.items()}, file)
        return load_head(file, name, **own)


def label_of(case: Case) -> Tensor:
    """The label that the notes name."""
    found = re.search(r"label(?:=| one-hot at )(\d+)", case.notes)
    assert found is not None, case.notes
    return torch.tensor([int(found[1])])


def number_of(case: Case, name: str) -> float:
    """A number that the notes give as name=number, and 1 where they do not."""
    found = re.search(rf"\b{name}=([\d.]*\d)", case.notes)
    return 1.0 if found is None else float(found[1])


def bag_of(case: Case) -> Tensor:
    """The bag, as a batch of one."""
    bag = case.inputs["bag"]
    return bag if bag.ndim == 3 else bag[None]


def without_dropout(module: nn.Module) -> nn.Module:
    """Set every rate of dropout to zero."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if hasattr(part, "drop_rate"):
            part.drop_rate = 0.0
    return module
