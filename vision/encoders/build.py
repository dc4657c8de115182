"""Encoders by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...class_names import nearest
from .encoder import PatchEncoder
from .table import ENCODERS, NORMALISATION, EncoderRow, Precision

__all__ = ["build_encoder"]


def build_encoder(
    name: str,
    *,
    weights: str | Path | None = None,
    trust: bool = False,
    precision: Precision | None = None,
) -> PatchEncoder:
    """Build an encoder of patches, ready to use: in evaluation mode, without gradients, on the CPU.

    Args:
        name: one of `ENCODERS`; `timm:NAME` for any model of timm or of ours; or the folder of one, as `regard train`
            leaves it (OUT/model).
        weights: a file of weights instead of those that are published: safetensors, or PyTorch's own form read with
            `weights_only`.
        trust: whether code that comes with the weights may run; only for encoders that have such.
        precision: what it computes in on any device; without it, its own on a GPU of CUDA and float32 elsewhere.

    Raises:
        ValueError: there is no such encoder, its weights cannot be had or do not fit, or it needs something.
        FileNotFoundError: there is no such file of weights.
    """
    if name in ENCODERS:
        encoder = _from_row(name, ENCODERS[name], weights)
    else:
        encoder = _from_elsewhere(name, weights)
    if precision is not None:
        encoder.precision, encoder.everywhere = precision, True
    return encoder.eval().requires_grad_(False)


def _from_row(name: str, row: EncoderRow, weights: str | Path | None) -> PatchEncoder:
    from .timm_encoders import build_network
    from .weights import find_weights

    network = build_network(row, *find_weights(name, row, weights))
    return wrap(name, row, network)


def wrap(name: str, row: EncoderRow, network: Any) -> PatchEncoder:
    """The encoder of a row around its network."""
    mean, std = NORMALISATION[row.normalisation]
    return PatchEncoder(
        network,
        name=name,
        dim=row.dim,
        size=row.size,
        mean=mean,
        std=std,
        patch=row.patch,
        mpp=row.mpp,
        resize=row.resize,
        interpolation=row.interpolation,
        pooling=row.pooling,
        prefix=int(getattr(network, "num_prefix_tokens", 1)),
        precision=row.precision,
    )


def _from_elsewhere(name: str, weights: str | Path | None) -> PatchEncoder:
    from . import timm_encoders

    kind, colon, rest = name.partition(":")
    if colon and kind == "timm":
        return timm_encoders.from_name(rest, weights)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if weights is not None:
            raise ValueError(
                f"{name} is a folder with weights of its own; leave weights={weights} out, or name a model"
            )
        return timm_encoders.from_folder(folder)
    raise ValueError(
        f"no encoder is called {name!r}; {nearest(name.lower(), ENCODERS)}Known: {', '.join(ENCODERS)}, timm:NAME, "
        "or a folder with config.json and model.safetensors"
    )
