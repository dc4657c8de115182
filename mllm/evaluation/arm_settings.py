"""An arm of an evaluation: everything that its answers depend on besides the questions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

__all__ = ["Arm", "arm_file_name"]

#: Longest name of a file of answers, without its ending.
_LONGEST_NAME = 80


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Everything that an answer depends on besides the sample.

    Attributes:
        benchmark: its name, with the options that change questions.
        model: folder or name.
        revision: of the model, such as a commit or a hash of its files.
        method: description of the interventions, as `regard.mllm.describe` writes them; empty for none.
        prompt: what is put around the question.
        decoding: names and values in JSON's types, such as the limit of new tokens, beams, temperature and seed.
        code: version of this program.

    Raises:
        ValueError: `decoding` holds what JSON does not know.

    Example:
        >>> arm = Arm(benchmark="pope", model="llava", revision="1", method="", prompt="{}", decoding={}, code="0.1")
        >>> arm.hash
        'b5da8895ceabf193'
    """

    benchmark: str
    model: str
    revision: str
    method: str
    prompt: str
    decoding: Mapping[str, Any]
    code: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "decoding", dict(self.decoding))
        try:
            same = json.loads(_canonical(self.decoding)) == self.decoding
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"decoding takes text, finite numbers, true, false, null, and lists of them: {error}"
            ) from error
        if not same:
            raise ValueError(
                f"settings of decoding must have JSON's types, such as lists for tuples; got {self.decoding}"
            )

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that are other ones for any other setting."""
        return hashlib.sha256(_canonical(asdict(self)).encode()).hexdigest()[:16]

    def changes(self, other: Arm) -> list[str]:
        """What `other` has otherwise, in words.

        Example:
            >>> arm = Arm(benchmark="b", model="m", revision="1", method="", prompt="", decoding={"beams": 1}, code="1")
            >>> arm.changes(Arm(**{**vars(arm), "method": "vhr", "decoding": {"beams": 5}}))
            ["method '' -> 'vhr'", 'decoding beams 1 -> 5']
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


def arm_file_name(method: str) -> str:
    """A name for the files of an arm.

    Args:
        method: the text form of its methods; empty for the baseline.

    Example:
        >>> arm_file_name("vhr:alpha=1.5,layers=1,-4:"), arm_file_name("")
        ('vhr-alpha=1.5,layers=1,-4--ede8d2', 'none')
    """
    if not method:
        return "none"
    name = re.sub(r"[^\w.+=,-]", "-", method)
    if re.fullmatch(r"[a-z]\w*", method):
        return name
    return f"{name[:_LONGEST_NAME]}-{hashlib.sha256(method.encode()).hexdigest()[:6]}"


def _canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
