"""Every command and every example of the README runs, sized down."""

from __future__ import annotations

import gzip
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from jobs import run, train
from PIL import Image

import regard.vision  # noqa: F401  (makes our models known to timm)

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


LINES = [line.partition(" #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("regard ")]
#: What makes a command of the README small enough for a test.
SMALL = {
    "train": ["--epochs", "1", "--limit_batches", "1", "--optimizer.warmup_epochs", "0", "--images.workers", "0"],
    "demo": ["--epochs", "4"],
    "ask": ["--max_new_tokens", "3"],
    "train-lvlm": ["--steps_scale", "0.01", "--eval_scenes", "2", "--workers", "1"],
    "benchmark": ["--sides", "[7]", "--image_size", "56", "--batch", "1", "--repeats", "1", "--passes", "[forward]"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the README's commands name: photos/, fashion/, files of weights and a finished run."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(70):
            pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.png")
    (tmp_path / "fashion").mkdir()
    for part, count in (("train", 300), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for kind, values in (("images-idx3", images), ("labels-idx1", (np.arange(count) % 10).astype(np.uint8))):
            head = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
            path = tmp_path / "fashion" / f"{part}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(head + values.tobytes()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_runs(command: str, folder: Path) -> None:
    _, job, *words = shlex.split(command)
    if job == "convert":
        weights = timm.create_model("van_b0").state_dict()
        torch.save({"state_dict": weights}, folder / "van_tiny_754.pth.tar")
        torch.save({"state_dict": weights, "more": slice(1)}, folder / "theirs.pth")
        words = [word.rpartition("/")[2] for word in words]  # no network
    if job == "evaluate" and "--model" in words:
        train(folder / words[words.index("--model") + 1])
    small = [] if "--print_config" in words else SMALL.get(job, [])
    if "--lvlms" in words:
        small = [*small, "--lvlms", "[embedded]", "--new_tokens", "3"]
    if job == "evaluate" and "--model" not in words:
        small = ["--scenes", "2", "--resamples", "20"]
    assert run(job, *words, *small) == 0


@pytest.mark.parametrize("example", blocks("python"), ids=range(len(blocks("python"))))
def test_an_example_of_the_readme_runs(example: str, folder: Path) -> None:
    names: dict[str, object] = {}
    if "import regard" not in example:
        names["regard"] = __import__("regard")
    exec(example, names)


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    wanted = {line.split()[1] for line in LINES if line.startswith("make ")}
    assert wanted
    assert wanted <= set(re.findall(r"^(\w+):", makefile, flags=re.MULTILINE))
