"""`regard benchmark heads`: one training step of multiple-instance heads compared with torchmil's, on the same bag.

torchmil (pip install torchmil) is a library of such heads, Castro-Macias et al., Apache-2.0. Widths are the same, and
so are the weights, so that both give the same logits; their largest difference is reported. Its TransMIL has neither
the convolution of values nor the last projection of the published network: ours computes both, with weights that
make them nothing. A step is a forward pass with the loss and its gradient, without the optimiser.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...heads import build_head
from ...heads.contract import binary_cross_entropy
from ..run.devices import choose_device
from ..settings import BenchmarkHeadsSettings
from .large_bags import large_bag_lines, measure_large_bags
from .profiler import interleaved, peak_bytes, quartiles, spread
from .report import report, torch_threads

__all__ = ["RIVALS", "lines", "measure", "run"]

#: Width of projected instances, and of the layers that score them.
_WIDTH, _HIDDEN = 512, 128


def run(settings: BenchmarkHeadsSettings) -> int:
    """Measure, print and write; the exit code is 0.

    Args:
        settings: see `BenchmarkHeadsSettings`.

    Raises:
        ValueError: torchmil is not installed, or a head or device is unknown.
    """
    choose_device(settings.device)
    with torch_threads(settings.threads):
        rows = measure_large_bags(settings) if settings.chunk else measure(settings)
    shown = large_bag_lines(rows) if settings.chunk else lines(rows)
    report(settings, rows, shown, f"{settings.device}, {settings.dtype}, batch 1, {settings.features} features")
    return 0


def measure(settings: BenchmarkHeadsSettings) -> list[dict[str, Any]]:
    """A row for every head and number of instances.

    Raises:
        ValueError: torchmil is not installed, or it has no such head.
    """
    try:
        from torchmil import models
    except ImportError as error:
        raise ValueError(
            f"heads are compared with torchmil, which cannot be imported ({error}); pip install torchmil, or "
            "pip install --no-deps torchmil tensordict einops where it would change other packages"
        ) from error
    for name in settings.heads:
        if name not in RIVALS:
            raise ValueError(f"no head {name!r} to compare with torchmil; choose from {', '.join(RIVALS)}")
    rows = []
    for name in settings.heads:
        for count in settings.instances:
            sys.stderr.write(f"{name}: {count} instances\n")
            rows.append(_measure_one(name, count, models, settings))
    return rows


def lines(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The lines of the table, by heading."""
    return [
        {
            "head": row["head"],
            "instances": str(row["instances"]),
            "ms": f"{row['ms']['ours']:.1f}",
            "torchmil ms": f"{row['ms']['torchmil']:.1f}",
            "x torchmil": spread(row["ratio"]),
            "MB": f"{row['mb']['ours']:.1f}",
            "share of its MB": f"{row['share']:.2f}",
            "max logit difference": f"{row['max_logit_difference']:.0e}",
        }
        for row in rows
    ]


def _measure_one(name: str, count: int, models: Any, settings: BenchmarkHeadsSettings) -> dict[str, Any]:
    torch.manual_seed(0)
    like = {"device": settings.device, "dtype": getattr(torch, settings.dtype)}
    bag, labels = torch.randn(1, count, settings.features).to(**like), torch.ones(1, device=settings.device)
    ours, theirs, pairs = RIVALS[name](models, settings.features)
    for own, other in pairs:
        with torch.no_grad():
            other.weight.copy_(own.weight.view_as(other.weight))
            if other.bias is not None:
                other.bias.copy_(own.bias)
    ours, theirs = ours.to(**like), theirs.to(**like)
    with torch.no_grad():
        difference = (ours.eval()(bag).logits.flatten() - theirs.eval()(bag).flatten()).abs().max().item()
    passes: dict[str, Callable[[], None]] = {
        "ours": partial(_step, ours.train(), bag, labels),
        "torchmil": partial(_their_step, theirs.train(), bag, labels),
    }
    seconds = interleaved(passes, settings.repeats, settings.device)
    mb = {who: peak_bytes(once, settings.device) / 1e6 for who, once in passes.items()}
    return {
        "head": name,
        "instances": count,
        "ms": {who: 1e3 * statistics.median(taken) for who, taken in seconds.items()},
        "mb": mb,
        "ratio": quartiles(seconds["ours"], seconds["torchmil"]),
        "share": mb["ours"] / mb["torchmil"],
        "max_logit_difference": difference,
    }


def _step(head: nn.Module, bag: Tensor, labels: Tensor) -> None:
    head(bag, labels=labels, criterion=binary_cross_entropy).loss(labels, binary_cross_entropy).backward()
    head.zero_grad(set_to_none=True)


def _their_step(head: Any, bag: Tensor, labels: Tensor) -> None:
    sum(head.compute_loss(labels, bag)[1].values()).backward()
    head.zero_grad(set_to_none=True)


#: Ours, theirs, and which of our layers have the weights of which of theirs.
_Rivals = tuple[nn.Module, Any, list[tuple[Any, Any]]]


def _projection(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, _WIDTH), nn.ReLU())


def _abmil(models: Any, dim: int) -> _Rivals:
    ours: Any = build_head("abmil", dim, 1, width=_WIDTH, hidden=_HIDDEN, bias=True)
    theirs = models.ABMIL((dim,), att_dim=_HIDDEN, gated=True, feat_ext=_projection(dim))
    pairs = [
        (ours.dimreduction.fc1, theirs.feat_ext[0]),
        (ours.attention.attention_V[0], theirs.pool.fc1.module),
        (ours.attention.attention_U[0], theirs.pool.fc_gated.module),
        (ours.attention.attention_weights, theirs.pool.fc2),
        (ours.classifier.fc, theirs.classifier.module),
    ]
    return ours, theirs, pairs


def _dsmil(models: Any, dim: int, nonlinear: bool = False) -> _Rivals:
    ours: Any = build_head("dsmil", dim, 1, hidden=_HIDDEN, nonlinear=nonlinear)
    theirs = models.DSMIL((dim,), att_dim=_HIDDEN, nonlinear_q=nonlinear)
    own, stream = ours.i_classifier.fc[0], ours.b_classifier
    queries = [(stream.q[i], theirs.q_nn[i]) for i in (0, 2)] if nonlinear else [(stream.q, theirs.q_nn)]
    return ours, theirs, [(own, theirs.inst_classifier), *queries, (stream.fcc, theirs.bag_classifier)]


def _transmil(models: Any, dim: int) -> _Rivals:
    ours: Any = build_head("transmil", dim, 1, width=_WIDTH, drop_rate=0.0)
    theirs = models.TransMIL((dim,), att_dim=_WIDTH, n_heads=8, feat_ext=_projection(dim))
    pairs: list[tuple[Any, Any]] = [(ours._fc1[0], theirs.feat_ext[0]), (ours._fc2, theirs.classifier)]
    pairs += [(ours.norm, theirs.norm)]
    pairs += [(getattr(ours.pos_layer, part), getattr(theirs.pos_layer, part)) for part in ("proj", "proj1", "proj2")]
    for own, other in zip((ours.layer1, ours.layer2), theirs.layers, strict=True):
        pairs += [(own.norm, other.norm1), (own.attn.to_qkv, other.att_module.qkv_nn)]
        nn.init.eye_(own.attn.to_out[0].weight)
        nn.init.zeros_(own.attn.to_out[0].bias)
        nn.init.zeros_(own.attn.res_conv.weight)
    with torch.no_grad():
        theirs.cls_token.copy_(ours.cls_token)
    return ours, theirs, pairs


#: Name -> how it and its rival are made, of torchmil's models and the width of the features.
RIVALS: dict[str, Callable[[Any, int], _Rivals]] = {
    "abmil": _abmil,
    "dsmil": _dsmil,
    "dsmil_nonlinear": partial(_dsmil, nonlinear=True),
    "transmil": _transmil,
}
