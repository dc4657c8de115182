"""Every command and every example of the README runs, sized down."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from http.server import ThreadingHTTPServer
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from jobs import run, train
from PIL import Image
from slide_drill import write_models
from slide_drill import write_slides as write_whole_slides
from slide_folder import write_slides

import regard.vision  # noqa: F401  (makes our models known to timm)
from regard.datasets.bags import make_folds, open_bags, write_folds

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
#: The same for heads on bags.
FEW_BAGS = [
    "--epochs",
    "1",
    "--optimizer.warmup_epochs",
    "0",
    "--bags.resamples",
    "20",
    "--bags.workers",
    "0",
    "--bags.seeds",
    "[0]",
]
#: The same for fixes of vision-language models.
FEW_FIXES = ["--resamples", "20", "--costs", "1", "--attention_samples", "1", "--max_new_tokens", "3"]


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
    build_coco(tmp_path)
    build_slides(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build_slides(folder: Path) -> None:
    """features/ of 24 slides, their tables, and CLAM's files of one split in splits/."""
    write_slides(folder / "features")
    write_slides(folder / "survival", survival=True)
    (folder / "features" / "slides.csv").rename(folder / "slides.csv")
    (folder / "survival" / "slides.csv").rename(folder / "survival.csv")
    bags = open_bags(str(folder / "features"), table=str(folder / "slides.csv"))
    write_folds(folder / "splits", bags, make_folds(bags, folds=2, val_share=0.2)[:1])


def build_coco(folder: Path) -> None:
    """coco/ with images, annotations and POPE's questions, two files of answers to them, and answers in runs/pope."""
    classes, coco = ("dog", "cat", "cup", "bed", "bus", "car", "kite"), folder / "coco"
    names = [f"COCO_val2014_{number:012d}.jpg" for number in range(500)]
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    noted = [{"image_id": image, "category_id": (image + place) % 7} for image in range(500) for place in range(3)]
    categories = [{"id": number, "name": name} for number, name in enumerate(classes)]
    said = [{"image_id": number, "caption": "A person and a dog."} for number in range(500)]
    (coco / "annotations").mkdir(parents=True)
    (coco / "val2014").mkdir()
    for name in names[:3]:
        Image.new("RGB", (20, 30), "red").save(coco / "val2014" / name)
    for name, rows in (("instances", noted), ("captions", said)):
        content = {"images": images, "categories": categories, "annotations": rows}
        (coco / "annotations" / f"{name}_val2014.json").write_text(json.dumps(content))
    asked = [{"question_id": number, "image": names[number], "label": "yes"} for number in range(3)]
    rows = [json.dumps({**row, "text": "Is there a dog in the image?"}) for row in asked]
    (coco / "coco_pope_random.json").write_text("\n".join(rows))
    for name in ("llava", "llava_fixed"):
        answers = [json.dumps({"question_id": number, "answer": "Yes"}) for number in range(3)]
        (folder / f"{name}.jsonl").write_text("\n".join(answers))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_runs(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, job, *words = shlex.split(command)
    if job == "slide":
        assert run(job, *words_for_slides(words, folder)) == 0
        return
    if job == "view":
        monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", lambda server: None)
        (folder / words[0]).mkdir(parents=True)
        (folder / words[0] / "report.html").write_text("")
        assert run(job, *words, "--port", "0") == 0
        return
    if job == "convert":
        weights = timm.create_model("van_b0").state_dict()
        torch.save({"state_dict": weights}, folder / "van_tiny_754.pth.tar")
        torch.save({"state_dict": weights, "more": slice(1)}, folder / "theirs.pth")
        words = [word.rpartition("/")[2] for word in words]  # no network
    if job == "restore" or "restoration" in words or "photographs_x2" in words or "hat_photo_x2" in words:
        assert run(job, *words_for_images(words, folder)) == 0
        return
    fixes = job == "evaluate" and ("--model" not in words or "--benchmark" in words)
    if job == "evaluate" and not fixes:
        train(folder / words[words.index("--model") + 1])
    if job == "score" and "--answers" not in words:  # of the line before
        given = ["--model", "embedded", "--benchmark", "pope", "--data", "coco", *FEW_FIXES, "--out", words[0]]
        assert run("evaluate", *given, "--fix", "vdd") == 0
    words = ["embedded" if "/llava-" in word else word for word in words]
    small = [] if "--print_config" in words else SMALL.get(job, [])
    if any(word.startswith("slides_") for word in words):
        small = [*FEW_BAGS, *([] if "splits" in words else ["--bags.folds", "2"])]
    if "mil" in words:
        small = ["--epochs", "1"]
    if "--heads" in words:  # torchmil is a dependency of this command only
        small = ["--heads", "[abmil]", "--instances", "[50]", "--features", "8", "--repeats", "1"]
        assert run(job, *words, *small) == (0 if find_spec("torchmil") or "--chunk" in words else 2)
        return
    if "--restorers" in words:
        tiles = ["--tile", "16", "--overlaps", "[1]"] if "--tile" in words else []
        small = ["--restorers", "[hat_photo_x2]", "--sides", "[24]", "--repeats", "1", *tiles]
    if "--slides" in words:
        small = ["--slides", "[4352]", "--repeats", "1"]
        assert run(job, *words, *small) == (0 if find_spec("tiffslide") else 2)  # of this command only
        return
    if "--lvlms" in words:
        small = [*small, "--lvlms", "[embedded]", "--new_tokens", "3"]
    small = [*FEW_FIXES, "--scenes", "2"] if fixes else small
    if any("chair" in word for word in words):
        assert run(job, *words, *small) == 1  # of 500 images 3 are there
    else:
        assert run(job, *words, *small) == 0


def words_for_images(words: list[str], folder: Path) -> list[str]:
    """A command on small images, with a tiny HAT in the place of the authors' file."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    (folder / "images").mkdir()
    for path in (folder / "photo.jpg", *(folder / "images" / f"{name}.png" for name in "abc")):
        Image.fromarray(pixels).save(path)
    torch.save({"params_ema": timm.create_model("hat_tiny_x4").state_dict()}, folder / "HAT_SRx4_ImageNet-pretrain.pth")
    if "hat_photo_x2" in words:
        return [*words, "--data", "images"]
    if "restoration" in words:
        return words
    if "photographs_x2" not in words:
        return [*words, "--memory", "64GB"]  # this process has run the rest of the suite
    small = {"dim": 8, "depths": [1], "num_heads": 2, "window_size": 8}
    options = [word for key, value in small.items() for word in (f"--backbone.options.{key}", json.dumps(value))]
    few = ["--restoration.crops", "16", "--restoration.patch_px", "8", "--epochs", "1", "--precision", "32-true"]
    return [*words, "--data", "images", "--optimizer.warmup_epochs", "0", "--accelerator", "cpu", *few, *options]


def words_for_slides(words: list[str], folder: Path) -> list[str]:
    """A command on slides with a tiny encoder and tiny heads in the place of those that are downloaded or trained."""
    if not words:
        return ["--pages", "false"]
    write_whole_slides(folder / "slides", bad=False)
    given = write_models(folder)
    tiny = dict(zip(given[::2], given[1::2], strict=True))
    small = [tiny.get(before, word) for before, word in pairwise(["", *words])]
    return [*small, *([] if "--patch" in small else ["--patch", "32"]), "--pages", "false"]


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
