"""The comparison of heads on bags: a summary of all trainings, tables, files and a figure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from ....heads.comparison import class_scores, survival_scores
from ....heads.metrics import SCORES
from ....heads.survival import survival_loss
from ....paired_statistics import ScoredRun, bootstrap_means, holm, paired_test
from ....whole_files import write_atomically
from ...settings import TrainMilSettings
from ..plots import save_figure

__all__ = ["compare", "print_tables", "write_tables"]

#: Statistics of attention -> their titles.
ATTENTION = {"entropy": "entropy / ln N", "top_mass": "top-10 mass", "instance_auc": "instance AUC"}

Results = Sequence[Mapping[str, Any]]


def compare(settings: TrainMilSettings, results: Results, *, bags_per_seed: bool) -> dict[str, Any]:
    """Mean, std and interval of every metric of every head, and its test against the reference.

    Args:
        settings: of the job.
        results: of all its trainings.
        bags_per_seed: whether each seed had its own bags, so that trainings with two seeds are independent.

    Returns:
        What summary.json holds; values that are not defined are null.
    """
    score = settings.score or SCORES[settings.task][0]
    by_head: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        by_head.setdefault(result["head"], []).append(result)
    tested = {head: [_tested(run, settings.task, bags_per_seed) for run in runs] for head, runs in by_head.items()}
    intervals = bootstrap_means(tested, resamples=settings.resamples, seed=settings.seed)
    heads: dict[str, Any] = {}
    for head, runs in by_head.items():
        metrics = {name: _spread([run["metrics"][name] for run in runs]) for name in runs[0]["metrics"]}
        for name, values in metrics.items():
            values["low"], values["high"] = (_or_none(end) for end in intervals[head][name])
        attention = {name: _spread([_mean_over_bags(run, name) for run in runs]) for name in ATTENTION}
        heads[head] = {
            "metrics": metrics,
            "attention": {name: own for name, own in attention.items() if own["mean"] is not None},
            "parameters": runs[0]["parameters"],
            "best_epoch": _spread([float(run["best_epoch"]) for run in runs]),
        }
    reference = settings.reference or next(iter(by_head))
    first = next(iter(by_head.values()))
    return {
        "data": Path(settings.data).name,
        "task": settings.task,
        "score": score,
        "classes": first[0]["classes"] if settings.task == "classification" else None,
        "folds": len({run["fold"] for run in first}),
        "seeds": len({run["seed"] for run in first}),
        "bags_per_seed": bags_per_seed,
        "bags": len(
            {(run["seed"] if bags_per_seed else 0, bag["slide"]) for run in first for bag in run["predictions"]}
        ),
        "heads": heads,
        "reference": reference,
        "tests": _tests(by_head, reference, score, bags_per_seed),
    }


def write_tables(out: Path, summary: Mapping[str, Any], results: Results) -> None:
    """Write predictions.csv, runs.csv and heads.png."""
    survival = summary["task"] == "survival"
    truth = ["time", "event", "interval"] if survival else ["label"]
    outputs = max(len(result["classes"]) for result in results)
    names = (
        [f"survival_{index}" for index in range(outputs)] if survival else [f"p_{name}" for name in summary["classes"]]
    )
    lines: list[list[Any]] = [["slide", "patient", "fold", "seed", "head", *truth, *names, *ATTENTION]]
    for result in results:
        probabilities = _probabilities(result, summary["task"])
        for bag, row in zip(result["predictions"], probabilities.tolist(), strict=True):
            known = [bag[name] for name in truth] if survival else [summary["classes"][bag["label"]]]
            spread = [_digits(bag["attention"].get(name)) for name in ATTENTION]
            own = [bag["slide"], bag["patient"], result["fold"], result["seed"], result["head"]]
            lines.append([*own, *known, *map(_digits, row), *spread])
    _write_csv(out / "predictions.csv", lines)
    metrics = list(results[0]["metrics"])
    lines = [["head", "fold", "seed", "best_epoch", *metrics, *ATTENTION]]
    for result in results:
        own = [result[name] for name in ("head", "fold", "seed", "best_epoch")]
        spread = [_digits(_mean_over_bags(result, name)) for name in ATTENTION]
        lines.append([*own, *(_digits(result["metrics"][name]) for name in metrics), *spread])
    _write_csv(out / "runs.csv", lines)
    draw_heads(summary, out / "heads.png")


def print_tables(summary: Mapping[str, Any]) -> None:
    """Print the metrics of the heads, the statistics of their attention, and the tests."""
    score, heads, console = summary["score"], summary["heads"], Console()
    repeats = f"{summary['seeds']} rendered sets" if summary["bags_per_seed"] else _runs(summary)
    others = [name for name in next(iter(heads.values()))["metrics"] if name != score]
    title = f"{summary['data']}: mean ± std over {repeats}; 95 % by bootstrap over patients"
    for names in ([score, *others[:2]], others[2:]):
        if not names:
            continue
        columns = [_title(names[0]), *(["95 %"] if names[0] == score else []), *map(_title, names[1:])]
        table = Table("head", *columns, title=title if names[0] == score else None)
        for label, head in heads.items():
            cells = [_pair(head["metrics"][name]) for name in names]
            if names[0] == score:
                low, high = head["metrics"][score]["low"], head["metrics"][score]["high"]
                cells.insert(1, "-" if low is None else f"{low:.3f}-{high:.3f}")
            table.add_row(label, *cells)
        console.print(table)
    shown = [name for name in ATTENTION if any(name in head["attention"] for head in heads.values())]
    if shown:
        table = Table("head", *(ATTENTION[name] for name in shown), "parameters", title="Attention on test bags")
        for label, head in heads.items():
            values = [_pair(head["attention"][name]) if name in head["attention"] else "-" for name in shown]
            table.add_row(label, *values, f"{head['parameters']:,}")
        console.print(table)
    if summary["tests"]:
        pairs = "sets" if summary["bags_per_seed"] else "folds"
        title = (
            f"{_title(score)} against {summary['reference']}, paired by {pairs[:-1]}; p by Nadeau and Bengio's t-test"
        )
        table = Table("head", "difference", f"{pairs} better", "worse", "p", "p (Holm)", title=title)
        for label, test in summary["tests"].items():
            probabilities = ["-" if test[name] is None else f"{test[name]:.3f}" for name in ("p", "p_holm")]
            table.add_row(label, f"{test['difference']:+.3f}", str(test["better"]), str(test["worse"]), *probabilities)
        console.print(table)


def _tests(
    by_head: Mapping[str, Results], reference: str, score: str, bags_per_seed: bool
) -> dict[str, dict[str, float | int | None]]:
    """Every head against the reference, by fold (mean over the seeds), or by rendered set."""
    unit = "seed" if bags_per_seed else "fold"
    scores = {}
    for head, runs in by_head.items():
        units: dict[int, list[float]] = {}
        for run in runs:
            units.setdefault(run[unit], []).append(run["metrics"][score])
        scores[head] = np.array([np.mean(values) for _, values in sorted(units.items())])
    shares = [run["bags"]["test"] / run["bags"]["train"] for run in by_head[reference]]
    ratio = 0.0 if bags_per_seed else float(np.mean(shares))
    found = {
        head: paired_test(own, scores[reference], test_to_train=ratio)
        for head, own in scores.items()
        if head != reference
    }
    adjusted = holm([test.p for test in found.values()])
    return {
        head: {
            "difference": _or_none(test.difference),
            "better": test.better,
            "worse": test.worse,
            "p": _or_none(test.p),
            "p_holm": _or_none(p_holm),
        }
        for (head, test), p_holm in zip(found.items(), adjusted, strict=True)
        if math.isfinite(test.difference)
    }


def _tested(run: Mapping[str, Any], task: str, bags_per_seed: bool) -> ScoredRun:
    """A training's test bags for the bootstrap."""
    bags = run["predictions"]
    patients = [(run["seed"] if bags_per_seed else 0, bag["patient"]) for bag in bags]
    if task == "survival":
        times = np.array([bag["time"] for bag in bags], dtype=np.float32)
        events = np.array([bag["event"] for bag in bags], dtype=bool)
        rows = torch.tensor([bag["logits"] for bag in bags])
        targets = torch.tensor([[bag["interval"], int(bag["event"])] for bag in bags])
        losses = np.array(
            [float(survival_loss(row[None], target[None])) for row, target in zip(rows, targets, strict=True)]
        )
        return ScoredRun(patients, lambda weights: survival_scores(rows.numpy(), times, events, losses, weights))
    probabilities = _probabilities(run, task).double().numpy()
    labels = np.array([bag["label"] for bag in bags])
    return ScoredRun(patients, lambda weights: class_scores(probabilities, labels, weights))


def _probabilities(run: Mapping[str, Any], task: str) -> torch.Tensor:
    """Probabilities of the classes, or of being past each interval."""
    logits = torch.tensor([bag["logits"] for bag in run["predictions"]])
    if task == "survival":
        return torch.nn.functional.logsigmoid(-logits).cumsum(dim=1).exp()
    return logits.softmax(dim=1)


def _mean_over_bags(run: Mapping[str, Any], name: str) -> float:
    values = [bag["attention"][name] for bag in run["predictions"] if name in bag["attention"]]
    return float(np.mean(values)) if values else math.nan


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and std over the trainings that define a value; null where none or one does."""
    known = [value for value in values if math.isfinite(value)]
    return {
        "mean": float(np.mean(known)) if known else None,
        "std": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "undefined": len(values) - len(known),
    }


def _runs(summary: Mapping[str, Any]) -> str:
    folds, seeds = summary["folds"], summary["seeds"]
    return f"{folds} fold{'s' * (folds != 1)}" + (f" x {seeds} seeds" if seeds > 1 else "")


def _pair(spread: Mapping[str, Any]) -> str:
    if spread["mean"] is None:
        return "-"
    return f"{spread['mean']:.3f}" + ("" if spread["std"] is None else f" ± {spread['std']:.3f}")


def _title(name: str) -> str:
    return {"auc": "AUC", "macro_f1": "macro F1"}.get(name, name.replace("_", " "))


def _digits(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6g}"


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _write_csv(path: Path, lines: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    write_atomically(path, text.getvalue())


def draw_heads(summary: Mapping[str, Any], path: Path) -> None:
    """Draw the score of each head with its interval, and the statistics of its attention with their std.

    Args:
        summary: of the comparison.
        path: PNG file to write.
    """
    heads, score = summary["heads"], summary["score"]
    shown = [name for name in ATTENTION if any(name in head["attention"] for head in heads.values())]
    figure = Figure(figsize=(3.6 * (1 + len(shown)), 0.45 * len(heads) + 1.8))
    panels = figure.subplots(1, 1 + len(shown), sharey=True, squeeze=False)[0]
    rows = range(len(heads))
    for row, head in enumerate(heads.values()):
        lead, colour = head["metrics"][score], f"C{row}"
        if lead["mean"] is None:
            continue
        panels[0].plot(lead["mean"], row, "o", color=colour)
        if lead["low"] is not None:
            panels[0].plot([lead["low"], lead["high"]], [row, row], color=colour, linewidth=2)
        for panel, name in zip(panels[1:], shown, strict=True):
            if name in head["attention"]:
                spread = head["attention"][name]
                panel.barh(row, spread["mean"], xerr=spread["std"], color=colour, height=0.6)
    panels[0].set(title=f"{score.replace('_', ' ')}, 95 % interval", yticks=rows, yticklabels=list(heads))
    panels[0].invert_yaxis()
    for panel, name in zip(panels[1:], shown, strict=True):
        panel.set(title=f"attention: {ATTENTION[name]}", xlim=(0, 1))
    for panel in panels:
        panel.grid(axis="x", alpha=0.3)
    figure.suptitle(summary["data"])
    save_figure(figure, path)
