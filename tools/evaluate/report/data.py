"""What the report of an evaluation shows: its tables, and a choice of questions with images and all answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ....mllm.benchmarks import Benchmark, Counted
from ....mllm.evaluation.answer_files import Answers
from ....mllm.evaluation.arm_settings import arm_file_name
from ....mllm.evaluation.sample_file import SampleFile
from ..benchmarks import image_opener
from .build import data_uri

__all__ = ["image_path", "report_data"]

_IMAGE_PX, _ATTENTION_PX = 320, 1100

Scored = tuple[Path, SampleFile, Benchmark, Mapping[str, Answers], Mapping[str, Any]]


def image_path(folder: Path, row: int, intervention: str) -> Path:
    """The file of a plot of attention.

    Args:
        folder: of the benchmark.
        row: index of the question.
        intervention: text form of the interventions.
    """
    return folder / "attention" / f"{row}.{arm_file_name(intervention)}.png"


def report_data(settings: Mapping[str, Any], parts: Sequence[Scored], images: Path | None) -> dict[str, Any]:
    """Everything that `regard.tools.evaluate.report.build.build_report` takes, in JSON's types.

    Args:
        settings: of the run.
        parts: for each benchmark its folder, questions, rules, answers and scores.
        images: folder of images; `None` looks where the run had them. A report is made without those that are gone.
    """
    data_uris: dict[str, str] = {}
    benchmarks = [_benchmark(part, settings, images, data_uris) for part in parts]
    first = next(iter(parts[0][4]["settings"].values()))
    return {
        "title": f"{', '.join(one['name'] for one in benchmarks)}: {first['model']}",
        "settings": dict(settings),
        "versions": json.loads(first["code"] or "{}"),
        "benchmarks": benchmarks,
        "images": data_uris,
    }


def _benchmark(
    part: Scored, settings: Mapping[str, Any], images: Path | None, data_uris: dict[str, str]
) -> dict[str, Any]:
    folder, samples, benchmark, answers, scored = part
    wanted = set(scored["discordant_samples"])
    rows = [row for row, sample in enumerate(samples) if sample.id in wanted]
    texts: dict[str, dict[int, str]] = {arm: {} for arm in answers}
    row_of = {samples[row].id: row for row in rows}
    for arm, own in answers.items():
        for answer in own:
            if answer.id in row_of:
                texts[arm].setdefault(row_of[answer.id], answer.text)
    shown = []
    for row in rows:
        sample = samples[row]
        key = f"{scored['benchmark']}/{sample.image}"
        if sample.image and key not in data_uris:
            image = _opened(benchmark, samples, row, settings, images)
            if image is not None:
                data_uris[key] = data_uri(image, _IMAGE_PX)
        shown_answers = {}
        for arm in answers:
            counted = next(iter(benchmark.count(sample, texts[arm][row]).values()))
            shown_answers[arm] = _answer(texts[arm][row], counted, _attention_plots(folder, row, arm, key, data_uris))
        shown.append(
            {
                "id": sample.id,
                "image": key if key in data_uris else None,
                "question": sample.question,
                "truth": _truth(sample.truth, shown_answers),
                "part": sample.part,
                "answers": shown_answers,
            }
        )
        for one in shown_answers.values():
            one.pop("true")
    costs = folder / "costs.json"
    return {
        "name": scored["benchmark"],
        "scores": dict(scored),
        "costs": json.loads(costs.read_text(encoding="utf-8")) if costs.is_file() else None,
        "samples": shown,
    }


def _answer(text: str, counted: Counted, attention: list[str]) -> dict[str, Any]:
    parsed = counted.parsed if isinstance(counted.parsed, str) else ", ".join(dict.fromkeys(counted.parsed))
    return {
        "text": text,
        "parsed": parsed,
        "correct": counted.correct,
        "invented": list(dict.fromkeys(counted.invented)),
        "attention": attention,
        "true": list(counted.true),
    }


def _truth(truth: Any, answers: Mapping[str, Mapping[str, Any]]) -> str:
    if isinstance(truth, str):
        return truth
    true = next(iter(answers.values()))["true"]
    return ", ".join(map(str, true)) if true else "" if truth is None else json.dumps(truth)[:200]


def _attention_plots(folder: Path, row: int, arm: str, key: str, data_uris: dict[str, str]) -> list[str]:
    path = image_path(folder, row, "" if arm == "none" else arm)
    if not path.is_file():
        return []
    name = f"{key} {row} {arm}"
    if name not in data_uris:
        with Image.open(path) as image:
            data_uris[name] = data_uri(image.convert("RGB"), _ATTENTION_PX)
    return [name]


def _opened(
    benchmark: Any, samples: SampleFile, row: int, settings: Mapping[str, Any], images: Path | None
) -> Image.Image | None:
    """The image of a question; `None` if it is not there any more."""
    folder = images or Path(settings.get("image_folder") or settings.get("data") or ".")
    folder = folder if folder.is_dir() else folder.parent
    try:
        return image_opener(benchmark, [samples[row]], folder)[0](samples[row])
    except (ValueError, OSError):
        return None
