"""A folder with everything that the pages' commands name, small; pytest finds this file by `pythonpath`."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from slide_drill import write_slides as write_whole_slides
from slide_folder import write_slides

import regard.vision  # noqa: F401  (makes our models known to timm)
from regard.datasets.bags import make_folds, open_bags, write_folds

__all__ = ["fill"]


def fill(folder: Path) -> None:
    """Write photos/, images/, fashion/, coco/, features/, slides/ and files of weights."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
        for index in range(70):
            pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{index}.png")
    pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
    (folder / "images").mkdir()
    for path in (folder / "photo.jpg", *(folder / "images" / f"{name}.png" for name in "abc")):
        Image.fromarray(pixels).save(path)
    _fill_idx(folder / "fashion")
    _fill_coco(folder)
    _fill_bags(folder)
    write_whole_slides(folder / "slides", bad=False)
    weights = timm.create_model("van_b0").state_dict()
    torch.save({"state_dict": weights}, folder / "van_tiny_754.pth.tar")
    torch.save({"state_dict": weights, "more": slice(1)}, folder / "theirs.pth")
    torch.save({"params_ema": timm.create_model("hat_tiny_x4").state_dict()}, folder / "HAT_SRx4_ImageNet-pretrain.pth")


def _fill_idx(folder: Path) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for part, count in (("train", 300), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for kind, values in (("images-idx3", images), ("labels-idx1", (np.arange(count) % 10).astype(np.uint8))):
            head = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + values.tobytes()))


def _fill_bags(folder: Path) -> None:
    """Features of 24 slides, their tables, and CLAM's files of one split."""
    write_slides(folder / "features")
    write_slides(folder / "survival", survival=True)
    (folder / "features" / "slides.csv").rename(folder / "slides.csv")
    (folder / "survival" / "slides.csv").rename(folder / "survival.csv")
    bags = open_bags(str(folder / "features"), table=str(folder / "slides.csv"))
    write_folds(folder / "splits", bags, make_folds(bags, folds=2, val_share=0.2)[:1])


def _fill_coco(folder: Path) -> None:
    """Images, annotations and POPE's questions, and two files of answers to them."""
    classes, coco = ("dog", "cat", "cup", "bed", "bus", "car", "kite"), folder / "coco"
    names = [f"COCO_val2014_{number:012d}.jpg" for number in range(500)]
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    annotated = [{"image_id": image, "category_id": (image + index) % 7} for image in range(500) for index in range(3)]
    categories = [{"id": number, "name": name} for number, name in enumerate(classes)]
    captions = [{"image_id": number, "caption": "A person and a dog."} for number in range(500)]
    (coco / "annotations").mkdir(parents=True)
    (coco / "val2014").mkdir()
    for name in names[:3]:
        Image.new("RGB", (20, 30), "red").save(coco / "val2014" / name)
    for name, rows in (("instances", annotated), ("captions", captions)):
        content = {"images": images, "categories": categories, "annotations": rows}
        (coco / "annotations" / f"{name}_val2014.json").write_text(json.dumps(content))
    asked = [{"question_id": number, "image": names[number], "label": "yes"} for number in range(3)]
    rows = [json.dumps({**row, "text": "Is there a dog in the image?"}) for row in asked]
    (coco / "coco_pope_random.json").write_text("\n".join(rows))
    for name in ("llava", "llava_fixed"):
        answers = [json.dumps({"question_id": number, "answer": "Yes"}) for number in range(3)]
        (folder / f"{name}.jsonl").write_text("\n".join(answers))
