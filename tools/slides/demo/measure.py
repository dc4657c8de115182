"""Measures the embedded encoder and heads: `python -m regard.tools.slides.demo.measure --out DIR`.

Measured on rendered slides of textures that no training saw: whether slides with lesions differ from those without,
and whether attention, and the predictions for single patches, lie on the lesions. Intervals are of the bootstrap over
slides, 95 %. Beside it: how far the mean colour of a patch goes, fitted with the truth of the training slides; and what
the heads predict for the real slide, which has no such lesion, and half of which is in the training.

It is a demonstration, not a diagnosis: the slides are rendered, and a lesion is a texture from a second image.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ....datasets.slides.cohort import MASK_STEP, write_real
from ....datasets.slides.feature_file import read_features
from ....datasets.slides.opening import open_slide
from ....datasets.slides.textures import EMBEDDED_SLIDE
from ....vision.encoders import build_encoder
from ....whole_files import write_atomically
from ..ensemble import Ensemble, find_heads
from .cohort import encode, write_slides

__all__ = ["interval_of", "main", "pixel_auc"]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write DIR/demo.json; slides that are there are kept."""
    parser = argparse.ArgumentParser(prog="python -m regard.tools.slides.demo.measure", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of slides, features and demo.json")
    parser.add_argument("--slides", type=int, default=60, help="how many slides are rendered for testing")
    parser.add_argument("--encoder", default="embedded")
    parser.add_argument("--head", default="embedded")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    files = write_slides(chosen.out / "test", "test", chosen.slides)
    encoder, heads = build_encoder(chosen.encoder), Ensemble(find_heads([chosen.head]), torch.device("cpu"))
    rows = []
    for file, features in zip(files, encode(files, encoder, chosen.out / "test_features"), strict=True):
        rows.append(_judge(heads, features, file.with_name(f"{file.stem}_mask.png")))
    found = _summary(rows)
    found["patch auc of mean colour alone"] = _colour(write_slides(chosen.out / "train", "train", 16), files)
    real = encode([EMBEDDED_SLIDE], encoder, chosen.out / "real_features")
    real += encode(write_real(chosen.out / "real", "test"), encoder, chosen.out / "real_features", preset="biopsy")
    found["real slide, and its bands that no training saw"] = [_judge(heads, features, None) for features in real]
    text = json.dumps({**found, "slides of the test": rows}, indent=1)
    write_atomically(chosen.out / "demo.json", text)
    print(json.dumps(found, indent=1))
    return 0


def pixel_auc(
    weights: Float[np.ndarray, " patches"], coordinates: Int[np.ndarray, "patches 2"], side: int, mask: Any
) -> float:
    """How well weights of patches separate the pixels of a lesion from other tissue: the area under the ROC curve.

    Args:
        weights: one for each patch.
        coordinates: of the upper left corners, in pixels of the slide.
        side: of a patch in pixels of the slide.
        mask: 0 background, 128 tissue, 255 lesion, one value for 8 x 8 pixels.
    """
    score_map = np.full(mask.shape, np.nan)
    for (x, y), weight in zip(coordinates // MASK_STEP, weights, strict=True):
        score_map[y : y + side // MASK_STEP, x : x + side // MASK_STEP] = weight
    seen = (mask > 0) & ~np.isnan(score_map)
    return float(roc_auc_score(mask[seen] == 255, score_map[seen]))


def interval_of(statistic: Callable[[Any], float], count: int, *, resamples: int = 2000) -> list[float]:
    """The 95 % interval of a statistic of slides, by drawing slides with replacement.

    Args:
        statistic: of indices in the list of slides; NaN where it is not defined.
        count: how many slides there are.
        resamples: how often they are drawn.
    """
    random = np.random.default_rng(0)
    drawn = [statistic(random.integers(count, size=count)) for _ in range(resamples)]
    return [round(float(value), 3) for value in np.nanquantile(drawn, [0.025, 0.975])]


def _judge(heads: Ensemble, features: Path, mask_file: Path | None) -> dict[str, Any]:
    """Predictions of the heads for one slide, next to its truth."""
    bag, grid, _ = read_features(features)
    vote = heads.predict(torch.as_tensor(bag))
    lesion = heads.classes.index("lesion")
    row: dict[str, Any] = {"slide": features.stem, "patches": len(grid)}
    row["lesion"] = round(vote.probabilities[lesion].item(), 4)
    row["spread"] = round(vote.spread[lesion].item(), 4)
    alone = vote.per_patch[:, lesion].double().numpy()
    row["share of patches over 0.5"] = round(float((alone > 0.5).mean()), 3)
    if mask_file is None:
        return row
    mask = np.asarray(Image.open(mask_file))
    row["truth"] = int((mask == 255).any())
    if row["truth"]:
        assert vote.attention is not None
        index = (np.asarray(grid.coordinates), grid.side, mask)
        row["pixel auc of attention"] = round(pixel_auc(vote.attention.double().numpy(), *index), 4)
        row["pixel auc of patches alone"] = round(pixel_auc(alone, *index), 4)
    return row


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    truth, predicted = np.array([row["truth"] for row in rows]), np.array([row["lesion"] for row in rows])

    def auc(indices: Any) -> float:
        chosen = truth[indices]
        return float(roc_auc_score(chosen, predicted[indices])) if chosen.any() and not chosen.all() else float("nan")

    found: dict[str, Any] = {
        "slides": len(rows),
        "with lesions": int(truth.sum()),
        "slide auc": [round(auc(np.arange(len(rows))), 3), *interval_of(auc, len(rows))],
        "accuracy at 0.5": round(float(((predicted > 0.5) == truth).mean()), 3),
    }
    for key in ("pixel auc of attention", "pixel auc of patches alone"):
        found[key] = _mean(np.array([row[key] for row in rows if row["truth"]]))
    return found


def _mean(values: Float[np.ndarray, " slides"]) -> list[float]:
    return [round(float(values.mean()), 3), *interval_of(lambda indices: float(values[indices].mean()), len(values))]


def _colour(training: list[Path], files: list[Path]) -> float:
    """Area under the ROC curve of the mean colours of squares of 128 pixels for lesions, by logistic regression."""
    (given, wanted), (seen, truth) = (_squares(part) for part in (training, files))
    model = LogisticRegression(max_iter=1000).fit(given, wanted)
    return round(float(roc_auc_score(truth, model.decision_function(seen))), 3)


def _squares(files: list[Path]) -> tuple[Any, Any]:
    """Mean colours of squares wholly of tissue, and whether they are wholly lesion; those of both are skipped."""
    colours, labels = [], []
    for file in files:
        mask = np.asarray(Image.open(file.with_name(f"{file.stem}_mask.png")))
        with closing(open_slide(file)) as slide:
            pixels = slide.read(0, 0, slide.levels[0].width, slide.levels[0].height)
        small = cv2.resize(pixels, mask.shape[::-1], interpolation=cv2.INTER_AREA)
        for top in range(0, mask.shape[0] - 15, 16):
            for left in range(0, mask.shape[1] - 15, 16):
                index = (slice(top, top + 16), slice(left, left + 16))
                if (mask[index] == mask[index].flat[0]).all() and mask[index].flat[0]:
                    colours.append(small[index].mean((0, 1)) / 255)
                    labels.append(mask[index].flat[0] == 255)
    return np.array(colours), np.array(labels)


if __name__ == "__main__":
    sys.exit(main())
