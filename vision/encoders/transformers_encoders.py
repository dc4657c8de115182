"""Encoders whose network is one of transformers': rows of the table, and any vision model by its name or folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel

from ..checkpoints import shorten
from .encoder import PatchEncoder
from .table import NORMALISATION, EncoderRow

__all__ = ["HubNetwork", "build_network", "from_hub"]


class HubNetwork(nn.Module):
    """The output of a vision model of transformers: tokens, a map, or its own pooled output.

    Args:
        model: the image part of it.
        pooled: whether its own pooled output is taken.
    """

    def __init__(self, model: nn.Module, *, pooled: bool = False) -> None:
        super().__init__()
        self.model, self.pooled = model, pooled

    def forward(self, images: Tensor) -> Tensor:
        """Tokens "batch tokens dim", a map "batch dim height width", or "batch dim"."""
        found = self.model(pixel_values=images)
        return found.pooler_output.flatten(1) if self.pooled else found.last_hidden_state


def build_network(row: EncoderRow, weights: Mapping[str, Tensor] | None, source: str) -> nn.Module:
    """The network of a row of kind transformers; as in `timm_encoders.build_network`.

    Raises:
        ValueError: the weights do not fit.
    """
    options = dict(row.options)
    own = options.pop("own", {})
    cls = getattr(transformers, row.architecture)
    config = cls.config_class(**options)
    if weights is None:
        return HubNetwork(cls(config, **own))
    given = {name: tensor for name, tensor in weights.items() if not name.startswith(("pooler.", "classifier."))}
    wrong = f"{source} does not load into {row.architecture}"
    try:
        model, report = cls.from_pretrained(None, config=config, state_dict=given, output_loading_info=True, **own)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{wrong}: {' '.join(str(error).split())[:300]}") from error
    missing = sorted(name for name in report["missing_keys"] if not name.endswith("mask_token"))
    shapes = sorted(str(name) for name in report.get("mismatched_keys", ()))
    spare = sorted(report["unexpected_keys"])
    if missing or spare or shapes:
        parts = [f"missing: {shorten(missing, 6)}" if missing else ""]
        parts += [f"unexpected: {shorten(spare, 6)}" if spare else ""]
        parts += [f"of another shape: {shorten(shapes, 6)}" if shapes else ""]
        raise ValueError(f"{wrong}: {'; '.join(part for part in parts if part)}")
    return HubNetwork(model.float())


def from_hub(source: str, *, trust: bool, name: str, row: EncoderRow | None = None) -> PatchEncoder:
    """An encoder from a vision model on the hub or in a folder, with its own transforms.

    The features are its class token; without one, its pooled output; without that, the mean over positions. Of a model
    of images and text the image part is used.

    Args:
        source: its id, or a folder with config.json, preprocessor_config.json and weights as safetensors.
        trust: whether code from there may run.
        name: of the encoder.
        row: of the table; it takes precedence over the model's own configuration.

    Raises:
        ValueError: it is not available, not a vision model, or needs its code to run.
    """
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust)
        whole = AutoModel.from_pretrained(source, config=config, trust_remote_code=trust, use_safetensors=True)
        processor = None if row else AutoImageProcessor.from_pretrained(source, trust_remote_code=trust, backend="pil")
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        text = " ".join(str(error).split())
        if "trust_remote_code" in text:
            text = "it needs its own code, which runs only with trust=True; read it first"
        raise ValueError(
            f"cannot load the encoder {name} ({source}): {text[:300]}. Give the id of a vision model on the Hugging "
            f"Face hub (accept its licence at https://huggingface.co/{source} and `hf auth login` where it is gated), "
            "or a folder with config.json, preprocessor_config.json and model.safetensors"
        ) from error
    model = getattr(whole, "vision_model", whole)
    if getattr(model, "main_input_name", "pixel_values") != "pixel_values":
        raise ValueError(f"{source} is not a vision model: its input is {model.main_input_name}")
    if row is not None:
        side, (mean, std), interpolation = row.size, NORMALISATION[row.normalisation], row.interpolation
        patch, precision = row.patch, row.precision
    else:
        side, mean, std = _side(processor), processor.image_mean, processor.image_std  # type: ignore[union-attr]
        interpolation = "bilinear" if getattr(processor, "resample", 3) == 2 else "bicubic"
        patch, precision = max(side, 224), "float32"
    network, pooling, dim = _pooled(model.float().eval(), side)
    return PatchEncoder(
        network,
        name=name,
        dim=dim,
        size=side,
        mean=mean,
        std=std,
        patch=patch,
        interpolation=interpolation,
        pooling=pooling,
        precision=precision,
    )


def _pooled(model: nn.Module, side: int) -> tuple[HubNetwork, str, int]:
    """How the features of a model are made, and how wide they are: one grey image shows."""
    with torch.inference_mode():
        found = model(pixel_values=torch.zeros(1, 3, side, side))
    hidden, own = found.last_hidden_state, getattr(found, "pooler_output", None)
    if hidden.ndim == 4:
        return HubNetwork(model), "network", hidden.shape[1]
    if any(name.endswith(("cls_token", "class_embedding")) for name, _ in model.named_parameters()):
        return HubNetwork(model), "class", hidden.shape[-1]
    if own is not None:
        return HubNetwork(model, pooled=True), "network", own.flatten(1).shape[-1]
    return HubNetwork(model), "mean", hidden.shape[-1]


def _side(processor: Any) -> int:
    """The side of the square that a processor of images makes, in pixels."""
    crop = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", None) else None
    for which in (crop, processor.size):
        for key in ("height", "shortest_edge"):
            if which and which.get(key):
                return int(which[key])
    raise ValueError(f"its image processor has no image size: {processor.size}")
