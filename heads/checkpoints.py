"""Load the authors' weights of heads: identify the head by parameter names, rename, and infer the options.

Only tensors and plain values are read, as safetensors or in PyTorch's format with `weights_only=True`. The sources of
the names are cited in the file of each head.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .table import HEADS, build_head

__all__ = ["convert_weights", "load_head", "read_head_weights"]

#: Keys under which training scripts store the weights in a file.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "student")

#: Prefixes added by data parallelism, torch.compile and Lightning modules.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")

#: Head -> a pattern of parameter names that identifies it; the first match is used.
_SIGNATURES: dict[str, str] = {
    "mhim": r"online_encoder\.",
    "acmil_mha": r"sub_attention\.\d+\.q_proj\.weight",
    "acmil": r"Slide_classifier\.fc\.weight",
    "dtfd": r"att_?(classifier|cls)\.attention\.",
    "ibmil": r"confounder_feat",
    "abmil_mha": r"attention\.q_proj\.weight",
    "abmil": r"dimreduction\.fc1\.weight",
    "clam_mb": r"(?<!_)classifiers\.0\.weight",
    "clam_sb": r"attention_net\.",
    "transmil": r"pos_layer\.proj\.weight",
    "dsmil": r"b_classifier\.fcc\.weight",
    "ilra": r"gab_blocks\.",
    "ins": r"queue_labels",
}


def load_head(source: str | Path, name: str | None = None, **own: Any) -> nn.Module:
    """Build a head with the weights of a file, in evaluation mode.

    Args:
        source: a local file of the authors, or of the `state_dict()` of a head of Regard.
        name: name of the head; without it the parameter names decide, which cannot distinguish mean and max.
        own: options of the head that the weights do not determine, such as `chunk` or a dropout rate.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds more than tensors, no weights of a head, or weights that do not fit.

    Example:
        >>> torch.save(build_head("abmil", 64, 3, width=32).state_dict(), "abmil.pt")
        >>> head = load_head("abmil.pt")
        >>> head.dim_in, head.num_classes
        (64, 3)
    """
    weights = read_head_weights(source)
    return _build(weights, name, str(source), own)


def read_head_weights(source: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a local file by name, without the dicts and prefixes that training scripts add.

    The four dicts of a DTFD file become one, with the key of each as a prefix.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds more than tensors, or no tensors by name.
    """
    file = Path(source)
    if not file.is_file():
        raise FileNotFoundError(f"there is no weights file {file}")
    try:
        with file.open("rb") as content:
            is_safetensors = content.read(9)[8:] == b"{"
        found = load_file(file) if is_safetensors else torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged files raise many kinds of errors
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{file} is damaged, or holds more than tensors and plain values ({reason[:150]}); a file that you trust "
            "can be saved again with only its state_dict"
        ) from error
    while isinstance(found, Mapping):
        inside = next((found[key] for key in _WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inside is None:
            break
        found = inside
    weights: dict[str, Tensor] = {}
    for key, value in found.items() if isinstance(found, Mapping) else ():
        if isinstance(value, Tensor):
            weights[str(key)] = value
        elif isinstance(value, Mapping):
            parts = {name.removeprefix("module."): part for name, part in value.items() if isinstance(part, Tensor)}
            weights |= {f"{key}.{name}": part for name, part in parts.items()}
    if not weights:
        raise ValueError(f"{file} holds no weights by name")
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def convert_weights(weights: Mapping[str, Tensor], name: str | None = None) -> tuple[str, dict[str, Tensor]]:
    """Identify the head of some weights, and rename them to its parameter names.

    Args:
        weights: tensors by the authors' names, or ours.
        name: as in `load_head`.

    Raises:
        ValueError: the names are not those of a known head.

    Example:
        >>> old = {"attention_net.2.attention_c.weight": torch.zeros(1, 256), "classifiers.weight": torch.zeros(2, 512)}
        >>> convert_weights(old)[1].keys()
        dict_keys(['attention_net.3.attention_c.weight', 'classifiers.weight'])
    """
    if name is None:
        name = next((head for head, sign in _SIGNATURES.items() if any(re.search(sign, key) for key in weights)), None)
    if name is None and {"head.0.weight", "head.3.weight"} <= weights.keys():
        raise ValueError('these weights fit both mean and max; give the name, e.g. load_head(file, "max")')
    if name is None:
        shown = ", ".join(list(weights)[:6])
        raise ValueError(f"these weights are not those of a known head ({shown} ...); known: {', '.join(HEADS)}")
    renamed = dict(weights)
    for pattern, new in _RENAMED.get(name.removesuffix("_sb").removesuffix("_mb"), ()):
        renamed = {re.sub(pattern, new, key): value for key, value in renamed.items()}
    renamed = {key: value for key, value in renamed.items() if not key.startswith("dropped.")}
    if name == "mhim" and not any(key.startswith("student.") for key in renamed):
        renamed = {f"{who}.{key}": value for who in ("student", "teacher") for key, value in renamed.items()}
    return name, renamed


#: Names of the authors -> ours, applied in this order; names with `dropped.` are not loaded.
_RENAMED: dict[str, list[tuple[str, str]]] = {
    "clam": [
        (r"^instance_loss_fn\.", "dropped."),
        (r"^(attention_net|classifiers|instance_classifiers)\.module\.", r"\1."),
        (r"^attention_net\.2\.", "attention_net.3."),  # before dropout became unconditional
        (r"^attention_net\.3\.module\.2\.", "attention_net.3.module.3."),
    ],
    "dsmil": [
        (r"^i_classifier\.(feature_extractor|fc\.0\.feature)\.", "dropped."),
        (r"^i_classifier\.(fc\.)?(0\.)?(weight|bias)$", r"i_classifier.fc.0.\3"),
    ],
    "dtfd": [
        (r"^(dimReduction|dimreduction)\.", "dim_reduction."),
        (r"^(attCls|att_cls)\.", "att_classifier."),
    ],
    "mhim": [
        (r"^patch_to_emb\.", "feature."),
        (r"(^|\.)merge\.global_q_mm$", r"\1merge.global_q"),
    ],
}


def _build(weights: Mapping[str, Tensor], name: str | None, source: str, own: dict[str, Any]) -> nn.Module:
    old_mhim = any(key.startswith("patch_to_emb.") for key in weights)
    try:
        name, renamed = convert_weights(weights, name)
        dim_in, classes, options = _OPTIONS[name](renamed)
    except KeyError as error:
        raise ValueError(f"{source} does not hold a head {name}: it has no {error.args[0]}") from error
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    if name == "mhim" and old_mhim:
        options |= {"activation": "relu", "by_class": False}
    head = build_head(name, dim_in, classes, **(options | own))
    expected = head.state_dict()
    missing, over = sorted(expected.keys() - renamed.keys()), sorted(renamed.keys() - expected.keys())
    wrong = [key for key in expected.keys() & renamed.keys() if expected[key].shape != renamed[key].shape]
    if missing or over or wrong:
        parts = {"missing": missing, "unexpected": over, "of another shape": sorted(wrong)}
        details = "; ".join(f"{what}: {', '.join(keys[:5])}" for what, keys in parts.items() if keys)
        raise ValueError(f"{source} does not fit {name} with {options | own}; {details}")
    head.load_state_dict(renamed)
    return head.eval()


_Found = tuple[int, int, dict[str, Any]]


def _pair(weight: Tensor) -> tuple[int, int]:
    """Outputs and inputs of a linear layer."""
    return weight.shape[0], weight.shape[1]


def _mean_max(weights: Mapping[str, Tensor]) -> _Found:
    width, dim_in = _pair(weights["head.0.weight"])
    return dim_in, len(weights["head.3.weight"]), {"width": width}


def _gated(reduction: str, last: str) -> Callable[[Mapping[str, Tensor]], _Found]:
    def read(weights: Mapping[str, Tensor]) -> _Found:
        width, dim_in = _pair(weights[f"{reduction}.fc1.weight"])
        hidden = len(weights["attention.attention_V.0.weight"])
        return dim_in, len(weights[last]), {"width": width, "hidden": hidden}

    return read


def _abmil(weights: Mapping[str, Tensor]) -> _Found:
    dim_in, classes, options = _gated("dimreduction", "classifier.fc.weight")(weights)
    has = {"bias": "dimreduction.fc1.bias" in weights, "gated": "attention.attention_U.0.weight" in weights}
    return dim_in, classes, options | has


def _acmil(weights: Mapping[str, Tensor]) -> _Found:
    dim_in, classes, options = _gated("dimreduction", "Slide_classifier.fc.weight")(weights)
    return dim_in, classes, options | {"branches": len(weights["attention.attention_weights.weight"])}


def _acmil_mha(weights: Mapping[str, Tensor]) -> _Found:
    width, dim_in = _pair(weights["dimreduction.fc1.weight"])
    return dim_in, len(weights["Slide_classifier.fc.weight"]), {"width": width, "branches": weights["q"].shape[1]}


def _abmil_mha(weights: Mapping[str, Tensor]) -> _Found:
    width, dim_in = _pair(weights["dimreduction.fc1.weight"])
    return dim_in, len(weights["classifier.fc.weight"]), {"width": width}


def _ibmil(weights: Mapping[str, Tensor]) -> _Found:
    dim_in, classes, options = _gated("dimreduction", "classifier.weight")(weights)
    merge = "cat" if weights["classifier.weight"].shape[1] == 2 * options["width"] else "add"
    count, joint = len(weights["confounder_feat"]), len(weights["W_q.weight"])
    return dim_in, classes, options | {"count": count, "joint": joint, "merge": merge}


def _clam(weights: Mapping[str, Tensor]) -> _Found:
    width, dim_in = _pair(weights["attention_net.0.weight"])
    gated = "attention_net.3.attention_a.0.weight" in weights
    hidden = len(weights[f"attention_net.3.{'attention_a' if gated else 'module'}.0.weight"])
    single = weights.get("classifiers.weight")
    classes = sum(bool(re.fullmatch(r"classifiers\.\d+\.weight", key)) for key in weights)
    return dim_in, classes if single is None else len(single), {"width": width, "hidden": hidden, "gated": gated}


def _dsmil(weights: Mapping[str, Tensor]) -> _Found:
    classes, dim_in = _pair(weights["i_classifier.fc.0.weight"])
    nonlinear = "b_classifier.q.0.weight" in weights
    hidden = len(weights[f"b_classifier.q.{'0.' if nonlinear else ''}weight"])
    values = "b_classifier.v.1.weight" in weights
    return dim_in, classes, {"hidden": hidden, "nonlinear": nonlinear, "values": values}


def _transmil(weights: Mapping[str, Tensor]) -> _Found:
    width, dim_in = _pair(weights["_fc1.0.weight"])
    heads = len(weights["layer1.attn.res_conv.weight"])
    return dim_in, len(weights["_fc2.weight"]), {"width": width, "heads": heads}


def _ilra(weights: Mapping[str, Tensor]) -> _Found:
    width, dim_in = _pair(weights["gab_blocks.0.project_forward.fc_k.weight"])
    layers = 1 + max(int(match[1]) for key in weights if (match := re.match(r"gab_blocks\.(\d+)", key)))
    norm = "pooling.mha.ln0.weight" in weights
    options = {"width": width, "layers": layers, "latents": weights["pooling.S"].shape[1], "norm": norm}
    return dim_in, len(weights["classifier.weight"]), options


def _mhim(weights: Mapping[str, Tensor]) -> _Found:
    width, dim_in = _pair(weights["student.feature.0.weight"])
    merge = weights.get("student.merge.global_q")
    signatures = {"selfattn": "layer1.norm.weight", "dsmil": "i_classifier.0.weight"}
    found = (name for name, sign in signatures.items() if f"student.online_encoder.{sign}" in weights)
    options = {"width": width, "baseline": next(found, "attn"), "merge_tokens": 0 if merge is None else merge.shape[1]}
    return dim_in, len(weights["student.predictor.weight"]), options


def _ins(weights: Mapping[str, Tensor]) -> _Found:
    width, dim_in = _pair(weights["encoder.0.weight"])
    remembered, embedding = _pair(weights["queue"])
    return dim_in, len(weights["fc.weight"]), {"width": width, "embedding": embedding, "queue": remembered}


#: Head -> a function that infers dim_in, classes and options from its weights.
_OPTIONS: dict[str, Callable[[Mapping[str, Tensor]], _Found]] = {
    "mean": _mean_max,
    "max": _mean_max,
    "abmil": _abmil,
    "abmil_mha": _abmil_mha,
    "clam_sb": _clam,
    "clam_mb": _clam,
    "dsmil": _dsmil,
    "transmil": _transmil,
    "dtfd": _gated("dim_reduction", "classifier.fc.weight"),
    "ilra": _ilra,
    "ibmil": _ibmil,
    "acmil": _acmil,
    "acmil_mha": _acmil_mha,
    "mhim": _mhim,
    "ins": _ins,
}
