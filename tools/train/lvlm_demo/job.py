"""`regard train lvlm-demo`: the small vision-language model of the package, from scratch, on rendered scenes.

The output folder holds settings.yaml, run.json (versions), for each stage its weights and a table of its losses, and
when the run is finished summary.json and model/: half-precision weights, tokenizer and processor, which `AutoProcessor`
and `LlavaForConditionalGeneration` of the transformers library load. About 8 minutes on two idle processor cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from transformers import AutoProcessor, LlavaForConditionalGeneration
from transformers.utils import logging

from ....datasets.scene_words import build_processor
from ....whole_files import whole_folder
from ...run.devices import choose_device
from ...run.run_folder import open_run
from ...settings import TrainLvlmDemoSettings
from .exam import evaluate_model
from .network import build_scene_lvlm
from .training import STAGES, train_stages

__all__ = ["run"]


def run(settings: TrainLvlmDemoSettings) -> int:
    """Train, or resume after the last finished stage; then export the model and measure what was exported.

    Args:
        settings: see `TrainLvlmDemoSettings`.

    Returns:
        0.

    Raises:
        ValueError: a setting is wrong, or the output folder is refused (see `regard.tools.run.run_folder`).
        OSError: the output folder cannot be written, or a process was killed.
    """
    rows = min(stage.batch for stage in STAGES)
    if settings.workers > rows:
        raise ValueError(f"--workers is {settings.workers}; give 1 to {rows}, so that each has a row of every batch")
    device = str(choose_device(settings.device))
    with open_run(settings) as folder:
        summary = folder.summary
        if summary is None:
            _teach(settings, folder.path, device)
            summary = _export_and_examine(settings, folder.path, device)
            folder.finish(summary)
    _print(summary, folder.path)
    return 0


def _export_and_examine(settings: TrainLvlmDemoSettings, out: Path, device: str) -> dict[str, Any]:
    """Write model/ and measure what was written."""
    logging.disable_progress_bar()
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.workers)
    try:
        _export(out, settings.seed)
        model = LlavaForConditionalGeneration.from_pretrained(out / "model", dtype=torch.float32).eval()
        model.to(device=torch.device(device))
        processor = AutoProcessor.from_pretrained(out / "model")
        return evaluate_model(model, processor, settings.eval_scenes)
    finally:
        torch.set_num_threads(threads)
        logging.enable_progress_bar()


def _teach(settings: TrainLvlmDemoSettings, out: Path, device: str) -> None:
    (out / "meeting").unlink(missing_ok=True)  # where the processes of a stopped run had met
    arguments = (out, settings.seed, settings.steps_scale, settings.workers, device)
    if settings.workers == 1:
        threads = torch.get_num_threads()
        try:
            train_stages(0, *arguments)
        finally:
            torch.set_num_threads(threads)
        return
    try:
        mp.spawn(train_stages, arguments, nprocs=settings.workers)
    except (mp.ProcessExitedException, mp.ProcessRaisedException) as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise OSError(
            f"a process of the training ended: {reason}. The same command resumes after the last finished stage"
        ) from error
    (out / "meeting").unlink(missing_ok=True)


def _export(out: Path, seed: int) -> None:
    """Write model/ whole or not at all."""
    model = build_scene_lvlm(seed)
    model.load_state_dict(load_file(out / f"{STAGES[-1].name}.safetensors"), strict=False)
    with whole_folder(out / "model") as partial:
        model.half().save_pretrained(partial)
        (partial / "model.safetensors").chmod(0o644)  # as the other files; it is written for its owner alone
        build_processor().save_pretrained(partial)


def _print(figures: Mapping[str, Any], out: Path) -> None:
    table = Table("measure", "value", title=f"{out}: held-out scenes")
    for name, value in figures["captions"].items():
        table.add_row(name, f"{value:.1f}" + (" %" if name in ("chair_s", "chair_i", "recall") else ""))
    for kind, values in figures["questions"].items():
        accuracies = ", ".join(f"{name} {value:.1f} %" for name, value in values.items())
        table.add_row(f"{kind} questions", accuracies)
    Console().print(table)
