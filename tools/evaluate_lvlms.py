"""`regard evaluate` for vision-language models: fixes beside the baseline, on the same samples, with paired statistics.

The output folder holds settings.yaml, for each arm answers/ARM.jsonl (a line an answer, written as soon as it is there;
the same command goes on after the last of them) and summary.json, whose form `regard.mllm.score_tables.score` tells.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ..mllm import LVLM, describe, parse_interventions
from ..mllm.answer_store import Answers, AnswerWriter, Arm, StoredAnswer, activity_summary, read_answers
from ..mllm.benchmarks import Sample
from ..mllm.score_tables import score
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
        answers = {}
        for fix in fixes:
            answers[fix] = _answer(lvlm, model, benchmark, fix, methods[fix], samples, out, settings.batch_size)
            fired = {one["method"] for answer in answers[fix] for one in answer.activity if _acted(one)}
            idle |= set() if {method.name for method in methods[fix]} <= fired else {fix}
        scored = score(samples, benchmark, answers, resamples=settings.resamples)
        summary["benchmarks"][benchmark.name] = scored
        _print(scored)
    summary["did_nothing"] = sorted(idle)
    write_atomically(out / "summary.json", json.dumps(summary, indent=1))
    for fix in sorted(idle):
        sys.stderr.write(f"{fix} did nothing in any sample: its figures are the baseline's\n")
    return 1 if idle else 0


def _answer(
    lvlm: LVLM,
    model: str,
    benchmark: SceneCaptions | SceneQuestions,
    fix: str,
    methods: Sequence[Any],
    samples: Sequence[Sample],
    out: Path,
    batch_size: int,
) -> Answers:
    """All answers of an arm; those that are there already are kept."""
    limit = _LONGEST[benchmark.name]
    arm = Arm(
        benchmark=f"{benchmark.name} {json.dumps(asdict(benchmark), sort_keys=True)}",
        model=model,
        revision=str(lvlm.model.config.to_dict().get("_commit_hash") or ""),
        method=",".join(map(describe, methods)),
        prompt="chat template",
        decoding={"max_new_tokens": limit, "beams": 1, "temperature": 0.0, "batch_size": batch_size},
        code=json.dumps(_versions(), sort_keys=True),
    )
    name = f"{benchmark.name}-{fix.partition(':')[0]}-{arm.hash[:8]}"
    with (
        AnswerWriter(out / "answers", name, arm) as writer,
        Progress(transient=True, disable=not sys.stderr.isatty()) as bar,
    ):
        left = [sample for sample in samples if sample.id not in writer.done]
        task = bar.add_task(f"{benchmark.name} {fix}", total=len(samples), completed=len(samples) - len(left))
        for first in range(0, len(left), batch_size):
            part = left[first : first + batch_size]
            begin = time.perf_counter()
            answers = lvlm.answer(
                [benchmark.picture(sample) for sample in part],
                [sample.question for sample in part],
                methods=methods,
                max_new_tokens=limit,
                batch_size=batch_size,
                allow_inactive=True,
            )
            seconds = (time.perf_counter() - begin) / len(part)
            for sample, answer in zip(part, answers, strict=True):
                writer.add(
                    StoredAnswer(
                        id=sample.id,
                        text=answer.text,
                        tokens=len(answer.tokens),
                        at_limit=not answer.complete,
                        seconds=round(seconds, 6),
                        activity=activity_summary(answer.activity),
                    )
                )
            bar.advance(task, len(part))
    return read_answers(out / "answers", name)


def _acted(one: Mapping[str, Any]) -> bool:
    """Whether a method did something for one answer; a score that was ruled out is a change without a number."""
    return bool(one["heads"]) or one["word_change"] is None or one["word_change"] > 0


def _print(scored: Mapping[str, Any]) -> None:
    """A table for each part, under the first parser; and the warnings."""
    console = Console(width=None if sys.stdout.isatty() else 180)
    for part in (part for part in scored["parts"] if part["kind"] == "part"):
        parser = next(iter(part["parsers"].values()))
        where = "" if part["part"] == "all" else f", {part['part']}"
        title = f"{scored['benchmark']}{where}: {part['images']} images; [95 % of the difference]"
        table = Table(title=title)
        table.add_column("fix", no_wrap=True)
        for metric in parser["metrics"]:
            table.add_column(metric.replace("_percent", " %"), justify="right")
        for arm in scored["arms"]:
            table.add_row(arm, *(_cell(cells[arm]) for cells in parser["metrics"].values()))
        console.print(table)
    for warning in scored["warnings"]:
        console.print(f"{warning['arm'] or scored['benchmark']}: {warning['text']}", markup=False)


def _cell(cell: Mapping[str, Any]) -> str:
    if cell["value"] is None:
        return "-"
    change = cell["difference"]
    if change is None:
        return f"{cell['value']:.1f}" + ("" if cell["low"] is None else f" ({cell['low']:.1f} to {cell['high']:.1f})")
    return f"{cell['value']:.1f}" + (
        "" if change["low"] is None else f" \\[{change['low']:+.1f}, {change['high']:+.1f}]"
    )


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("regard", "torch", "transformers")}
