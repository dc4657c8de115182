"""Small runs that the tests of the jobs share; pytest finds this file by `pythonpath`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regard.tools import cli

#: A ViT so small that an epoch on the digits takes a second.
TINY = [
    *("--config", "digits_vit_van", "--epochs", "2", "--batch_size", "256", "--optimizer.warmup_epochs", "0"),
    *("--images.workers", "0", "--backbone.options.patch_size", "4", "--backbone.options.embed_dim", "32"),
    *("--backbone.options.depth", "1"),
]


def run(*words: str | Path) -> int:
    """The exit code of a `regard` command in this process."""
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as stop:
        return int(stop.code or 0)


def train(out: Path, *words: str | Path) -> dict[str, Any]:
    """The summary of a tiny run that must succeed."""
    assert run("train", "classifier", *TINY, "--out", out, *words) == 0
    return json.loads((out / "summary.json").read_text())


def start(words: Sequence[str | Path], **options: Any) -> subprocess.Popen[str]:
    """A `regard` command in a process of its own, with one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "regard", *map(str, words)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes, **options)
