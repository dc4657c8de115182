"""`regard ask`: the answers of a vision-language model, with and without interventions, and its attention.

The output folder holds answers.json (settings, versions, answers and what each intervention did) and attention.png.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers.utils import logging

from ...datasets import read_image
from ...mllm import LVLM, Answer, describe, parse_interventions
from ...whole_files import write_atomically
from ..run.devices import choose_device
from ..settings import AskSettings
from .attention_maps import Row, changed_words, draw_attention, words_seen

__all__ = ["open_image", "quiet_loading", "run"]


def run(settings: AskSettings) -> int:
    """Ask, print the answers side by side, and draw.

    Args:
        settings: see `AskSettings`.

    Returns:
        0, or 1 when a fix did nothing, so that its answer is the baseline's.

    Raises:
        ValueError: an image, model or intervention that cannot be read or does not fit.
        OSError: the output cannot be written.
    """
    fixes = [parse_interventions(text) for text in settings.fix]
    image = open_image(settings.image)
    with quiet_loading():
        lvlm = LVLM.load(settings.model, device=choose_device(settings.device), dtype=settings.dtype)
    no_plot = why_no_plot(lvlm, image, settings)
    answers: dict[str, Answer] = {}
    for interventions in [(), *fixes]:
        name = describe(interventions) or "baseline"
        answers[name] = lvlm.answer(
            [image],
            [settings.question],
            interventions=interventions,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            beams=settings.beams,
            seed=settings.seed,
            allow_inactive=True,
            watch=no_plot is None,
        )[0]
    plot, folder = _output_paths(settings.out)
    for needed in (plot.parent, *([folder] if folder else [])):
        needed.mkdir(parents=True, exist_ok=True)
    if no_plot is None:
        draw(lvlm, image, settings, answers, plot)
    report = _report(settings, answers, plot if no_plot is None else None)
    if folder:
        write_atomically(folder / "answers.json", json.dumps(report, indent=1))
    if settings.json:
        print(json.dumps(report, indent=1))
    else:
        show(settings, answers)
    sys.stderr.write(f"No plot: {no_plot}\n" if no_plot else f"Plot: {plot}\n")
    return 1 if any(_idle(answer) for answer in answers.values()) else 0


def open_image(name: str) -> Image.Image:
    """The image of a file; `example` is the one that comes with the embedded model, unless a file is called so."""
    return LVLM.example_image() if name == "example" and not Path(name).is_file() else read_image(name)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No bars where they cannot be seen."""
    if sys.stderr.isatty():
        yield
        return
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def why_no_plot(lvlm: LVLM, image: Image.Image, settings: AskSettings) -> str | None:
    """Why attention cannot be drawn; `None` if it can."""
    if settings.beams > 1:
        return f"the attention of {settings.beams} beams cannot be separated; --beams 1 draws one"
    try:
        lvlm.image_grid(lvlm.prepare([image], [settings.question]))
    except ValueError as error:
        return str(error)
    return None


def draw(lvlm: LVLM, image: Image.Image, settings: AskSettings, answers: dict[str, Answer], path: Path) -> None:
    """Draw the answers, each word over the image as the model saw it."""
    seen = lvlm.seen_images(lvlm.prepare([image], [settings.question]))
    rows = []
    for name, answer in answers.items():
        assert answer.attention is not None
        note = ": did nothing, as the baseline" if _idle(answer) else ""
        rows.append(Row(name + note, *words_seen(answer.tokens, answer.attention[0].numpy())))
    draw_attention(seen[0] if seen else image, rows, settings.question, path)


def show(settings: AskSettings, answers: dict[str, Answer]) -> None:
    """Print the answers: a table on a terminal, lines elsewhere."""
    baseline = next(iter(answers.values())).text.split()
    if sys.stdout.isatty():
        table = Table(title=settings.question, show_lines=True)
        texts = []
        for name, answer in answers.items():
            table.add_column(name, ratio=1)
            words = answer.text.split()
            marks = changed_words(words, baseline)
            pairs = [(f"{word} ", "bold red" if mark else "") for word, mark in zip(words, marks, strict=True)]
            texts.append(Text.assemble(*pairs, ("" if answer.complete else "[cut]", "dim")))
        table.add_row(*texts)
        Console().print(table)
    else:
        for name, answer in answers.items():
            print(f"{name}: {answer.text}{'' if answer.complete else ' [cut]'}")
    for name, answer in answers.items():
        for one in answer.activity:
            print(f"  {one}")
        if _idle(answer):
            idle = ", ".join(one.intervention for one in answer.activity if not one.active)
            same = "equals" if answer.text.split() == baseline else "differs from"
            print(f"  {name}: {idle} DID NOTHING here; the answer {same} the baseline's")


def _report(settings: AskSettings, answers: dict[str, Answer], plot: Path | None) -> dict[str, Any]:
    return {
        "settings": asdict(settings),
        "versions": {name: version(name) for name in ("regard", "torch", "transformers")},
        "plot": None if plot is None else str(plot),
        "answers": [
            {
                "fix": None if name == "baseline" else name,
                "text": answer.text,
                "complete": answer.complete,
                "activity": [
                    {"intervention": one.intervention, "active": one.active, "what": str(one)}
                    for one in answer.activity
                ],
            }
            for name, answer in answers.items()
        ],
    }


def _idle(answer: Answer) -> bool:
    return any(not one.active for one in answer.activity)


def _output_paths(out: str) -> tuple[Path, Path | None]:
    """Where the plot goes, and the folder of the other results, if there is one."""
    path = Path(out)
    return (path, None) if path.suffix.lower() == ".png" else (path / "attention.png", path)
