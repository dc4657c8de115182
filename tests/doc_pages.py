"""What the pages of the documentation tell a reader to run; pytest finds this file by `pythonpath`."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Every page by its path; the README is one of them.
PAGES = {path.relative_to(ROOT).as_posix(): path for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]}
_FENCE = re.compile(r"^( *)```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^\1```", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """One thing that a page shows.

    Attributes:
        kind: file, python or command.
        text: of the file or example; of a command the line.
        name: of a file.
    """

    kind: str
    text: str
    name: str = ""

    @property
    def words(self) -> list[str]:
        """The words of a command after `regard`."""
        return shlex.split(self.text)[1:]


def steps(page: str) -> list[Step]:
    """Files, examples and commands of a page, in their order."""
    found = []
    for _, language, name, text in _FENCE.findall(PAGES[page].read_text(encoding="utf-8")):
        if name:
            found.append(Step("file", text, name))
        elif language == "python":
            found.append(Step("python", text))
        elif language == "sh":
            lines = (re.split(r"\s#", line)[0].strip() for line in text.splitlines())
            found += [Step("command", line) for line in lines if line]
    return found


def commands(page: str) -> list[Step]:
    """The `regard` commands of a page."""
    return [step for step in steps(page) if step.kind == "command" and step.text.startswith("regard ")]
