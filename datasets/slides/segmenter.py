"""Tissue segmentation with your own segmenter, such as a trained network.

A segmenter is a callable that accepts an RGB image (height, width, 3) and its microns per pixel, and returns for each
pixel whether it is tissue, or the probability. It is called tile by tile. Three optional attributes are used: `mpp`,
the microns per pixel of its input (4), `tile`, the side of its tiles in pixels (1024), and `margin`, by which
neighbouring tiles overlap (64).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from .slide import Slide

__all__ = ["Segmenter", "TorchScriptSegmenter", "load_segmenter", "run_segmenter"]

Segmenter = Callable[[UInt8[np.ndarray, "height width 3"], float], np.ndarray]
_MPP, _TILE, _MARGIN = 4.0, 1024, 64
_NEAR_WHITE = 254


class TorchScriptSegmenter:
    """A network exported as TorchScript: (1, 3, height, width) to logits (1, classes, height, width).

    Args:
        path: of the file, which is a program: load only files that you trust.
        mpp: microns per pixel that it was trained on.
        tile: side of its input in pixels.
        mean: of its input's channels.
        std: of its input's channels.

    The class 1 is tissue; a single channel is its logit.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        mpp: float = _MPP,
        tile: int = 512,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
    ) -> None:
        self.mpp, self.tile, self.margin = mpp, tile, tile // 8
        self._mean, self._std = (torch.tensor(value)[:, None, None] for value in (mean, std))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # TorchScript is what published segmenters come in
                self._network = torch.jit.load(str(path), map_location="cpu").eval()
        except (RuntimeError, ValueError, OSError) as error:
            raise ValueError(f"{path} is not a TorchScript file: {str(error).splitlines()[0]}") from error

    @torch.inference_mode()
    def __call__(self, image: UInt8[np.ndarray, "height width 3"], mpp: float) -> Float[np.ndarray, "height width"]:
        """Probability of tissue."""
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1) / 255
        logits = self._network(((pixels - self._mean) / self._std)[None])
        found = logits.sigmoid()[:, 0] if logits.shape[1] == 1 else logits.softmax(1)[:, 1]
        return found[0].float().numpy()


def load_segmenter(name: str, *, trust: bool = False, **options: Any) -> Segmenter:
    """Load a segmenter.

    Args:
        name: `package.module:function`, or the path of a TorchScript file (.pt, .ts, .torchscript).
        trust: allow a TorchScript file to run: it is a program.
        options: of `TorchScriptSegmenter`.

    Raises:
        ValueError: it does not exist, or is a file that is not trusted.
    """
    if Path(name).suffix in (".pt", ".pth", ".ts", ".torchscript") or Path(name).is_file():
        if not Path(name).is_file():
            raise ValueError(f"the segmenter {name} does not exist")
        if not trust:
            raise ValueError(
                f"the segmenter {name} is a TorchScript file, which is a program; give --trust true to run it"
            )
        return TorchScriptSegmenter(name, **options)
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(f"unknown segmenter {name!r}; give package.module:function or a TorchScript file")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"cannot import the segmenter {name!r}: {error}") from error
    if isinstance(found, type):
        found = found()
    if not callable(found):
        raise ValueError(f"the segmenter {name!r} cannot be called; it must accept an image and its microns per pixel")
    return found


def run_segmenter(
    slide: Slide, segmenter: Segmenter, mpp: float, shape: tuple[int, int], downsample: float
) -> Bool[np.ndarray, "height width"]:
    """Run a segmenter over a slide, tile by tile.

    Args:
        slide: an open slide.
        segmenter: a pixel is tissue from 0.5.
        mpp: microns per pixel of the slide.
        shape: of the mask.
        downsample: pixels of full resolution that one pixel of this mask spans.

    Raises:
        ValueError: the segmenter's mask has another size than its image.
    """
    scale = max(1.0, getattr(segmenter, "mpp", _MPP) / mpp)  # pixels of full resolution in one of the segmenter's
    tile, margin = int(getattr(segmenter, "tile", _TILE)), int(getattr(segmenter, "margin", _MARGIN))
    inner = max(1, tile - 2 * margin)
    full = slide.levels[0]
    fine = [number for number, level in enumerate(slide.levels) if level.downsample <= scale * 1.01]
    level = max(fine, key=lambda number: slide.levels[number].downsample)
    ratio = scale / slide.levels[level].downsample
    total, weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for y in np.arange(0, full.height, inner * scale):
        for x in np.arange(0, full.width, inner * scale):
            corner = round(x - margin * scale), round(y - margin * scale)
            side = round(tile * ratio)
            pixels = slide.read(*corner, side, side, level)
            if pixels.min() >= _NEAR_WHITE:
                continue
            pixels = cv2.resize(pixels, (tile, tile), interpolation=cv2.INTER_AREA)
            found = np.asarray(segmenter(pixels, mpp * scale))
            if found.shape != (tile, tile):
                raise ValueError(
                    f"the segmenter returned {found.shape} for an image {pixels.shape}; the mask must have its size"
                )
            found = found[margin : margin + inner, margin : margin + inner].astype(np.float32)
            _add(total, weight, found, x / downsample, y / downsample, scale / downsample)
    return total >= 0.5 * np.maximum(weight, 1e-6)


def _add(
    total: Float[np.ndarray, "height width"],
    weight: Float[np.ndarray, "height width"],
    found: Float[np.ndarray, "rows columns"],
    x: float,
    y: float,
    scale: float,
) -> None:
    """Add a tile to the mask: `scale` pixels of the mask for one of the tile."""
    left, top = int(x), int(y)
    right = min(total.shape[1], int(np.ceil(x + found.shape[1] * scale)))
    bottom = min(total.shape[0], int(np.ceil(y + found.shape[0] * scale)))
    if right <= left or bottom <= top:
        return
    # Maps pixels of the mask to pixels of the tile, centre to centre.
    move = np.array([[1 / scale, 0, (left + 0.5 - x) / scale - 0.5], [0, 1 / scale, (top + 0.5 - y) / scale - 0.5]])
    blur = max(1, round(1 / scale))
    smooth = cv2.blur(found, (blur, blur), borderType=cv2.BORDER_REPLICATE)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    placed = cv2.warpAffine(smooth, move, (right - left, bottom - top), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    total[top:bottom, left:right] += placed
    weight[top:bottom, left:right] += 1
