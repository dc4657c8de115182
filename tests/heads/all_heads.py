"""Every head of the table, small, and its properties."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import nn

from regard.heads import HEADS, build_head
from regard.heads.mhim import VERSION_1

DIM = 12

#: Name of a case -> head, and options that make it small.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mean": ("mean", {"width": 16}),
    "max": ("max", {"width": 16}),
    "abmil": ("abmil", {"width": 16, "hidden": 8}),
    "abmil_plain": ("abmil", {"width": 16, "hidden": 8, "gated": False, "bias": True}),
    "abmil_mha": ("abmil_mha", {"width": 16}),
    "clam_sb": ("clam_sb", {"width": 16, "hidden": 8, "samples": 3}),
    "clam_sb_plain": ("clam_sb", {"width": 16, "hidden": 8, "samples": 3, "gated": False, "instance_loss": "svm"}),
    "clam_mb": ("clam_mb", {"width": 16, "hidden": 8, "samples": 3, "subtyping": True}),
    "dsmil": ("dsmil", {"hidden": 8}),
    "dsmil_nonlinear": ("dsmil", {"hidden": 8, "nonlinear": True, "values": True}),
    "transmil": ("transmil", {"width": 16, "heads": 2}),
    "dtfd": ("dtfd", {"width": 16, "hidden": 8}),
    "dtfd_maxmin": ("dtfd", {"width": 16, "hidden": 8, "distillation": "MaxMinS", "distilled": 8}),
    "ilra": ("ilra", {"width": 16, "heads": 2, "latents": 2, "norm": True}),
    "ibmil": ("ibmil", {"width": 16, "hidden": 8, "count": 4, "joint": 8}),
    "acmil": ("acmil", {"width": 16, "hidden": 8, "branches": 3, "top": 4}),
    "acmil_mha": ("acmil_mha", {"width": 16, "heads": 2, "branches": 3, "top": 4}),
    "mhim": ("mhim", {"width": 16, "merge_tokens": 2}),
    "mhim_selfattn": ("mhim", {"width": 16, "baseline": "selfattn", "merge_test": True, "merge_tokens": 2}),
    "mhim_dsmil": ("mhim", {"width": 16, "baseline": "dsmil", "merge_tokens": 2}),
    "mhim_first": ("mhim", {"width": 16, **VERSION_1}),
    "mhim_first_selfattn": ("mhim", {"width": 16, "baseline": "selfattn", **VERSION_1, "mask_low": 0.2}),
    "ins": ("ins", {"width": 16, "embedding": 8, "queue": 32}),
}

#: Cases whose result does not depend on the order of the instances; the others fill a square or draw pseudo-bags.
ORDERLESS = [
    case for case, (name, own) in CASES.items() if not {"transmil", "dtfd", "selfattn"} & {name, *own.values()}
]

#: Cases with the option `chunk`.
CHUNKED = [case for case, (name, _) in CASES.items() if name in ("mean", "max", "abmil", "dsmil", "ibmil", "acmil")]
CHUNKED += ["clam_sb", "clam_sb_plain", "clam_mb"]

assert {name for name, _ in CASES.values()} == set(HEADS)


def cells(cases: Iterable[str]) -> list[Any]:
    """Cases as parameters, of which the first of each head runs by default and its variants with `full`."""
    first = {name: case for case, (name, _) in reversed(CASES.items())}.values()
    return [case if case in first else pytest.param(case, marks=pytest.mark.full) for case in cases]


#: For `pytest.mark.parametrize`: every case, and those with `chunk`.
EVERY, EVERY_CHUNKED = cells(CASES), cells(CHUNKED)


def small(case: str, classes: int = 3, **own: Any) -> nn.Module:
    """A head of a case, with the same weights each time."""
    torch.manual_seed(0)
    name, options = CASES[case]
    head = build_head(name, DIM, classes, **(options | own))
    if name == "ibmil":
        head.confounder_feat.normal_()
    if "mha" in name:  # the queries start near zero, where attention is uniform
        nn.init.normal_(head.q)
    return head


def bags(*shape: int, seed: int = 1) -> torch.Tensor:
    """Random features."""
    return torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed))
