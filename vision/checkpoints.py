"""Weights files: read safely, identified, and loaded with clear errors if they do not fit.

Only tensors and plain values are read: safetensors, or PyTorch's own format with `weights_only=True`. One more class is
allowed, `argparse.Namespace`, because training scripts such as DeiT's and timm's store their arguments next to the
weights. It is harmless: it has no `__setstate__`, `__reduce__` or `__del__`, PyTorch's restricted reader creates it
without calling anything from the file and then fills its `__dict__`, and it is discarded unread. Everything else that a
pickle may import is refused by name; `regard convert --trust true` extracts the tensors of such files.
"""

from __future__ import annotations

import argparse
import pickletools
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.models import clean_state_dict, get_pretrained_cfg, split_model_name_tag
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .backbones import FAMILIES
from .downloads import fetch, is_url, looks_like_a_web_page

__all__ = [
    "SkipInit",
    "check_published",
    "choose_weights",
    "create_from_weights",
    "family_of",
    "find_file",
    "fitting",
    "foreign_names",
    "identify",
    "looks_like",
    "published_url",
    "read_checkpoint",
    "read_weights",
    "recognise",
    "shorten",
    "translate",
]

#: Keys under which training scripts store weights: averages over training (EMA) first, then plain ones.
_AVERAGED = ("state_dict_ema", "model_ema", "params_ema")
_PLAIN = ("state_dict", "model", "params", "teacher")

#: Networks of timm that are easily confused with ours -> a pattern of their parameter names.
_OTHERS = {
    "a Swin": r"^layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table$",
    "a ConvNeXt": r"^stages\.\d+\.(blocks\.)?\d+\.(dwconv|conv_dw)\.weight$",
    "a ResNet": r"^layer\d\.\d+\.conv2\.weight$",
    "a ViT or DeiT": r"^blocks\.\d+\.attn\.qkv\.weight$",
}

#: Globals that PyTorch's restricted reader allows.
_ALLOWED = re.compile(
    r"torch\.(\w+Storage|Size|device|bool|q?u?int\d+|b?float\d\w*|complex\d+)|torch\._utils\._rebuild_\w+"
    r"|collections\.(OrderedDict|Counter)|(builtins|__builtin__)\.set|argparse\.Namespace"
)


def find_file(source: str | Path, *, sha256: str | None = None) -> Path:
    """The local file of a path, or of a URL once it is fetched; see `regard.vision.downloads.fetch`."""
    return fetch(str(source), sha256=sha256) if is_url(source) else Path(source)


def published_url(name: str) -> str | None:
    """URL of the published weights of one of our models; None without weights, or if they are on the Hub or timm's."""
    cfg = get_pretrained_cfg(name, allow_unregistered=True) if family_of(name) else None
    return str(cfg.url) if cfg and cfg.url and not (cfg.hf_hub_id or cfg.file) else None


def check_published(name: str) -> None:
    """Check that one of our models has weights that can be downloaded; timm checks its own models.

    Raises:
        ValueError: it has none.
    """
    cfg = get_pretrained_cfg(name, allow_unregistered=True) if family_of(name) else None
    if cfg and not cfg.has_weights:
        advice = f"; {', '.join(cfg.notes)}, and give it as weights=FILE" if cfg.notes else ""
        raise ValueError(f"no weights of {name} are available for download{advice}")


def family_of(name: str) -> ModuleType | None:
    """The family of one of our models; None for other models."""
    architecture = split_model_name_tag(name)[0]
    return next((family for family in FAMILIES.values() if architecture in family.default_cfgs), None)


def read_weights(source: str | Path, *, averaged: bool = True) -> dict[str, Tensor]:
    """Read the tensors of a local file by name.

    Args:
        source: safetensors, or PyTorch's format, zipped or not.
        averaged: whether an average over training is preferred if a file has both that and plain weights.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a folder, empty, a web page, cut short, holds no tensors, or more than tensors.

    Example:
        >>> torch.save({"epoch": 3, "model": {"module.head.bias": torch.zeros(5)}}, "example.pth")
        >>> read_weights("example.pth")
        {'head.bias': tensor([0., 0., 0., 0., 0.])}
    """
    return choose_weights(read_checkpoint(source), source, averaged=averaged)


def read_checkpoint(source: str | Path) -> Any:
    """Read a local file, weights or a dict around them; arguments and errors as for `read_weights`."""
    file = Path(source)
    if file.is_dir():
        raise ValueError(
            f"{file} is a folder; one that timm or `regard train` saved loads as the model local-dir:{file}"
        )
    if not file.is_file():
        raise FileNotFoundError(f"there is no weights file {file}")
    with file.open("rb") as content:
        start = content.read(512)
    if not start:
        raise ValueError(f"{file} is empty")
    if looks_like_a_web_page(start):
        raise ValueError(f"{file} is a web page, not a weights file: its link needs a browser; download it with one")
    try:
        if start[8:9] == b"{":  # safetensors: the length of a JSON header, then the header
            return load_file(file)
        with file.open("rb") as content, torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(content, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged files raise whatever their readers raise
        wanted = foreign_names(file)
        if wanted:
            raise ValueError(
                f"{file} holds more than tensors: it imports {shorten(wanted)}, which could run "
                f"code. Only tensors and plain values are read. `regard convert {file} --trust true` extracts "
                "the tensors in a sandbox that imports none of these, and writes a safe copy"
            ) from error
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if "TorchScript" in str(error):
            reason = "a TorchScript archive is a program; use the state dict it was made from"
        raise ValueError(
            f"{file} is damaged, truncated or not a weights file ({reason[:200]}); "
            "if it was downloaded, delete it and download it again"
        ) from error


def choose_weights(checkpoint: Any, source: str | Path, *, averaged: bool = True) -> dict[str, Tensor]:
    """Extract the weights of a checkpoint: unwrapped, without the prefixes of data parallelism and torch.compile.

    Args:
        checkpoint: weights by name, or dicts around them as training scripts write them.
        source: its name in messages.
        averaged: as in `read_weights`.

    Raises:
        ValueError: there are no tensors in it.
    """
    keys = (*_AVERAGED, *_PLAIN) if averaged else (*_PLAIN, *_AVERAGED)
    inside = checkpoint
    while isinstance(inside, Mapping):
        found = next((inside[key] for key in keys if isinstance(inside.get(key), Mapping) and inside[key]), None)
        if found is None:
            break
        inside = found
    named = inside.items() if isinstance(inside, Mapping) else ()
    tensors = {name: value for name, value in named if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        names = ", ".join(map(str, list(inside)[:9])) if isinstance(inside, Mapping) else type(inside).__name__
        raise ValueError(f"{source} holds no weights by name; it has {names or 'nothing'}")
    return clean_state_dict(tensors)


def foreign_names(file: Path) -> list[str]:
    """Globals that a PyTorch file imports beyond those its restricted reader allows; nothing is loaded.

    Current files are zip archives, which PyTorch inspects. Older ones are five consecutive pickles, inspected here.
    """
    if zipfile.is_zipfile(file):
        try:
            with torch.serialization.safe_globals([argparse.Namespace]):
                return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(file)))
        except Exception:  # damaged; the reader's own message gives the details
            return []
    names: set[str] = set()
    try:
        with file.open("rb") as content:
            for _ in range(5):
                names |= set(_imports(content))
    except Exception:  # not a pickle, or cut short: what was found up to there counts
        pass
    return sorted(name for name in names if not _ALLOWED.fullmatch(name))


def _imports(pickled: Any) -> Iterable[str]:
    """The globals that one pickle names; for protocol 4 the last two strings before the opcode, memo included."""
    texts: list[str] = []
    memo: list[str] = []
    argument: Any
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in ("GLOBAL", "INST"):
            yield argument.replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif opcode.name == "MEMOIZE":
            memo.append(texts[-1] if texts else "")
        elif opcode.name in ("BINGET", "LONG_BINGET") and argument < len(memo):
            texts.append(memo[argument])
        elif isinstance(argument, str):
            texts.append(argument)


def create_from_weights(name: str, weights: Mapping[str, Tensor], source: str | Path, **kwargs: Any) -> nn.Module:
    """Create a model with given weights; they must fit, except for a head with another number of classes.

    Args:
        name: as in `regard.create_model`.
        weights: by the names of its authors, its own, or others of its family.
        source: name of the weights in messages.
        kwargs: arguments of timm. Without `num_classes` the model has as many classes as the weights; with another
            number its head is newly initialised.

    Raises:
        ValueError: they do not fit; the message names the family and size that they match.
    """
    overlay = {**(kwargs.pop("pretrained_cfg_overlay", None) or {}), "state_dict": dict(weights)}
    host = kwargs.get("host", name)
    classes = _classes(host, weights)
    if classes is not None:
        overlay.setdefault("num_classes", classes)
    try:
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs)
    except (RuntimeError, LookupError) as error:  # LookupError: a filter met names it does not know
        parts = [looks_like(weights, name), _misfits(error)]
        raise ValueError(f"{source} does not load into {host}: {'; '.join(part for part in parts if part)}") from error
    for module in model.modules():
        if isinstance(getattr(module, "pretrained_cfg", None), dict):
            module.pretrained_cfg.pop("state_dict", None)  # type: ignore[union-attr, operator]
    return model


def translate(weights: Mapping[str, Tensor], name: str, **kwargs: Any) -> tuple[dict[str, Tensor], nn.Module]:
    """Weights by the names of one of our models, and that model without storage.

    Args:
        weights: of a file.
        name: a model of one of our families.
        kwargs: timm's, for that model.

    Raises:
        RuntimeError, LookupError, ValueError: the names or shapes are not of that family.
    """
    family = family_of(name)
    assert family is not None
    with torch.device("meta"), SkipInit():
        model = timm.create_model(name, **kwargs)
    return family.checkpoint_filter_fn(dict(weights), model), model


class SkipInit(TorchFunctionMode):
    """Skips random initialisation, for models on the meta device or whose weights are loaded next."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run all functions but the random initialisers."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("normal_", "uniform_", "trunc_normal_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def fitting(weights: Mapping[str, Tensor], family: ModuleType) -> list[str]:
    """Models of a family whose names and shapes match these weights, apart from classes and input channels."""
    if hasattr(family, "deduce"):
        found = identify(weights)
        return [found[0]] if found and found[1].keys() <= {"in_chans"} else []
    shapes = {name: tensor.to("meta") for name, tensor in weights.items()}
    fit: list[str] = []
    for name, cfgs in family.default_cfgs.items():
        loose = {f"{layer}.weight" for layer in _listed(cfgs.default.first_conv)}
        loose |= {f"{layer}.{end}" for layer in _listed(cfgs.default.classifier) for end in ("weight", "bias")}
        try:
            translated, model = translate(shapes, name)
        except (RuntimeError, LookupError, ValueError):
            continue
        own = model.state_dict()
        same = own.keys() - loose
        if same == translated.keys() - loose and all(own[key].shape == translated[key].shape for key in same):
            fit.append(name)
    return fit


def identify(weights: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]] | None:
    """The name of the model of these weights and its arguments, empty for a published size; None if unknown.

    Other sizes are identified for families whose module has `deduce` and `named`.
    """
    family = recognise(weights)
    if hasattr(family, "deduce"):
        assert family is not None
        try:
            return family.named(family.deduce(weights))
        except (LookupError, ValueError):
            return None
    fit: list[str] = fitting(weights, family) if family else []
    return (fit[0], {}) if len(fit) == 1 else None


def looks_like(weights: Mapping[str, Tensor], name: str = "") -> str:
    """A description of the published network of these weights; empty if unknown, or if it is the model `name`.

    Example:
        >>> looks_like({"layer1.0.conv2.weight": torch.zeros(1)})
        'it looks like a ResNet of timm, which is not translated'
    """
    family = recognise(weights)
    if family is not None:
        fit = fitting(weights, family)
        if split_model_name_tag(name)[0] in fit:
            return ""
        size = f"and fits {' and '.join(fit)}" if fit else "but has none of its published sizes"
        return f"it looks like the family {family.__name__.rpartition('.')[2]} {size}"
    other = next((what for what, pattern in _OTHERS.items() if any(re.search(pattern, key) for key in weights)), "")
    return other and f"it looks like {other} of timm, which is not translated"


def recognise(weights: Iterable[str]) -> ModuleType | None:
    """The family of ours whose `KEYS` match these parameter names; None without a match."""
    names = list(weights)
    for family in FAMILIES.values():
        if any(re.search(pattern, name) for pattern in getattr(family, "KEYS", ()) for name in names):
            return family
    return None


def shorten(names: Sequence[str], most: int = 12) -> str:
    """A short list of names: layer numbers become `*`, duplicates are removed, and the rest is counted.

    Example:
        >>> shorten(["blocks.0.attn.bias", "blocks.1.attn.bias", "norm.bias"])
        'blocks.*.attn.bias, norm.bias'
    """
    short = list(dict.fromkeys(re.sub(r"\b\d+\b", "*", name) for name in names))
    more = f" and {len(short) - most} more" if len(short) > most else ""
    return ", ".join(short[:most]) + more or "nothing"


def _classes(name: str, weights: Mapping[str, Tensor]) -> int | None:
    """Number of classes of the head in these weights; None if it is not found."""
    cfg = get_pretrained_cfg(name, allow_unregistered=True)
    if cfg is None or not cfg.classifier:
        return None
    key = f"{_listed(cfg.classifier)[0]}.weight"
    if key not in weights and family_of(name):
        try:
            weights = translate(weights, name)[0]
        except (RuntimeError, LookupError, ValueError):
            return None
    return len(weights[key]) if key in weights else None


def _listed(names: str | Sequence[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def _misfits(error: Exception) -> str:
    """The reason of a loading error in one line."""
    text = str(error)
    if "state_dict" not in text:
        return text.strip().partition("\n")[0]
    parts = []
    for what, words in (("missing:", "Missing key"), ("unexpected:", "Unexpected key")):
        found = re.search(rf"{words}\(s\) in state_dict: (.*)", text)
        if found:
            names = re.findall(r'"([^"]+)"', found[1])
            parts.append(f"{what} {shorten(names, 6)}")
    sizes = re.findall(r"size mismatch for ([^:]+): .*?torch\.Size\((.*?)\).*?torch\.Size\((.*?)\)", text)
    if sizes:
        first = f"{sizes[0][0]} is {sizes[0][1]} there, {sizes[0][2]} here"
        parts.append(f"the shapes differ of {shorten([name for name, *_ in sizes], 6)} ({first})")
    return "; ".join(parts)
