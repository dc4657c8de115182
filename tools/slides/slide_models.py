"""The models of a run: encoder, heads and segmenter, and the patches that they take."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from ...datasets.slides.segmenter import Segmenter, load_segmenter
from ...vision.encoders import ENCODERS, PatchEncoder, build_encoder, encoder_fingerprint
from ..run.devices import choose_device
from ..settings import SlideSettings
from ..settings.slide import wanted_stages
from .ensemble import Ensemble, find_heads

__all__ = ["SlideModels", "load_models"]


@dataclass(frozen=True)
class SlideModels:
    """Encoder, heads and patches of a run.

    Attributes:
        stages: to run.
        device: of the encoder and the heads.
        patch: side of a patch in pixels.
        mpp: microns per pixel of the patches.
        encoder: of the patches; None where no stage needs it.
        encoder_key: hash of its weights and transforms.
        encoder_folder: name of the folder of its features.
        ensemble: heads; None where there are none.
        segmenter: of the tissue; None uses thresholds.
    """

    stages: tuple[str, ...]
    device: torch.device
    patch: int
    mpp: float
    encoder: PatchEncoder | None
    encoder_key: str
    encoder_folder: str
    ensemble: Ensemble | None
    segmenter: Segmenter | None


def load_models(settings: SlideSettings) -> SlideModels:
    """Load the models that the stages need.

    Raises:
        ValueError: there is no such encoder, head or device, they cannot be loaded, or do not fit each other.
    """
    stages = wanted_stages(settings.stages)
    device = choose_device(settings.device)
    row = ENCODERS.get(settings.encoder)
    encoder, ensemble, key = None, None, ""
    if "features" in stages or (row is None and None in (settings.patch, settings.mpp)):
        encoder = build_encoder(settings.encoder, weights=settings.weights, trust=settings.trust)
        key = encoder_fingerprint(encoder)
        encoder.to(device).to(memory_format=torch.channels_last)  # what convolutions are fast in
    if "prediction" in stages and settings.head:
        ensemble = Ensemble(find_heads(settings.head), device, trust=settings.trust)
        assert encoder is not None
        if ensemble.dim_in != encoder.dim:
            raise ValueError(
                f"--head {' '.join(settings.head)} needs features {ensemble.dim_in} wide, but those of the encoder "
                f"{settings.encoder} are {encoder.dim} wide; give the encoder that it was trained on"
            )
        if ensemble.encoder not in (None, settings.encoder, encoder.name):
            raise ValueError(
                f"--head {' '.join(settings.head)} was trained on features of {ensemble.encoder}, not of "
                f"{settings.encoder}; give --encoder {ensemble.encoder}, or another head"
            )
    made_for = encoder or row
    return SlideModels(
        stages=stages,
        device=device,
        patch=settings.patch or (made_for.patch if made_for else 256),
        mpp=settings.mpp or (made_for.mpp if made_for else 0.5),
        encoder=encoder,
        encoder_key=key,
        encoder_folder=f"features_{_short(settings.encoder)}",
        ensemble=ensemble,
        segmenter=load_segmenter(settings.segmenter, trust=settings.trust) if settings.segmenter else None,
    )


def _short(encoder: str) -> str:
    """Name of the folder of its features; for a folder of `regard train`, the name of the run."""
    folder = Path(encoder).resolve()
    if folder.is_dir():
        encoder = folder.parent.name if folder.name == "model" else folder.name
    return re.sub(r"[^\w.-]+", "-", encoder).strip("-")
