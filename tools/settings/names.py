"""Interventions and benchmarks on the command line, checked before torch is imported."""

from __future__ import annotations

from typing import Annotated

from ...class_names import check_name
from .types import Parsed

__all__ = ["BenchmarkText", "InterventionText", "check_benchmark", "check_intervention_text"]

_ROOT = __name__.partition(".")[0]
_SCENES = "tools.evaluate.scene_benchmarks"


def check_intervention_text(text: str) -> None:
    """Check the grammar, names and options of interventions; `none` is the baseline.

    Raises:
        ValueError: an unknown name or option, a value of the wrong type, or invalid grammar.

    Example:
        >>> check_intervention_text("vhr(alpha=1.5), pai")
    """
    from ...mllm.interventions import check_interventions

    if text != "none":
        check_interventions(text)


def check_benchmark(text: str) -> None:
    """Check the grammar, the name and the options of a benchmark.

    Raises:
        ValueError: an unknown name or option, a value of the wrong type, or invalid grammar.

    Example:
        >>> check_benchmark('pope(parser="words")')
    """
    from ...mllm.benchmarks import BENCHMARKS
    from ...mllm.option_grammar import check_options, parse_calls

    known = {name: f"{_ROOT}.mllm.benchmarks.{path}" for name, path in BENCHMARKS.items()}
    known |= {
        "scene_captions": f"{_ROOT}.{_SCENES}:SceneCaptions",
        "scene_questions": f"{_ROOT}.{_SCENES}:SceneQuestions",
    }
    for name, options in parse_calls(text, known, "benchmark"):
        check_name(name, "benchmark", known)
        if name in known:
            check_options(known[name], f"benchmark {name}", options)


#: Interventions that are active together, such as `var, vhr(alpha=1.5)`; `none` is the baseline.
InterventionText = Annotated[str, Parsed(check_intervention_text)]
#: A benchmark with its options, such as `pope(parser="words")`.
BenchmarkText = Annotated[str, Parsed(check_benchmark)]
