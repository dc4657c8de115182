"""Tables from the code itself: a line `<!-- table: KIND -->` becomes the output of `regard list --kind KIND`.

`<!-- help: TASK -->` becomes the help of a task, and `<!-- help: all -->` that of every task.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: Kind -> column of `regard list` -> its heading here; a column that is not listed is omitted.
COLUMNS: dict[str, dict[str, str]] = {
    "blocks": {"name": "name", "kind": "kind", "what": "what it does", "paper": "paper"},
    "heads": {"name": "name", "what": "what it does", "paper": "paper"},
    "interventions": {"name": "name", "what": "what it does", "options": "options and their defaults"},
    "benchmarks": {"name": "name", "what": "what it asks", "options": "options and their defaults"},
    "encoders": {
        "name": "name",
        "dim": "width",
        "patch_px": "patch (px)",
        "mpp": "um/px",
        "precision": "precision on a GPU",
        "licence": "licence of the weights",
        "source": "weights",
        "needs": "needs",
        "paper": "paper",
    },
    "models": {
        "name": "name",
        "tag": "tag",
        "parameters_M": "parameters (M)",
        "top1": "top-1 (%)",
        "psnr_set5": "PSNR on Set5 (dB)",
        "weights": "weights",
        "paper": "paper",
    },
    "recipes": {"name": "name", "command": "command"},
}
_CODE = {"name", "options", "command", "tag"}
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_DOI = re.compile(r"doi:(10\.\S+)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put in the tables and help pages that a page names."""
    markdown = re.sub(r"^<!-- table: (\w+) -->$", lambda match: table(match[1]), markdown, flags=re.MULTILINE)
    return re.sub(r"^<!-- help: ([\w -]+) -->$", lambda match: help_of(match[1]), markdown, flags=re.MULTILINE)


def table(kind: str) -> str:
    """A Markdown table of one kind of `regard list`."""
    columns = {key: heading for key, heading in COLUMNS[kind].items() if any(row.get(key) for row in listed()[kind])}
    lines = [list(columns.values()), ["---"] * len(columns)]
    lines += [[_cell(key, row.get(key)) for key in columns] for row in listed()[kind]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def help_of(task: str) -> str:
    """What `regard TASK --help` prints, as a block of text; of `all`, under a heading for each task."""
    if task != "all":
        return f"```text\n{_printed('-m', 'regard', *task.split(), '--help').strip()}\n```"
    return "\n\n".join(f"## regard {name}\n\n{help_of(name)}" for name in tasks())


@cache
def tasks() -> list[str]:
    """Every `VERB TASK` of the command line."""
    names = "(f'{verb} {task}'.strip() for verb, tasks in TASKS.items() for task in tasks)"
    return _printed("-c", f"from regard.tools.cli import TASKS; print(*{names}, sep='\\n')").splitlines()


@cache
def listed() -> dict[str, list[dict[str, Any]]]:
    """What `regard list --json true` prints."""
    return json.loads(_printed("-m", "regard", "list", "--json", "true"))


@cache
def _printed(*words: str) -> str:
    path = os.pathsep.join([str(ROOT / ".typing"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "100", "NO_COLOR": "1"}
    command = [sys.executable, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def _cell(key: str, value: Any) -> str:
    if value is None or value == "":
        return ""
    text = str(value).replace("|", r"\|")
    if key in _CODE:
        return f"`{text}`"
    text = _ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    return _DOI.sub(r"[doi:\1](https://doi.org/\1)", text)
