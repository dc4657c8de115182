"""Encoders whose network is one of timm's (ours are registered there too): rows of the table, any name, any folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import timm.layers
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from ..checkpoints import SkipInit, create_from_weights, looks_like, read_weights, shorten
from ..swap import create_model
from .encoder import PatchEncoder
from .table import EncoderRow

__all__ = ["build_network", "from_folder", "from_name", "load_strictly"]


def build_network(row: EncoderRow, weights: Mapping[str, Tensor] | None, source: str) -> nn.Module:
    """The network of a row of kind timm, with these weights; without them it has its shapes only.

    Args:
        row: of the table.
        weights: by timm's names, or by others that timm translates (DINOv2's own).
        source: their name in messages.

    Raises:
        ValueError: they do not fit.
    """
    options = {name: _layer(name, value) for name, value in row.options.items()}
    if "features_only" not in options:
        options["num_classes"] = 0
    with SkipInit():
        network = timm.create_model(row.architecture, **options)
    if weights is not None:
        load_strictly(network, weights, source, row.architecture)
    return network


def load_strictly(network: nn.Module, weights: Mapping[str, Tensor], source: str, called: str) -> None:
    """Load weights that must fit completely, except for layers after the features.

    Args:
        network: of timm, without a classifier.
        weights: by its names or its authors'.
        source: name of the weights in messages.
        called: name of the network in messages.

    Raises:
        ValueError: one is missing, unexpected or of another shape.
    """
    translate = getattr(sys.modules.get(type(network).__module__), "checkpoint_filter_fn", None)
    own = network.state_dict()
    try:
        translated = dict(translate(dict(weights), network) if translate else weights)
    except (RuntimeError, LookupError, ValueError, AttributeError) as error:
        translated, reason = {}, str(error)
    else:
        reason = ""
    if "model" in getattr(network, "_modules", {}) and not own.keys() & translated.keys():  # features_only by hooks
        translated = {f"model.{name}": value for name, value in translated.items()}
    missing = [name for name in own if name not in translated and not name.endswith("num_batches_tracked")]
    spare = [name for name in translated if name not in own and not name.startswith(_AFTER)]
    shapes = [name for name in own.keys() & translated.keys() if own[name].shape != translated[name].shape]
    if isinstance(network, timm.models.FeatureListNet):  # its later layers were cut off
        spare = []
    if missing or spare or shapes:
        parts = [looks_like(weights), f"missing: {shorten(missing, 6)}" if missing else ""]
        parts += [f"unexpected: {shorten(spare, 6)}" if spare else "", reason[:200]]
        parts += [f"of another shape: {shorten(sorted(shapes), 6)}" if shapes else ""]
        raise ValueError(f"{source} does not load into {called}: {'; '.join(part for part in parts if part)}")
    network.load_state_dict({name: value for name, value in translated.items() if name in own}, strict=False)


def from_name(name: str, weights: str | Path | None) -> PatchEncoder:
    """An encoder from any model of timm or of ours.

    Args:
        name: the model's, such as `convnext_tiny.fb_in22k` or `van_b1`.
        weights: a file; timm's published weights if None.

    Raises:
        ValueError: there is no such model, or no weights of it.
    """
    if weights is not None:
        network = create_model(name, weights=weights)
    else:
        with SkipInit():
            network = create_model(name, pretrained=True)
    return _wrap(network, f"timm:{name}", {})


def from_folder(folder: Path) -> PatchEncoder:
    """An encoder from a folder with config.json and model.safetensors, as timm and `regard train` write them.

    Besides timm's entries, config.json may hold `encoder`: a dict with any of name, patch, mpp, precision and pooling.

    Raises:
        ValueError: it is not such a folder.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        named = dict(config.get("encoder", {}))
        unknown = named.keys() - {"name", "patch", "mpp", "precision", "pooling"}
        if unknown or "architecture" not in config:
            raise ValueError(
                f"config.json has encoder.{unknown.pop()}" if unknown else "config.json has no architecture"
            )
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{folder} is not an encoder folder: {error}. It holds config.json and model.safetensors, as "
            "`timm.models.save_for_hf` and `regard train` (OUT/model) write them"
        ) from error
    file = next((folder / one for one in _NAMES if (folder / one).is_file()), None)
    if file is None:
        raise ValueError(f"{folder} holds no weights; put one of {', '.join(_NAMES)} next to config.json")
    network = create_from_weights(f"local-dir:{folder}", read_weights(file), file)
    path = folder.resolve()
    return _wrap(network, named.pop("name", path.parent.name if path.name == "model" else path.name), named)


_AFTER = ("head.", "head_dist.", "fc.", "classifier.", "fc_norm.", "norm.")
_NAMES = ("model.safetensors", "pytorch_model.bin", "model.pth")


def _layer(name: str, value: Any) -> Any:
    """The class of a layer that an option names."""
    return getattr(timm.layers, value) if name == "mlp_layer" else value


def _wrap(network: nn.Module, name: str, named: Mapping[str, Any]) -> PatchEncoder:
    """A model with its classifier taken off, and its own transforms; a patch is taken whole, whatever its crop."""
    data = resolve_model_data_config(network)
    network.reset_classifier(0)  # type: ignore[operator]
    side = int(data["input_size"][-1])
    interpolation = "bilinear" if data["interpolation"] == "bilinear" else "bicubic"
    options = {"patch": max(side, 224), **named}
    dim = _width(network, side) * (2 if options.get("pooling") == "class+mean" else 1)
    return PatchEncoder(
        network,
        name=name,
        dim=dim,
        size=side,
        mean=data["mean"],
        std=data["std"],
        interpolation=interpolation,
        prefix=int(getattr(network, "num_prefix_tokens", 1)),
        **options,
    )


def _width(network: nn.Module, side: int) -> int:
    """Width of its features: from timm, or measured with one image."""
    known = getattr(network, "head_hidden_size", None) or getattr(network, "num_features", None)
    if known is not None:
        return int(known)
    with torch.inference_mode():
        return int(network.eval()(torch.zeros(1, 3, side, side)).shape[-1])
