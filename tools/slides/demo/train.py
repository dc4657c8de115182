"""Makes the embedded encoder and the embedded heads: `python -m regard.tools.slides.demo.train --out DIR [--install]`.

The encoder learns without labels from the patches of rendered slides, the heads (ACMIL, one for each of five folds)
from nothing but the labels of these slides and of bands of the real slide, which are normal. `measure_demo` measures
what they are worth on slides of other texture.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from .... import heads, vision
from ....datasets.slides.cohort import render_slide, write_real
from ....datasets.slides.textures import EMBEDDED_SLIDE
from ....datasets.slides.writing import write_slide
from ....vision.encoders import build_encoder
from ...settings import HeadSettings, OptimizerSettings, TrainMilSettings
from ...train.mil import job as train_mil
from .cohort import PATCH, encode, patches_of, write_slides
from .encoder import train_encoder

__all__ = ["main"]

HEAD = {"width": 48, "hidden": 32, "top": 5}


def main(arguments: list[str] | None = None) -> int:
    """Make all of it; slides and an encoder that are there are kept."""
    parser = argparse.ArgumentParser(prog="python -m regard.tools.slides.demo.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of slides, features and models")
    parser.add_argument("--slides", type=int, default=60, help="how many slides are rendered for training")
    parser.add_argument("--steps", type=int, default=300, help="of the encoder's training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--install", action="store_true", help="put the models where the package has its embedded ones")
    chosen = parser.parse_args(arguments)
    begun = time.monotonic()
    torch.set_num_threads(1)
    files = write_slides(chosen.out / "train", "train", chosen.slides)
    folder = chosen.out / "encoder"
    if not (folder / "config.json").is_file():
        patches = torch.from_numpy(np.concatenate([batch for file in files for batch in patches_of(file)]))
        sys.stderr.write(f"{len(patches):,} patches of {len(files)} slides  ({time.monotonic() - begun:.0f} s)\n")
        save_encoder(train_encoder(patches, steps=chosen.steps, seed=chosen.seed), folder)
    encoder = build_encoder(str(folder))
    encode(files, encoder, chosen.out / "features")
    real = write_real(chosen.out / "train", "train", views=4)
    encode(real, encoder, chosen.out / "features", preset="biopsy")
    trained = train_heads(chosen.out, chosen.seed)
    if chosen.install:
        install(folder, trained)
    sys.stderr.write(f"done in {time.monotonic() - begun:.0f} s\n")
    return 0


def save_encoder(model: Any, folder: Path) -> None:
    """A folder as timm's, in float16, with what an encoder has besides."""
    model.pretrained_cfg |= {"mean": (0.6,) * 3, "std": (0.25,) * 3, "input_size": (3, PATCH, PATCH)}
    model.pretrained_cfg |= {"interpolation": "bicubic", "crop_pct": 1.0, "num_classes": 0, "license": "apache-2.0"}
    model.pretrained_cfg |= {"classifier": None, "tag": "rendered_cohort", "paper_ids": None, "paper_name": None}
    model.pretrained_cfg |= {"origin_url": None, "test_input_size": None, "test_crop_pct": None, "first_conv": "conv1"}
    timm.models.save_for_hf(model, str(folder), safe_serialization=True)
    file = folder / "model.safetensors"
    save_file(
        {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in load_file(file).items()},
        file,
    )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["encoder"] = {"name": "embedded", "patch": PATCH, "mpp": 0.5}
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def train_heads(out: Path, seed: int) -> list[Path]:
    """Five ACMIL heads, by `regard train mil`; the folders of the trained ones."""
    shutil.rmtree(out / "heads", ignore_errors=True)
    settings = TrainMilSettings(
        data=str(out / "features"),
        out=str(out / "heads"),
        heads=[HeadSettings(name="acmil", options=HEAD)],
        table=str(out / "train" / "labels.csv"),
        classes=["normal", "lesion"],
        val_share=0.0,
        encoder="embedded",
        optimizer=OptimizerSettings(lr=1e-3, weight_decay=1e-3, warmup_epochs=0),
        epochs=25,
        batch_size=4,
        seed=seed,
        accelerator="cpu",
    )
    if train_mil.run(settings):
        raise RuntimeError("the heads were not trained")
    return [out / "heads" / "runs" / "acmil" / f"fold_{fold}_seed_0" / "model" for fold in range(5)]


def write_rendered() -> None:
    """The bundled rendered slide, of the part for testing, and its mask."""
    slide = render_slide(1, "test", size=(1536, 1280))
    folder = EMBEDDED_SLIDE.parent
    write_slide(folder / "rendered_lesion.svs", slide.pixels, mpp=0.5, objective=20.0, levels=(1, 4), quality=80)
    Image.fromarray(slide.mask()).save(folder / "rendered_lesion_mask.png", optimize=True)


def install(encoder: Path, trained: list[Path]) -> None:
    """Copy the models to the folders of the package; the files about them stay."""
    target = Path(vision.__file__).parent / "encoders" / "embedded"
    target.mkdir(exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(encoder / name, target / name)
    write_rendered()
    for fold, source in enumerate(trained):
        folder = Path(heads.__file__).parent / "embedded" / "acmil" / f"fold_{fold}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["training"]["data"] = "rendered cohort"  # not where it was
        (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
