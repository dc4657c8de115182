"""`regard train-lvlm`: the small vision-language model of the package, from nothing, on rendered scenes.

The output folder holds settings.yaml, run.json (versions), for each stage its weights and a table of its losses, and
when the run is done summary.json and model/: half-precision weights, tokenizer and processor, which `AutoProcessor`
and `LlavaForConditionalGeneration` of the transformers library load. About 8 minutes on two idle processor cores.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
import yaml
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from transformers import AutoProcessor, LlavaForConditionalGeneration
from transformers.utils import logging

from ....datasets.scene_words import build_processor
from ....whole_files import write_atomically
from ...settings import TrainLvlmSettings
from .exam import evaluate_model
from .network import build_scene_lvlm
from .training import STAGES, train_stages

__all__ = ["run"]

#: Settings that say where and on what a run works, not what comes out; they may change when a run goes on.
_PLACE = ("out", "workers", "device")


def run(settings: TrainLvlmSettings) -> int:
    """Train, or go on after the last finished stage; then export the model and measure what was exported.

    Args:
        settings: see `TrainLvlmSettings`.

    Returns:
        0.

    Raises:
        ValueError: a setting is wrong, or the output folder belongs to a run with other settings.
        OSError: the output folder cannot be written, or a process was killed.
    """
    _check(settings)
    out = Path(settings.out)
    result = out / "summary.json"
    _open_folder(settings)
    if not result.is_file():
        device = settings.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        _teach(settings, out, device)
        logging.disable_progress_bar()
        _export(out, settings.seed)
        threads = torch.get_num_threads()
        torch.set_num_threads(settings.workers)
        try:
            model = LlavaForConditionalGeneration.from_pretrained(out / "model", dtype=torch.float32).eval()
            model.to(device=torch.device(device))
            processor = AutoProcessor.from_pretrained(out / "model")
            figures = evaluate_model(model, processor, settings.eval_scenes)
        finally:
            torch.set_num_threads(threads)
            logging.enable_progress_bar()
        write_atomically(result, json.dumps(figures, indent=1))
    _print(json.loads(result.read_text(encoding="utf-8")), out)
    return 0


def _check(settings: TrainLvlmSettings) -> None:
    rows = min(stage.batch for stage in STAGES)
    if not 1 <= settings.workers <= rows:
        raise ValueError(f"workers is {settings.workers}; give 1 to {rows}, so that each has a row of every batch")
    if settings.steps_scale <= 0:
        raise ValueError(f"steps_scale is {settings.steps_scale}; give more than 0, 1.0 is the whole training")
    if settings.seed < 0 or settings.eval_scenes < 1:
        raise ValueError(
            f"seed is {settings.seed} and eval_scenes is {settings.eval_scenes}; give 0 or more, and 1 or more"
        )
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda' but torch finds no CUDA device; use cpu")


def _open_folder(settings: TrainLvlmSettings) -> None:
    """Make the output folder, or take up the one of a stopped run."""
    out = Path(settings.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; give a folder")
    here, file = asdict(settings), out / "settings.yaml"
    begun = any((out / f"{stage.name}.safetensors").exists() for stage in STAGES)
    if begun and file.is_file():
        there = yaml.safe_load(file.read_text(encoding="utf-8"))
        different = [
            f"{key}: {there.get(key)!r} there, {value!r} here"
            for key, value in here.items()
            if key not in _PLACE and there.get(key) != value
        ]
        if different:
            raise ValueError(f"{out} holds a run with other settings ({'; '.join(different)}); give another --out")
    out.mkdir(parents=True, exist_ok=True)
    versions = {"python": platform.python_version()}
    versions |= {name: version(name) for name in ("regard", "torch", "transformers", "numpy", "pillow")}
    write_atomically(file, yaml.safe_dump(here, sort_keys=False))
    write_atomically(out / "run.json", json.dumps({"versions": versions, "command": sys.argv[1:]}, indent=1))


def _teach(settings: TrainLvlmSettings, out: Path, device: str) -> None:
    (out / "meeting").unlink(missing_ok=True)  # where the processes of a stopped run had met
    words = (out, settings.seed, settings.steps_scale, settings.workers, device)
    if settings.workers == 1:
        threads = torch.get_num_threads()
        try:
            train_stages(0, *words)
        finally:
            torch.set_num_threads(threads)
        return
    try:
        mp.spawn(train_stages, words, nprocs=settings.workers)
    except (mp.ProcessExitedException, mp.ProcessRaisedException) as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise OSError(
            f"a process of the training ended: {reason}. The same command goes on after the last finished stage"
        ) from error
    (out / "meeting").unlink(missing_ok=True)


def _export(out: Path, seed: int) -> None:
    """Write model/ whole or not at all."""
    partial = out / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    model = build_scene_lvlm(seed)
    model.load_state_dict(load_file(out / f"{STAGES[-1].name}.safetensors"), strict=False)
    model.half().save_pretrained(partial)
    (partial / "model.safetensors").chmod(0o644)  # as the other files; it is written for its owner alone
    build_processor().save_pretrained(partial)
    shutil.rmtree(out / "model", ignore_errors=True)
    partial.replace(out / "model")


def _print(figures: Mapping[str, Any], out: Path) -> None:
    table = Table("measure", "value", title=f"{out}: held-out scenes")
    for name, value in figures["captions"].items():
        table.add_row(name, f"{value:.1f}" + (" %" if name in ("chair_s", "chair_i", "recall") else ""))
    for kind, values in figures["questions"].items():
        said = ", ".join(f"{name} {value:.1f} %" for name, value in values.items())
        table.add_row(f"{kind} questions", said)
    Console().print(table)
