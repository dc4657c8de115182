"""An arm of an evaluation: all settings that determine its answers besides the samples."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

__all__ = ["Arm", "arm_file_name"]

#: Maximum length of the name of an answer file, without its suffix.
_MAX_NAME = 80


@dataclass(frozen=True, kw_only=True)
class Arm:
    """All settings that determine an answer besides the sample.

    Attributes:
        benchmark: its name, options and a hash of its samples.
        model: folder or name.
        revision: of the model, such as a commit or a hash of its files.
        intervention: text form of the interventions, see `regard.mllm.describe`; empty for the baseline.
        prompt: the prompt around the question.
        decoding: name -> value in JSON types, such as the limit of new tokens, beams, temperature and seed.
        code: versions of the software.

    Raises:
        ValueError: `decoding` has values that JSON cannot represent.

    Example:
        >>> arm = Arm(benchmark="b", model="m", revision="1", intervention="", prompt="{}", decoding={}, code="1")
        >>> len(arm.hash)
        16
    """

    benchmark: str
    model: str
    revision: str
    intervention: str
    prompt: str
    decoding: Mapping[str, Any]
    code: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "decoding", dict(self.decoding))
        try:
            same = json.loads(_canonical(self.decoding)) == self.decoding
        except (TypeError, ValueError) as error:
            raise ValueError(f"decoding has values that JSON cannot represent: {error}") from error
        if not same:
            raise ValueError(f"decoding must have JSON types, such as lists instead of tuples; got {self.decoding}")

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that identify the settings."""
        return hashlib.sha256(_canonical(asdict(self)).encode()).hexdigest()[:16]

    def changes(self, other: Arm) -> list[str]:
        """The differences to `other`, as text.

        Example:
            >>> options = {"benchmark": "b", "model": "m", "revision": "1", "prompt": "", "code": "1"}
            >>> arm = Arm(intervention="", decoding={"beams": 1}, **options)
            >>> arm.changes(Arm(intervention="vhr", decoding={"beams": 5}, **options))
            ["intervention '' -> 'vhr'", 'decoding beams 1 -> 5']
        """
        found = []
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if field.name == "decoding":
                for key in dict.fromkeys([*mine, *theirs]):
                    before, after = (repr(own[key]) if key in own else "unset" for own in (mine, theirs))
                    if before != after:
                        found.append(f"decoding {key} {before} -> {after}")
            elif mine != theirs:
                found.append(f"{field.name} {mine!r} -> {theirs!r}")
        return found


def arm_file_name(intervention: str) -> str:
    """The name of the files of an arm.

    Args:
        intervention: the text form of its interventions; empty for the baseline.

    Example:
        >>> arm_file_name("vhr(alpha=1.5)"), arm_file_name("")
        ('vhr-alpha=1.5-d35cd7', 'none')
    """
    if not intervention:
        return "none"
    name = re.sub(r"[^\w.+=,-]+", "-", intervention).strip("-")
    if re.fullmatch(r"[a-z]\w*", intervention):
        return name
    return f"{name[:_MAX_NAME]}-{hashlib.sha256(intervention.encode()).hexdigest()[:6]}"


def _canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
