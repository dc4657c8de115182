"""`regard evaluate` for vision-language models: fixes beside the baseline, on the same samples, with paired statistics.

The output folder holds settings.yaml, for each arm answers/ARM.jsonl (a line an answer, written as soon as it is there;
the same command goes on after the last of them) and summary.json.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ..mllm import LVLM, describe, parse_interventions
from ..mllm.benchmarks import Sample
from ..mllm.statistics import Estimate, bootstrap, holm
from .ask import quiet_loading
from .scene_benchmarks import SCENE_BENCHMARKS, SceneCaptions, SceneQuestions
from .settings import EvaluateSettings
from .training import write_atomically

__all__ = ["run"]

#: What is compared where no fix is named: methods, and controls without any idea behind them.
FIXES = [
    *("var", "vhr:alpha=1.5", "rebalance:alpha=0.4,beta=0.2,gamma=1,layers=all", "pai:gamma=1,layers=all", "vcd"),
    *("vdd:alpha=0.5", "end_bias:amount=1", "word_bias:amount=-1", "random_heads:alpha=1.5", "image_scale:factor=2"),
]
_BASELINE = "none"
_LONGEST = {"scene_captions": 60, "scene_questions": 4}


@dataclass(frozen=True)
class _Arm:
    """One way of answering one benchmark."""

    fix: str
    benchmark: SceneCaptions | SceneQuestions
    file: Path


def run(settings: EvaluateSettings) -> int:
    """Answer what is not answered yet, score, print and write.

    Args:
        settings: see `EvaluateSettings`.

    Returns:
        0, or 1 when a fix did nothing.

    Raises:
        ValueError: an unknown benchmark or fix, or a model that cannot be loaded.
        OSError: the output folder cannot be written.
    """
    names = settings.benchmark or list(SCENE_BENCHMARKS)
    unknown = [name for name in names if name not in SCENE_BENCHMARKS]
    if unknown:
        raise ValueError(f"no benchmark is called {unknown[0]!r}; known: {', '.join(SCENE_BENCHMARKS)}")
    if settings.scenes < 2 or settings.resamples < 1:
        raise ValueError(f"give 2 scenes and 1 resample at least; got {settings.scenes} and {settings.resamples}")
    fixes = list(dict.fromkeys([_BASELINE, *(settings.fix or FIXES)]))
    methods = {fix: () if fix == _BASELINE else parse_interventions(fix) for fix in fixes}
    out, model = Path(settings.out), settings.model or "embedded"
    sizes = {"scene_captions": settings.scenes, "scene_questions": max(2, settings.scenes // 4)}  # 18 questions a scene
    benchmarks = [SCENE_BENCHMARKS[name](scenes=sizes[name], seed=settings.seed + 1) for name in names]
    (out / "answers").mkdir(parents=True, exist_ok=True)
    write_atomically(out / "settings.yaml", yaml.safe_dump(asdict(settings), sort_keys=False))
    with quiet_loading():
        lvlm = LVLM.load(model)
    summary: dict[str, Any] = {"model": model, "versions": _versions(), "benchmarks": {}}
    idle: set[str] = set()
    for benchmark in benchmarks:
        samples = benchmark.samples(Path())
        arms = [_Arm(fix, benchmark, _file(out, model, benchmark, fix, methods[fix])) for fix in fixes]
        answers = {}
        for arm in arms:
            answers[arm.fix], fired = _answer(lvlm, arm, methods[arm.fix], samples, settings.batch_size)
            idle |= set() if fired or arm.fix == _BASELINE else {arm.fix}
        summary["benchmarks"][benchmark.name] = scored = _score(benchmark, samples, answers, settings)
        _print(benchmark.name, len({sample.image for sample in samples}), scored)
    summary["did_nothing"] = sorted(idle)
    write_atomically(out / "summary.json", json.dumps(summary, indent=1))
    for fix in sorted(idle):
        sys.stderr.write(f"{fix} did nothing in any sample: its figures are the baseline's\n")
    return 1 if idle else 0


def _file(out: Path, model: str, benchmark: SceneCaptions | SceneQuestions, fix: str, methods: Sequence[Any]) -> Path:
    """Where an arm's answers go: another file for whatever else would make other answers."""
    said = ",".join(map(describe, methods)) or _BASELINE
    key = {"model": model, "benchmark": benchmark.name, "options": asdict(benchmark), "fix": said, **_versions()}
    short = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    return out / "answers" / f"{benchmark.name}-{fix.partition(':')[0]}-{short}.jsonl"


def _answer(
    lvlm: LVLM, arm: _Arm, methods: Sequence[Any], samples: Sequence[Sample], batch_size: int
) -> tuple[dict[str, str], bool]:
    """All answers of an arm by sample, and whether its methods did anything."""
    lines = list(_whole_lines(arm.file))
    done = {line["id"] for line in lines}
    left = [sample for sample in samples if sample.id not in done]
    with arm.file.open("a", encoding="utf-8") as file, Progress(transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(f"{arm.benchmark.name} {arm.fix}", total=len(samples), completed=len(done))
        for first in range(0, len(left), batch_size):
            part = left[first : first + batch_size]
            answers = lvlm.answer(
                [arm.benchmark.picture(sample) for sample in part],
                [sample.question for sample in part],
                methods=methods,
                max_new_tokens=_LONGEST[arm.benchmark.name],
                batch_size=batch_size,
                allow_inactive=True,
            )
            for sample, answer in zip(part, answers, strict=True):
                active = [one.method for one in answer.activity if one.active]
                lines.append({"id": sample.id, "text": answer.text, "complete": answer.complete, "active": active})
                file.write(json.dumps(lines[-1]) + "\n")
            file.flush()
            bar.advance(task, len(part))
    wanted = {method.name for method in methods}
    fired = {name for line in lines for name in line["active"]}
    return {line["id"]: line["text"] for line in lines}, wanted <= fired


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The answers of a file; a last line that a killed run left unfinished is cut off.

    Raises:
        ValueError: another line is damaged.
    """
    if not path.is_file():
        return
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} of {path} is damaged ({error}); remove the file to answer anew") from error


def _score(
    benchmark: SceneCaptions | SceneQuestions,
    samples: Sequence[Sample],
    answers: Mapping[str, Mapping[str, str]],
    settings: EvaluateSettings,
) -> dict[str, Any]:
    """For each part and arm every metric with its interval, and its difference to the baseline."""
    images = {image: place for place, image in enumerate(dict.fromkeys(sample.image for sample in samples))}
    parts: dict[str, Any] = {}
    for part in dict.fromkeys(sample.part for sample in samples):
        mine = [sample for sample in samples if sample.part == part]
        names: list[str] = []
        numbers = np.zeros((0, 0, 0))
        for index, said in enumerate(answers.values()):
            for sample in mine:
                counted = next(iter(benchmark.count(sample, said[sample.id]).values()))
                if not names:
                    names = list(counted.numbers)
                    numbers = np.zeros((len(images), len(answers), len(names)))
                numbers[images[sample.image], index] += list(counted.numbers.values())
        arms, width = len(answers), len(names)

        def metrics(sums: np.ndarray, names: list[str] = names, shape: tuple[int, int] = (arms, width)) -> Any:
            tables = sums.reshape(len(sums), *shape)
            return benchmark.metrics({name: tables[..., place] for place, name in enumerate(names)})

        found = bootstrap(numbers.reshape(len(images), -1), metrics, resamples=settings.resamples)
        parts[part] = {arm: _row(found, index) for index, arm in enumerate(answers)}
        for metric, estimate in found.items():
            for row, p in zip(parts[part].values(), holm(estimate.p), strict=True):
                row[metric]["p_holm"] = None if np.isnan(p) else float(p)
    return parts


def _row(found: Mapping[str, Estimate], arm: int) -> dict[str, Any]:
    fields = ("value", "low", "high", "difference", "difference_low", "difference_high")
    return {
        metric: {field: float(getattr(estimate, field)[arm]) for field in fields} for metric, estimate in found.items()
    }


def _print(name: str, images: int, parts: Mapping[str, Any]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 180)
    for part, arms in parts.items():
        table = Table(title=f"{name}{'' if part == 'all' else f', {part}'}: {images} images; [95 % of the difference]")
        table.add_column("fix", no_wrap=True)
        for metric in next(iter(arms.values())):
            table.add_column(metric.replace("_percent", " %"), justify="right")
        for arm, row in arms.items():
            table.add_row(arm, *(_cell(cell, arm == _BASELINE) for cell in row.values()))
        console.print(table)


def _cell(cell: Mapping[str, Any], baseline: bool) -> str:
    if baseline:
        return f"{cell['value']:.1f} ({cell['low']:.1f} to {cell['high']:.1f})"
    return f"{cell['value']:.1f} \\[{cell['difference_low']:+.1f}, {cell['difference_high']:+.1f}]"


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("regard", "torch", "transformers")}
