"""`regard score`: score tables and a report from existing answers, without a model.

FOLDER/summary.json has, for each benchmark, the result of `regard.mllm.evaluation.score_tables.score`, the settings of
its arms and the skipped images; FOLDER/report.html shows it. Scoring the same answers again gives the same files.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from ...mllm.benchmarks.captioning import export_answers
from ...mllm.benchmarks.mmhal import read_judgements, write_for_judge
from ...mllm.benchmarks.reading import read_answer_file
from ...mllm.evaluation.answer_files import Answers, StoredAnswer, find_arms, read_answers
from ...mllm.evaluation.answer_store import AnswerWriter
from ...mllm.evaluation.arm_settings import Arm, arm_file_name
from ...mllm.evaluation.sample_file import SampleFile, write_samples
from ...mllm.evaluation.score_tables import score
from ...whole_files import write_atomically
from ..settings import ScoreSettings
from .benchmarks import KNOWN, build, options_of, parse_benchmark
from .report.build import build_report
from .report.data import report_data

__all__ = ["finish", "run"]


def run(settings: ScoreSettings) -> int:
    """Score, print and write.

    Args:
        settings: see `ScoreSettings`.

    Returns:
        0, or 1 if an intervention was inactive or samples have no answer.

    Raises:
        ValueError: no answers in the folder, or files that do not match.
        OSError: the folder cannot be written.
    """
    out, names = Path(settings.folder), None
    if settings.answers:
        names = [_import(settings, out)]
    own = None if settings.benchmark is None else parse_benchmark(settings.benchmark)[0]
    images = None if settings.image_folder is None else Path(settings.image_folder)
    given = [_pair(text, "answers")[0] for text in settings.answers]
    return finish(
        out,
        names,
        settings.arm or given or None,
        settings.resamples,
        settings.seed,
        own=own,
        images=images,
        export=settings.export,
        judgements=dict(_pair(text, "judgements") for text in settings.judgements),
        as_json=settings.json,
    )


def finish(
    out: Path,
    names: Sequence[str] | None,
    arms: Sequence[str] | None,
    resamples: int,
    seed: int,
    *,
    own: str | None = None,
    images: Path | None = None,
    export: str | None = None,
    judgements: Mapping[str, str] | None = None,
    as_json: bool = False,
) -> int:
    """Score the answers in a folder.

    Args:
        out: the folder.
        names: of the benchmarks; `None` for all.
        arms: text forms of interventions, the baseline first; `None` for all, the one without interventions first.
        resamples: of the bootstrap.
        seed: of the resamples.
        own: name of your own benchmark, `package.module:Class`, which may be imported.
        images: image folder; by default the one of the evaluation.
        export: format of the answers for external judges.
        judgements: arm -> file with the replies of a judge.
        as_json: print the summary as JSON.

    Returns:
        As `run`.

    Raises:
        ValueError: as `run`.
    """
    folders = [path.parent for path in sorted(out.glob("*/samples.jsonl"))]
    if names is not None:
        folders = sorted(folders, key=lambda one: one.name)
    known = _settings(out)
    summary: dict[str, Any] = {"benchmarks": {}}
    parts = []
    for folder in folders:
        samples = SampleFile(folder / "samples.jsonl")
        if names is not None and samples.name not in names:
            continue
        if samples.name not in (*KNOWN, *(names or ()), own):
            raise ValueError(
                f"{folder} has answers of {samples.name}, which is not a bundled benchmark; to import it, give "
                f"--benchmark {samples.name}"
            )
        benchmark = build(samples.name, samples.options)
        answers = _arms(folder, samples, arms, known.get("fix") or [])
        scored = score(samples, benchmark, answers, resamples=resamples, seed=seed)
        scored["settings"] = {name: asdict(one.arm) for name, one in answers.items()}
        scored["skipped_images"] = _skipped_images(folder)
        scored["warnings"] = _mixed(answers) + scored["warnings"]
        if export:
            _export(folder, samples, answers, export)
        if judgements:
            scored["judgements"] = {arm: read_judgements(Path(file), samples) for arm, file in judgements.items()}
        summary["benchmarks"][samples.name] = scored
        parts.append((folder, samples, benchmark, answers, scored))
    if not parts:
        raise ValueError(f"{out} has no answers; give the --out of `regard evaluate`")
    summary["inactive_arms"] = sorted({arm for *_, scored in parts for arm in _inactive(scored)})
    write_atomically(out / "summary.json", json.dumps(summary, indent=1, allow_nan=False))
    write_atomically(out / "report.html", build_report(report_data(known, parts, images)))
    if as_json:
        print(json.dumps(summary, indent=1))
    else:
        for *_, scored in parts:
            _print(scored)
        print(f"report: {out / 'report.html'}")
    for arm in summary["inactive_arms"]:
        sys.stderr.write(f"{arm} was inactive in all samples, so its scores are the baseline's\n")
    incomplete = any(any(scored["missing"].values()) for *_, scored in parts)
    return 1 if summary["inactive_arms"] or incomplete else 0


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise ValueError(f"--{option} expects NAME=FILE; got {text!r}")
    return name, file


def _import(settings: ScoreSettings, out: Path) -> str:
    """Import answer files into the folder; returns the name of their benchmark."""
    assert settings.benchmark is not None
    assert settings.data is not None
    name, benchmark = parse_benchmark(settings.benchmark, synonyms=settings.synonyms or "")
    samples = benchmark.samples(Path(settings.data))
    read = {arm: (Path(file), read_answer_file(Path(file), samples)) for arm, file in _pairs(settings.answers)}
    out.mkdir(parents=True, exist_ok=True)
    written = write_samples(out / name / "samples.jsonl", name, options_of(benchmark), samples)
    known = {"data": settings.data, "image_folder": settings.image_folder, "answers": settings.answers}
    write_atomically(out / "settings.yaml", yaml.safe_dump(known, sort_keys=False))
    for arm, (path, answers) in read.items():
        stored = Arm(
            benchmark=f"{name} {json.dumps(written.options, sort_keys=True)} {written.hash}",
            model="file",
            revision=sha256(path.read_bytes()).hexdigest()[:16],
            intervention=arm,
            prompt="",
            decoding={},
            code="",
        )
        with AnswerWriter(out / name / "answers", arm_file_name(arm), stored) as writer:
            for sample, text in zip(samples, answers, strict=True):
                if sample.id not in writer.done:
                    answer = StoredAnswer(id=sample.id, text=text, tokens=len(text.split()), at_limit=False)
                    writer.add(answer)
    return name


def _pairs(texts: Sequence[str]) -> list[tuple[str, str]]:
    pairs = [_pair(text, "answers") for text in texts]
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError(f"--answers has a name twice: {', '.join(texts)}; give each file its own name")
    return pairs


def _arms(folder: Path, samples: SampleFile, wanted: Sequence[str] | None, order: Sequence[str]) -> dict[str, Answers]:
    """Arms by the text form of their interventions: the wanted ones, or all, the baseline first."""
    found: dict[str, Answers] = {}
    for name in find_arms(folder / "answers"):
        answers = read_answers(folder / "answers", name)
        if not answers.arm.benchmark.endswith(f" {samples.hash}"):
            raise ValueError(
                f"{answers.files[0]} has answers to other samples than {samples.path}: {answers.arm.benchmark[:80]}. "
                "Remove one of the files"
            )
        found[answers.arm.intervention or "none"] = answers
    names = list(found) if wanted is None else [name or "none" for name in wanted]
    lacking = [name for name in names if name not in found]
    if lacking or not names:
        raise ValueError(
            f"{folder} has no answers of {lacking[0] if lacking else 'any arm'}; it has {', '.join(found) or 'none'}"
        )
    if wanted is None:
        rank = {name: position for position, name in enumerate(["none", *order])}
        names.sort(key=lambda name: (rank.get(name, len(rank)), name))
    return {name: found[name] for name in names}


def _mixed(answers: Mapping[str, Answers]) -> list[dict[str, Any]]:
    """Warnings about arms whose settings differ from the baseline's in more than the interventions."""
    base, *others = answers.items()
    found = []
    for name, own in others:
        changes = [
            change for change in base[1].arm.changes(own.arm) if not change.startswith(("intervention", "revision"))
        ]
        if changes:
            found.append(
                {"arm": name, "part": None, "text": f"has other settings than the baseline: {'; '.join(changes)}"}
            )
    return found


def _skipped_images(folder: Path) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("skipped_images*.json")):
        for one in json.loads(path.read_text(encoding="utf-8")):
            known = found.setdefault(one["image"], {**one, "samples": 0})
            known["samples"] += one["samples"]
    return [found[image] for image in sorted(found)]


def _inactive(scored: Mapping[str, Any]) -> list[str]:
    """Arms with an intervention that was inactive in all samples."""
    return [arm for arm, interventions in scored["activity"].items() if any(not one["active"] for one in interventions)]


def _settings(out: Path) -> dict[str, Any]:
    path = out / "settings.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _export(folder: Path, samples: SampleFile, answers: Mapping[str, Answers], form: str) -> None:
    for name, own in answers.items():
        texts = {answer.id: answer.text for answer in own}
        asked = [sample for sample in samples if sample.id in texts]
        own_texts = [texts[sample.id] for sample in asked]
        path = folder / "export" / f"{arm_file_name('' if name == 'none' else name)}.{form}.json"
        if form == "mmhal":
            write_for_judge(asked, own_texts, path)
        else:
            export_answers(asked, own_texts, path, form)
        sys.stderr.write(f"written: {path}\n")


def _print(scored: Mapping[str, Any]) -> None:
    """Print all metrics under the first parser, the headline metric of each part, and the warnings."""
    console = Console(width=None if sys.stdout.isatty() else 180)
    parts = [part for part in scored["parts"] if part["kind"] != "pooled"]
    name, parser = next(iter(parts[-1]["parsers"].items()))
    what = "mean of the parts" if len(parts) > 1 else "all questions"
    columns = {
        metric.replace("_percent", " %"): cells
        for metric, cells in parser["metrics"].items()
        if any(cell["value"] is not None for cell in cells.values())
    }
    _print_table(console, f"{scored['benchmark']}, {what}: {scored['images']} images, parser {name}", columns, scored)
    if len(parts) > 1:
        headline = next(iter(parser["metrics"]))
        columns = {part["part"]: part["parsers"][name]["metrics"][headline] for part in parts}
        _print_table(console, f"{scored['benchmark']}, {headline} in each part", columns, scored)
    for arm, marks in scored.get("judgements", {}).items():
        console.print(f"{arm}: " + ", ".join(f"{name} {value:.2f}" for name, value in marks.items()), markup=False)
    for one in scored["skipped_images"]:
        console.print(f"skipped: {one['image']} ({one['samples']} samples): {one['reason']}", markup=False)
    for warning in scored["warnings"]:
        where = ", ".join(filter(None, (warning["arm"] or scored["benchmark"], warning["part"])))
        console.print(f"{where}: {warning['text']}", markup=False)


def _print_table(
    console: Console, title: str, columns: Mapping[str, Mapping[str, Any]], scored: Mapping[str, Any]
) -> None:
    table = Table(title=f"{title}; (95 %), \\[95 % of the difference]")
    table.add_column("intervention", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    for arm in scored["arms"]:
        table.add_row(arm, *(_cell(cells[arm]) for cells in columns.values()))
    console.print(table)


def _cell(cell: Mapping[str, Any]) -> str:
    if cell["value"] is None:
        return "-"
    digits = 1 if abs(cell["value"]) >= 10 else 2
    change = cell["difference"]
    if change is None:
        both = "" if cell["low"] is None else f" ({cell['low']:.{digits}f}-{cell['high']:.{digits}f})"
    else:
        both = "" if change["low"] is None else f" \\[{change['low']:+.{digits}f}, {change['high']:+.{digits}f}]"
    return f"{cell['value']:.{digits}f}{both}"
