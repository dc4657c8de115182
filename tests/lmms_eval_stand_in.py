"""A stand-in for the interface of lmms-eval 0.7.3, where that is not installed; found by `pythonpath` of pytest."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import ModuleType
from typing import Any

INSTALLED = find_spec("lmms_eval") is not None


@dataclass
class TokenCounts:
    input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass
class GenerationResult:
    text: Any
    token_counts: TokenCounts | None = None


@dataclass
class Instance:
    request_type: str
    arguments: tuple[Any, ...]
    idx: int
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def args(self) -> tuple[Any, ...]:
        return self.arguments


@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None


class CacheHook:
    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        pass


class LMMS:
    is_simple = True

    def __init__(self) -> None:
        self._rank, self._world_size, self.cache_hook, self.task_dict = 0, 1, CacheHook(), {}

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def world_size(self) -> int:
        return self._world_size

    def clean(self) -> None:
        pass


def unwrap_generation_output(output: Any) -> tuple[Any, TokenCounts | None]:
    """What the evaluator makes of what a model returns: whatever it does not expect becomes text."""
    if isinstance(output, GenerationResult):
        return output.text, output.token_counts
    if isinstance(output, list) and all(isinstance(one, str) for one in output):
        return output, None
    return str(output), None


@contextmanager
def importable() -> Iterator[None]:
    """As long as the block lasts, lmms-eval can be imported: itself if it is installed, otherwise this one."""
    if INSTALLED:
        yield
        return
    contents: dict[str, dict[str, Any]] = {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.api.instance": {one.__name__: one for one in (GenerationResult, Instance, TokenCounts)},
        "lmms_eval.api.model": {"lmms": LMMS},
        "lmms_eval.models": {},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }
    contents["lmms_eval.api.instance"]["unwrap_generation_output"] = unwrap_generation_output
    for name, values in contents.items():
        module = ModuleType(name)
        module.__path__ = []
        vars(module).update(values)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in contents:
            del sys.modules[name]
