"""`regard convert`: turn a checkpoint of the authors into a folder that timm loads.

The folder holds model.safetensors, config.json and convert.json, the report: the origin of the weights, how they were
read, SHA-256 of source and result, and which tensors were not used. The folder is complete or absent.
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
from ...whole_files import whole_folder, write_atomically
from ..settings import ConvertSettings
from ..train.export import export
from .sandbox import extract

__all__ = ["run"]


def run(settings: ConvertSettings) -> int:
    """Read, identify, convert, load strictly, write and verify.

    Args:
        settings: see `ConvertSettings`.

    Returns:
        0.

    Raises:
        ValueError: the file is unsafe, damaged or of an unknown network, or the folder exists already.
        OSError: the file cannot be downloaded, or the folder cannot be written.
    """
    if settings.model is not None and checkpoints.family_of(settings.model) is None:
        raise ValueError(
            f"--model {settings.model} is not one of ours (regard list --kind models); "
            "timm and regard.create_model load files of timm's own models as they are"
        )
    file = checkpoints.find_file(settings.source, sha256=settings.sha256)
    if settings.sha256:
        check_sha256(file, settings.sha256, "it is another file than you expect, or damaged")
    checkpoint, reading = _read(file, settings.trust)
    weights = checkpoints.choose_weights(checkpoint, file)
    name, options = (settings.model, {}) if settings.model else _identify(weights, file)
    options = options | settings.options
    averaged = getattr(checkpoints.family_of(name), "AVERAGED", True)
    weights = checkpoints.choose_weights(checkpoint, file, averaged=averaged)
    out = Path(settings.out or re.sub(r"\W", "_", name))
    origin = {"source": settings.source, "sha256": sha256_of(file), "model": name, "options": options}
    report = _previous_report(out, origin)
    if report is None:
        report = _convert(weights, origin, reading, out)
    else:
        sys.stderr.write(f"{out} was converted from this file before; nothing was done\n")
    _print(report, out)
    return 0


def _read(file: Path, trust: bool) -> tuple[Any, str]:
    """Read the file; also return how."""
    try:
        return checkpoints.read_checkpoint(file), "nothing but tensors and plain values"
    except ValueError:
        if not trust or not checkpoints.foreign_names(file):
            raise
    return extract(file)


def _identify(weights: dict[str, Tensor], file: Path) -> tuple[str, dict[str, Any]]:
    """Find the model that the weights fit, and its arguments where they differ from the published sizes.

    Raises:
        ValueError: no model fits, or several do.
    """
    found = checkpoints.identify(weights)
    if found:
        options = ", ".join(f"{key} {value}" for key, value in found[1].items())
        sys.stderr.write(f"{file} holds the weights of {found[0]}{f' with {options}' if options else ''}\n")
        return found
    family = checkpoints.recognise(weights)
    fit = checkpoints.fitting(weights, family) if family else []
    if fit:
        raise ValueError(f"{file} fits {' and '.join(fit)}; choose one with --model")
    like = checkpoints.looks_like(weights) or f"its names, such as {checkpoints.shorten(list(weights), 6)}, are unknown"
    raise ValueError(f"cannot identify the model of {file}: {like}. If it is one of ours, name it with --model")


def _previous_report(out: Path, origin: dict[str, Any]) -> dict[str, Any] | None:
    """Return the report in `out` if the same file was converted to it before; None if `out` does not exist.

    Raises:
        ValueError: `out` holds something else.
    """
    if not out.exists():
        return None
    try:
        report = json.loads((out / "convert.json").read_text(encoding="utf-8"))
        intact = sha256_of(out / "model.safetensors") == report["result"]["sha256"]
        if intact and all(report["origin"][key] == origin[key] for key in ("sha256", "model", "options")):
            return report
    except (OSError, ValueError, LookupError, TypeError):
        pass  # not a report of ours, or a damaged folder
    raise ValueError(f"{out} exists and was not made from this file; give another --out, or delete it")


def _convert(weights: dict[str, Tensor], origin: dict[str, Any], reading: str, out: Path) -> dict[str, Any]:
    """Write the folder and return its report."""
    name, options = origin["model"], origin["options"]
    model: Any = checkpoints.create_from_weights(name, weights, origin["source"], **options)
    classes = getattr(model, "num_classes", None)  # restoration has none
    head = {} if classes is None else {"num_classes": classes}
    translated, _ = checkpoints.translate(weights, name, **(options | head))
    used = {tensor.data_ptr() for tensor in translated.values()}
    with whole_folder(out) as folder:
        export(model, folder)
        result = load_file(folder / "model.safetensors")
        reloaded = timm.create_model(f"local-dir:{folder}", pretrained=True).state_dict()
        assert all(torch.equal(reloaded[key], value) for key, value in model.state_dict().items())
        report = {
            "origin": origin,
            "reading": reading,
            "result": {
                "sha256": sha256_of(folder / "model.safetensors"),
                "tensors": len(result),
                "parameters": sum(weight.numel() for weight in model.parameters()),
                "classes": classes,
            },
            "unused": sorted(
                key for key, tensor in weights.items() if tensor.numel() and tensor.data_ptr() not in used
            ),
            "newly_initialised": sorted(key for key in result if key not in translated or translated[key].is_meta),
            "regard": __version__,
        }
        write_atomically(folder / "convert.json", json.dumps(report, indent=1))
    return report


def _print(report: dict[str, Any], out: Path) -> None:
    """Print the report as a table on stdout."""
    origin, result = report["origin"], report["result"]
    rows = {
        "source": origin["source"],
        "SHA-256 of source": origin["sha256"],
        "reading": report["reading"],
        "model": origin["model"],
        "tensors": f"{result['tensors']:,}",
        "parameters": f"{result['parameters']:,}",
        "classes": str(result["classes"] or "none"),
        "unused": checkpoints.shorten(report["unused"]),
        "newly initialised": checkpoints.shorten(report["newly_initialised"]),
        "SHA-256 of model.safetensors": result["sha256"],
        "load it with": f'timm.create_model("local-dir:{out}", pretrained=True)',
    }
    table = Table(show_header=False, title=str(out))
    table.add_column()
    table.add_column(overflow="fold")
    for label, value in rows.items():
        table.add_row(label, value)
    Console().print(table)
