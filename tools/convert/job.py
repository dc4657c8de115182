"""`regard convert`: from a file of the authors to a folder that timm loads.

The folder holds model.safetensors, config.json and convert.json, the report: where the weights come from, how they were
read, SHA-256 of source and result, and what was left out. It appears whole or not at all.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import timm
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor

from ... import __version__
from ...vision import checkpoints
from ...vision.downloads import check_sha256, sha256_of
from ...whole_files import write_atomically
from ..settings import ConvertSettings
from ..train.export import export
from .sandbox import extract

__all__ = ["run"]


def run(settings: ConvertSettings) -> int:
    """Read, recognise, translate, load strictly, write and check.

    Args:
        settings: see `ConvertSettings`.

    Returns:
        0.

    Raises:
        ValueError: the file is unsafe, damaged or of an unknown network, or the folder is taken.
        OSError: the file cannot be fetched, or the folder not be written.
    """
    if settings.model is not None and checkpoints.family_of(settings.model) is None:
        raise ValueError(
            f"--model {settings.model} is none of ours (regard list --kind models); "
            "timm and regard.create_model load files of timm's own models as they are"
        )
    file = checkpoints.find_file(settings.source, sha256=settings.sha256)
    if settings.sha256:
        check_sha256(file, settings.sha256, "it is another file than you mean, or damaged")
    checkpoint, reading = _read(file, settings.trust)
    weights = checkpoints.choose_weights(checkpoint, file)
    name, options = (settings.model, {}) if settings.model else _recognise(weights, file)
    options = options | settings.options
    averaged = getattr(checkpoints.family_of(name), "AVERAGED", True)
    weights = checkpoints.choose_weights(checkpoint, file, averaged=averaged)
    out = Path(settings.out or re.sub(r"\W", "_", name))
    origin = {"source": settings.source, "sha256": sha256_of(file), "model": name, "options": options}
    report = _already(out, origin)
    if report is None:
        report = _write(weights, origin, reading, out)
    else:
        sys.stderr.write(f"{out} is of this very file already; nothing was done\n")
    _print(report, out)
    return 0


def _read(file: Path, trust: bool) -> tuple[Any, str]:
    """What the file holds, and how it was read."""
    try:
        return checkpoints.read_checkpoint(file), "nothing but tensors and plain values"
    except ValueError:
        if not trust or not checkpoints.foreign_names(file):
            raise
    return extract(file)


def _recognise(weights: dict[str, Tensor], file: Path) -> tuple[str, dict[str, Any]]:
    """The model that the weights fit, and its arguments where it has none of the published sizes.

    Raises:
        ValueError: none, or more than one.
    """
    found = checkpoints.identify(weights)
    if found:
        told = ", ".join(f"{key} {value}" for key, value in found[1].items())
        sys.stderr.write(f"{file} holds the weights of {found[0]}{f' with {told}' if told else ''}\n")
        return found
    family = checkpoints.recognise(weights)
    fit = checkpoints.fitting(weights, family) if family else []
    if fit:
        raise ValueError(f"{file} fits {' and '.join(fit)}; say which by --model")
    like = checkpoints.looks_like(weights) or f"its names, such as {checkpoints.shorten(list(weights), 6)}, are unknown"
    raise ValueError(f"cannot tell which model {file} is of: {like}. If it is one of ours, say which by --model")


def _already(out: Path, origin: dict[str, Any]) -> dict[str, Any] | None:
    """The report in `out` if the same file was converted to it before; None if the folder is free.

    Raises:
        ValueError: something else is there.
    """
    if not out.exists():
        return None
    try:
        report = json.loads((out / "convert.json").read_text(encoding="utf-8"))
        whole = sha256_of(out / "model.safetensors") == report["result"]["sha256"]
        if whole and all(report["origin"][key] == origin[key] for key in ("sha256", "model", "options")):
            return report
    except (OSError, ValueError, LookupError, TypeError):
        pass  # no report of ours, or a damaged folder
    raise ValueError(f"{out} is there already and is not of this file; give another --out, or delete it")


def _write(weights: dict[str, Tensor], origin: dict[str, Any], reading: str, out: Path) -> dict[str, Any]:
    """Convert; the folder gets its name as the last thing."""
    name, options = origin["model"], origin["options"]
    model: Any = checkpoints.load_model(name, weights, origin["source"], **options)
    classes = getattr(model, "num_classes", None)  # restoration has none
    head = {} if classes is None else {"num_classes": classes}
    translated, _ = checkpoints.translate(weights, name, **(options | head))
    kept = {tensor.data_ptr() for tensor in translated.values()}
    building = out.with_name(out.name + ".building")
    out.parent.mkdir(parents=True, exist_ok=True)
    export(model, building)
    result = load_file(building / "model.safetensors")
    again = timm.create_model(f"local-dir:{building}", pretrained=True).state_dict()
    assert all(torch.equal(again[key], value) for key, value in model.state_dict().items())
    report = {
        "origin": origin,
        "reading": reading,
        "result": {
            "sha256": sha256_of(building / "model.safetensors"),
            "tensors": len(result),
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "classes": classes,
        },
        "left_out": sorted(key for key, tensor in weights.items() if tensor.numel() and tensor.data_ptr() not in kept),
        "freshly_initialised": sorted(key for key in result if key not in translated or translated[key].is_meta),
        "regard": __version__,
    }
    write_atomically(building / "convert.json", json.dumps(report, indent=1))
    building.rename(out)
    return report


def _print(report: dict[str, Any], out: Path) -> None:
    """The report as a table on stdout."""
    origin, result = report["origin"], report["result"]
    rows = {
        "source": origin["source"],
        "its SHA-256": origin["sha256"],
        "how it was read": report["reading"],
        "model": origin["model"],
        "tensors": f"{result['tensors']:,}",
        "parameters": f"{result['parameters']:,}",
        "classes": str(result["classes"] or "none"),
        "left out": checkpoints.shorten(report["left_out"]),
        "freshly initialised": checkpoints.shorten(report["freshly_initialised"]),
        "SHA-256 of model.safetensors": result["sha256"],
        "load it": f'timm.create_model("local-dir:{out}", pretrained=True)',
    }
    table = Table(show_header=False, title=str(out))
    table.add_column()
    table.add_column(overflow="fold")
    for what, value in rows.items():
        table.add_row(what, value)
    Console().print(table)
