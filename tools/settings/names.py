"""Names and options on the command line that tables without torch know: interventions and benchmarks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from ...class_names import nearest
from .types import Parsed

__all__ = ["BenchmarkText", "InterventionText", "check_benchmark", "check_interventions"]


def check_interventions(text: str) -> None:
    """See that interventions can be read, and that each is known or a class of the user's own.

    Raises:
        ValueError: a name is unknown, or the text has another form.

    Example:
        >>> check_interventions("vhr,pai")
    """
    from ...mllm.interventions import INTERVENTIONS

    if text != "none":
        _check_names("--fix", text, INTERVENTIONS, "intervention")


def check_benchmark(text: str) -> None:
    """See that a benchmark can be read, and that it is known or a class of the user's own.

    Raises:
        ValueError: the name is unknown, or the text has another form.
    """
    from ...mllm.benchmarks import BENCHMARKS

    _check_names("--benchmark", text, [*BENCHMARKS, "scene_captions", "scene_questions"], "benchmark")


def _check_names(option: str, text: str, known: Iterable[str], kind: str) -> None:
    from ...mllm.option_grammar import read_named

    names = list(known)
    for name, _ in read_named(text, names, f"{kind}s"):
        if ":" not in name and name not in names:
            raise ValueError(
                f"{option} {text!r}: unknown {kind} {name!r}; {nearest(name, names)}See 'regard list --kind {kind}s'"
            )


#: Interventions that are active together, such as `var,vhr(alpha=1.5)`; `none` is the baseline.
InterventionText = Annotated[str, Parsed(check_interventions)]
#: A benchmark with its options, such as `pope(parser="words")`.
BenchmarkText = Annotated[str, Parsed(check_benchmark)]
