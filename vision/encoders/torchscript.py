"""Encoders as TorchScript files: programs, which run only if they are trusted.

Beside FILE.pt a file FILE.json may describe the encoder: any of dim, size, patch, mpp, mean, std, interpolation,
resize, pooling, prefix and precision, as in `PatchEncoder`; without it 224 pixels and ImageNet's colours.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from .encoder import PatchEncoder
from .table import NORMALISATION

__all__ = ["from_torchscript"]

_TAKEN = ("dim", "size", "patch", "mpp", "mean", "std", "interpolation", "resize", "pooling", "prefix", "precision")


def from_torchscript(file: Path, *, trust: bool) -> PatchEncoder:
    """An encoder from a file of `torch.jit.save`.

    Args:
        file: the archive; it maps "batch 3 size size" to what `PatchEncoder` pools.
        trust: whether it may run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not trusted or not TorchScript, or FILE.json has an unknown entry.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no TorchScript file {file}")
    if not trust:
        raise ValueError(f"{file} is a program, not only weights; if you trust who made it, give trust=True")
    described = file.with_suffix(".json")
    mean, std = NORMALISATION["imagenet"]
    options: dict[str, Any] = {"size": 224, "mean": mean, "std": std}
    if described.is_file():
        try:
            given = dict(json.loads(described.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{described} is not a JSON object: {error}") from error
        unknown = sorted(given.keys() - set(_TAKEN))
        if unknown:
            raise ValueError(f"{described} has the unknown entry {unknown[0]!r}; known: {', '.join(_TAKEN)}")
        options |= given | {key: [float(value) for value in given[key]] for key in ("mean", "std") if key in given}
        options["mpp"] = float(options.get("mpp", 0.5))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is deprecated, but its files are in use
            network = torch.jit.load(str(file), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise ValueError(f"{file} is not a TorchScript file, or is damaged: {reason}") from error
    dim = options.pop("dim", 0)
    encoder = PatchEncoder(network, name=f"torchscript:{file.stem}", dim=dim, **options)
    if not dim:  # measured with one patch
        with torch.inference_mode():
            encoder.dim = encoder(torch.zeros(1, encoder.size, encoder.size, 3, dtype=torch.uint8)).shape[-1]
    return encoder
