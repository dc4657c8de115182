"""Loading a vision-language model and its processor, with a plain word about whatever is wrong."""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

__all__ = ["EMBEDDED", "load_model", "load_processor", "model_revision", "model_source"]

#: The small model that comes with the package.
EMBEDDED = Path(__file__).parent / "embedded"

_COUNTED = (".json", ".jinja", ".model", ".safetensors")
_END_BYTES = 1 << 22
_DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16")}


def model_source(model: str | Path) -> str:
    """Where a model is: the folder of the embedded one, another folder, or a name on the Hugging Face hub.

    Raises:
        ValueError: a folder that is not there or holds no model.
    """
    if str(model) == "embedded":
        if not (EMBEDDED / "config.json").is_file():
            raise ValueError(
                "this installation has no embedded model; give a folder, or a name on the Hugging Face hub"
            )
        return str(EMBEDDED)
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(
                f"{path} holds no model of transformers: config.json is not there. Give the folder that holds it "
                "next to the weights"
            )
        return str(path)
    if isinstance(model, Path) or path.exists() or path.is_absolute() or str(model).count("/") != 1:
        known = "embedded, the folder of a model, or its name on the Hugging Face hub, such as llava-hf/llava-1.5-7b-hf"
        raise ValueError(f"there is no folder {model}; give {known}")
    return str(model)


def model_revision(source: str, model: PreTrainedModel) -> str:
    """What identifies the state of a model: the commit on the hub, or a hash of the files of a folder.

    Of large files the ends count, and their size: weights that were trained on differ everywhere.

    Args:
        source: as `model_source` gives it.
        model: what was loaded from it.
    """
    folder = Path(source)
    if not folder.is_dir():
        return str(getattr(model.config, "_commit_hash", None) or "")
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in _COUNTED):
        size = path.stat().st_size
        whole.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            whole.update(file.read(_END_BYTES))
            file.seek(max(0, size - _END_BYTES))
            whole.update(file.read())
    return whole.hexdigest()[:16]


def load_model(
    source: str,
    *,
    device: str | torch.device | None,
    device_map: Any,
    dtype: str | torch.dtype,
    text_attention: str,
    vision_attention: str,
    **hub: Any,
) -> PreTrainedModel:
    """The model, ready to answer.

    Args:
        source: as `model_source` gives it.
        device: cpu, cuda, cuda:1 ...; by default a GPU of CUDA if there is one.
        device_map: as in accelerate, instead of `device`.
        dtype: float32, bfloat16 or float16; auto is that of the file, but on a CPU float32 for float16, which is slow
            there.
        text_attention: attention of the language model, as transformers names it.
        vision_attention: of everything else.
        hub: `revision`, `local_files_only`.

    Raises:
        ValueError: no such dtype or device, a model that does not accept images or needs its own code, no weights as
            safetensors, or no network.
    """
    if device is not None and device_map is not None:
        raise ValueError(f"give device or device_map, not both: {device!r} and {device_map!r}")
    wanted, target = _dtype(dtype), None if device_map is not None else _device(device)
    config = _read(source, "config.json", lambda: AutoConfig.from_pretrained(source, trust_remote_code=False, **hub))
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise ValueError(
            f"{source} does not accept images: to transformers {config.model_type!r} is not a model that answers "
            "in words to images and text. Load a vision-language model"
        )
    parts = {name: vision_attention for name in config.sub_configs if name != "text_config"}
    model = _read(
        source,
        "its weights",
        lambda: AutoModelForImageTextToText.from_pretrained(
            source,
            config=config,
            dtype=wanted,
            device_map=device_map,
            attn_implementation={"": vision_attention, **parts, "text_config": text_attention},
            use_safetensors=True,
            trust_remote_code=False,
            **hub,
        ),
    )
    if target is not None:
        slow = dtype == "auto" and target.type == "cpu" and model.dtype == torch.float16
        model = model.to(target, torch.float32 if slow else None)
    return model.eval()


def load_processor(source: str, **hub: Any) -> Any:
    """The processor of a model: prompts are padded on the left, and there is a token to pad with.

    Raises:
        ValueError: a file is missing, or what is there makes no images or no tokens.
    """
    kind = "its processor (preprocessor_config.json or processor_config.json, tokenizer.json, tokenizer_config.json)"
    processor = _read(source, kind, lambda: AutoProcessor.from_pretrained(source, trust_remote_code=False, **hub))
    if not all(hasattr(processor, part) for part in ("tokenizer", "image_processor")):
        raise ValueError(
            f"{source} lacks files of {kind}: what is there makes {type(processor).__name__}. Copy them from where the "
            "model comes from"
        )
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return processor


def _read(source: str, what: str, read: Any) -> Any:
    """The result of `read`, or its error in plain words."""
    try:
        return read()
    except ImportError as error:
        raise ValueError(f"cannot load {what} of {source}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        text = " ".join(str(error).split())
        if "trust_remote_code" in text or "does not recognize this architecture" in text or "model type" in text:
            raise ValueError(
                f"{source} needs code that transformers does not have, and code from a model's folder is never run. "
                f"({text[:300]})"
            ) from error
        if not Path(source).is_dir() and any(
            word in text for word in ("connect", "offline", "cached files", "resolve")
        ):
            raise ValueError(
                f"cannot fetch {what} of {source!r} from the Hugging Face hub: no network, or no such model. Give the "
                f"folder of a model that is on this machine. ({text[:300]})"
            ) from error
        if "safetensors" in text or "no file named" in text:
            raise ValueError(
                f"{source} has no weights as safetensors, the one form that is read: other forms may run code when "
                f"they are opened. ({text[:300]})"
            ) from error
        raise ValueError(f"cannot load {what} of {source}: {text[:500]}") from error


def _dtype(dtype: str | torch.dtype) -> str | torch.dtype:
    if dtype == "auto" or dtype in _DTYPES.values():
        return dtype
    if isinstance(dtype, str) and dtype in _DTYPES:
        return _DTYPES[dtype]
    near = difflib.get_close_matches(str(dtype), _DTYPES, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ValueError(f"no dtype is called {dtype!r}; {hint}Known: auto, {', '.join(_DTYPES)}")


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"no device is called {device!r}; give cpu, cuda, cuda:1 or mps") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"the device {device} is not available; torch finds {torch.cuda.device_count()} CUDA GPUs")
    return chosen
