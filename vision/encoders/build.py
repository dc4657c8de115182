"""Build patch encoders by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...class_names import class_named, nearest
from .encoder import PatchEncoder, check_choice
from .table import ENCODERS, NORMALISATION, NOT_BUILT, EncoderRow, Precision

__all__ = ["build_encoder", "build_network", "encoder_of"]


def build_encoder(
    name: str,
    *,
    weights: str | Path | None = None,
    trust: bool = False,
    precision: str | None = None,
) -> PatchEncoder:
    """Build an encoder of patches, ready to use: in evaluation mode, without gradients, on the CPU.

    Args:
        name: one of `ENCODERS`; `timm:NAME` for any model of timm or of ours; `open_clip:ARCH@TAG`; `hf:ID` for a
            vision model of transformers on the hub or in a folder; `torchscript:FILE`; the folder of a timm model,
            as `regard train classifier` writes it (OUT/model); or `package.module:Class` for a custom `PatchEncoder`.
        weights: a weights file instead of the published ones: safetensors, or PyTorch's own form read with
            `weights_only`; or a folder that holds it.
        trust: whether code of an encoder may run: TorchScript, or code of a repository on the hub.
        precision: precision on any device; by default that of the encoder on CUDA and float32 elsewhere.

    Raises:
        ValueError: there is no such encoder, its weights are not available or do not fit, or it needs an argument.
        FileNotFoundError: there is no such weights file.
    """
    if precision is not None:
        check_choice("precision", precision, Precision)
    if name in ENCODERS:
        encoder = _from_row(name, ENCODERS[name], weights, trust)
    else:
        encoder = _from_elsewhere(name, weights, trust)
    if precision is not None:
        encoder.precision, encoder.everywhere = precision, True
    return encoder.eval().requires_grad_(False)


def build_network(row: EncoderRow, weights: Mapping[str, Tensor] | None = None, source: str = "") -> nn.Module:
    """The network of a row of the table, with these weights; without them its shapes only.

    Args:
        row: of any kind but remote and embedded.
        weights: by the authors' names.
        source: their name in messages.

    Raises:
        ValueError: they do not fit.
    """
    from ..checkpoints import SkipInit
    from . import timm_encoders, transformers_encoders
    from .conch import Conch, conch_weights
    from .ctranspath import ctranspath
    from .keep import Keep, keep_weights

    if row.kind == "transformers":
        return transformers_encoders.build_network(row, weights, source)
    if row.kind == "timm":
        return timm_encoders.build_network(row, weights, source)
    network: nn.Module
    with SkipInit():
        if row.kind == "conch":
            network = Conch(row.architecture, dim=row.dim, size=row.size, trunk=row.options)
        elif row.kind == "keep":
            network = Keep(row.dim, trunk=row.options)
        else:
            network = ctranspath(**row.options)
    if weights is not None:
        if isinstance(network, Conch):
            weights = conch_weights(weights, network)
        elif isinstance(network, Keep):
            weights = keep_weights(weights)
        timm_encoders.load_strictly(network, weights, source, f"the network of {row.source or row.architecture}")
    return network


def _from_row(name: str, row: EncoderRow, weights: str | Path | None, trust: bool) -> PatchEncoder:
    if row.kind == "embedded":
        if weights is not None:
            raise ValueError(f"{name} has its own weights; omit weights={weights}")
        from .timm_encoders import from_folder

        return from_folder(Path(__file__).parent / "embedded")
    if row.kind == "remote":
        from .transformers_encoders import from_hub

        if not trust:
            raise ValueError(
                f"{name} runs code from https://huggingface.co/{row.source}; read that code and give trust=True"
            )
        return from_hub(str(weights or row.source), trust=True, name=name, row=row)
    from .weights import find_weights

    return encoder_of(name, row, build_network(row, *find_weights(name, row, weights)))


def encoder_of(name: str, row: EncoderRow, network: nn.Module) -> PatchEncoder:
    """A network of a row with the row's transforms and pooling."""
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
        normalised=row.normalised,
        precision=row.precision,
    )


def _from_elsewhere(name: str, weights: str | Path | None, trust: bool) -> PatchEncoder:
    kind, colon, rest = name.partition(":")
    if colon and kind == "timm":
        from .timm_encoders import from_name

        return from_name(rest, weights)
    if colon and kind == "open_clip":
        from .open_clip_encoders import from_open_clip

        return from_open_clip(rest, weights)
    if colon and kind in ("hf", "torchscript") and weights is not None:
        raise ValueError(f"{name} has its own weights; omit weights={weights}")
    if colon and kind == "hf":
        from .transformers_encoders import from_hub

        return from_hub(rest, trust=trust, name=name)
    if colon and kind == "torchscript":
        from .torchscript import from_torchscript

        return from_torchscript(Path(rest).expanduser(), trust=trust)
    if colon and "." not in rest and rest.isidentifier():
        return _from_class(name, weights)
    folder = Path(name).expanduser()
    if folder.is_dir():
        from .timm_encoders import from_folder

        if weights is not None:
            raise ValueError(f"{name} is a folder with its own weights; leave weights={weights} out, or name a model")
        return from_folder(folder)
    if name.lower() in NOT_BUILT:
        raise ValueError(f"{name} is known but not built here: {NOT_BUILT[name.lower()]}")
    raise ValueError(
        f"no encoder is called {name!r}; {nearest(name.lower(), ENCODERS)}Known: {', '.join(ENCODERS)}, timm:NAME, "
        "open_clip:ARCH@TAG, hf:ID, torchscript:FILE, or a folder with config.json and model.safetensors"
    )


def _from_class(name: str, weights: str | Path | None) -> PatchEncoder:
    """An encoder of the user's own."""
    cls: Any = class_named(name, "encoder", {}, __name__)
    if not issubclass(cls, PatchEncoder):
        raise ValueError(f"{name} is not a PatchEncoder; derive it from regard.vision.encoders.PatchEncoder")
    return cls() if weights is None else cls(weights=weights)
