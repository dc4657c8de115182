"""Images for a prompt as RGB images of Pillow, and the grids of their tokens."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from transformers import PreTrainedModel

__all__ = ["ImageInput", "as_image", "image_grids", "seen_images"]

_CUTTING = ("crop_to_patches", "do_image_splitting", "do_pan_and_scan")

#: Accepted types of an image.
ImageInput = Image.Image | str | os.PathLike[str] | np.ndarray | Tensor


def as_image(source: ImageInput) -> Image.Image:
    """An image as 8 bits of RGB.

    Args:
        source: an image of Pillow; a file; an array (height, width) or (height, width, 1, 3 or 4); or a tensor
            (1, 3 or 4, height, width). Integers are 0-255, floats 0-1; a fourth channel is opacity, laid over white.

    Raises:
        ValueError: a file that cannot be read, with its path; or not an image.

    Example:
        >>> as_image(torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)).getpixel((0, 0))
        (255, 0, 0)
    """
    if isinstance(source, str | os.PathLike):
        try:
            with Image.open(source) as file:
                image = ImageOps.exif_transpose(file)
                image.load()
        except FileNotFoundError as error:
            raise ValueError(f"cannot read the image {os.fspath(source)}: no such file") from error
        except UnidentifiedImageError as error:
            why = "it is empty" if Path(source).stat().st_size == 0 else "Pillow does not recognise its format"
            raise ValueError(f"cannot read the image {os.fspath(source)}: {why}") from error
        except Exception as error:  # on damaged files the readers of Pillow raise nearly anything
            raise ValueError(f"cannot read the image {os.fspath(source)}: {error}") from error
    elif isinstance(source, Image.Image):
        image = source
    elif isinstance(source, np.ndarray | Tensor):
        image = _from_numbers(source)
    else:
        raise ValueError(f"an image is Pillow's, a file, an array or a tensor; got {type(source).__name__}")
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image).astype(np.float64)
        top = 255.0 if values.size == 0 or values.max() <= 255 else 65535.0
        image = Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8))
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)
    return image.convert("RGB")


def _from_numbers(numbers: np.ndarray | Tensor) -> Image.Image:
    kind = "a tensor is (1, 3 or 4, height, width)" if isinstance(numbers, Tensor) else "an array is (height, width, 3)"
    given = tuple(numbers.shape)
    if isinstance(numbers, Tensor):
        numbers = numbers.detach().cpu()
        numbers = (numbers.float() if numbers.is_floating_point() else numbers).numpy()
        numbers = numbers.transpose(1, 2, 0) if numbers.ndim == 3 else numbers
    if numbers.ndim == 2:
        numbers = numbers[..., None]
    if numbers.ndim != 3 or numbers.shape[2] not in (1, 3, 4) or 0 in numbers.shape:
        raise ValueError(f"{kind}; got the shape {given}")
    floats = np.issubdtype(numbers.dtype, np.floating)
    top = 1 if floats or numbers.dtype == bool else 255
    if not (numbers.min() >= 0 and numbers.max() <= top):  # also where one is not a number
        raise ValueError(
            f"the values of an image are 0 to {top} for {numbers.dtype}; got {numbers.min():g} to {numbers.max():g}"
        )
    pixels = np.rint(numbers * (255 / top)).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def image_grids(
    model: PreTrainedModel, processor: Any, inputs: Mapping[str, Any], columns: Bool[Tensor, "samples prompt"]
) -> list[list[tuple[int, int]]]:
    """Rows and columns of the tokens of every image of every sample.

    Args:
        model: the model.
        processor: its processor.
        inputs: of the model.
        columns: which tokens of the prompts stand for images.

    Raises:
        ValueError: the tokens do not lie on one grid, and why.
    """
    counts = columns.sum(dim=-1).tolist()
    if not any(counts):
        return [[] for _ in counts]
    if "image_grid_thw" in inputs:
        merge = processor.image_processor.merge_size
        grids = [(int(h) // merge, int(w) // merge) for _, h, w in inputs["image_grid_thw"].tolist()]
    else:
        grids = _even_grids(model, processor, inputs, counts)
    found: list[list[tuple[int, int]]] = []
    waiting = list(grids)
    for count in counts:
        found.append([])
        while count > 0 and waiting:
            rows, across = waiting.pop(0)
            found[-1].append((rows, across))
            count -= rows * across
        if count:
            raise ValueError(f"the prompts have {sum(counts)} image tokens, which are not those of the grids {grids}")
    return found


def _even_grids(
    model: PreTrainedModel, processor: Any, inputs: Mapping[str, Any], counts: list[int]
) -> list[tuple[int, int]]:
    """Grids where every image has the same number of tokens, or a known size."""
    tokens = sum(counts)
    kind, vision = type(model).__name__, getattr(model.config, "vision_config", None)
    patch = getattr(vision, "patch_size", None)
    patch = patch[0] if isinstance(patch, list | tuple) else patch
    pixels = inputs.get("pixel_values")
    if pixels is None or patch is None:
        raise ValueError(f"the grid of the image tokens of {kind} is unknown")
    for part in ("qformer_config", "perceiver_config", "resampler_config"):
        if getattr(model.config, part, None) is not None:
            raise ValueError(f"the image tokens of {kind} are learned queries, which have no position in the image")
    merge = getattr(model.config, "spatial_merge_size", 1) or 1
    sizes = inputs.get("image_sizes")
    if sizes is not None and pixels.ndim == 4:
        grids = [(int(h) // (patch * merge), int(w) // (patch * merge)) for h, w in sizes.tolist()]
        if sum(rows * across for rows, across in grids) == tokens:
            return grids
    if pixels.ndim == 5 and pixels.shape[1] == 1:
        pixels = pixels[:, 0]
    usual = getattr(processor, "images_kwargs", None) or {}
    cuts = any(usual.get(flag, getattr(processor.image_processor, flag, False)) for flag in _CUTTING)
    if pixels.ndim != 4 or tokens % len(pixels) or (cuts and len(pixels) > sum(count > 0 for count in counts)):
        raise ValueError(f"{kind} cuts an image into overlapping tiles, whose tokens do not form one grid")
    rows, across = (int(side) // patch for side in pixels.shape[-2:])
    each = tokens // len(pixels)
    for shrink in range(1, min(rows, across) + 1):
        if (rows // shrink) * (across // shrink) == each:
            return [(rows // shrink, across // shrink)] * len(pixels)
    raise ValueError(f"{each} tokens per image of {kind} do not form a grid of its {rows} x {across} patches")


def seen_images(processor: Any, inputs: Mapping[str, Any]) -> list[Image.Image] | None:
    """The images as given to the model: resized and cropped, their colours as they were; `None` if not rebuildable.

    Args:
        processor: of the model.
        inputs: of the model.
    """
    pixels = inputs.get("pixel_values")
    if pixels is None or pixels.ndim != 4:
        return None
    maker = processor.image_processor
    sizes = inputs["image_sizes"].tolist() if "image_sizes" in inputs else [pixels.shape[-2:]] * len(pixels)
    pixels = pixels.detach().float().cpu()
    if maker.do_normalize:
        mean, std = (torch.tensor(list(value)).view(-1, 1, 1) for value in (maker.image_mean, maker.image_std))
        pixels = pixels * std + mean
    scale = 1.0 if maker.do_rescale else 255.0
    pixels = (pixels / scale).clamp(0, 1)
    return [
        as_image(image[:, : int(height), : int(width)]) for image, (height, width) in zip(pixels, sizes, strict=True)
    ]
