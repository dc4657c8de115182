"""Every command and every example of the README runs, sized down."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


COMMANDS = [
    line.partition(" #")[0].strip()
    for block in blocks("sh")
    for line in block.splitlines()
    if line.startswith("regard ")
]
#: What makes a command of the README small enough for a test.
SMALL = {
    "train": ["--epochs", "1", "--limit_batches", "1", "--optimizer.warmup_epochs", "0"],
    "demo": ["--epochs", "4"],
    "benchmark": ["--sides", "[7]", "--batch", "1", "--repeats", "1"],
}
"""E"""
