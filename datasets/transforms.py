"""Transforms from a Pillow image to a normalised tensor: timm's recipes, with optional albumentations from YAML.

Source: timm.data.create_transform; for small images, random crops of the padded image as in He et al. 2016,
arXiv:1512.03385, section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from jaxtyping import Float
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform
from timm.data.transforms import str_to_interp_mode
from torch import Tensor
from torchvision import transforms

from ..class_names import choices
from .albumentations_list import AlbumentationsList

__all__ = ["SMALL_PX", "eval_transform", "mean_and_std", "train_transform"]

#: Images of at most this side are padded and cropped instead of zoomed into.
SMALL_PX = 64

ImageTransform = Callable[[Image.Image], Float[Tensor, "channels height width"]]
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


def mean_and_std(
    channels: Literal[1, 3],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Choose mean and standard deviation to normalise with; by default ImageNet's, for grey their average over colours.

    Args:
        channels: 1 or 3.
        mean: of each channel, for pixels in 0-1.
        std: of each channel, positive.

    Raises:
        ValueError: not one value a channel, or a standard deviation that is not positive.

    Example:
        >>> mean_and_std(1, mean=[0.5])[0]
        (0.5,)
    """
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels}; expected 1 (grey) or 3 (RGB)")
    chosen = []
    for name, given, usual in (("mean", mean, IMAGENET_DEFAULT_MEAN), ("std", std, IMAGENET_DEFAULT_STD)):
        default = tuple(usual) if channels == 3 else (sum(usual) / 3,)
        values = default if given is None else tuple(float(value) for value in given)
        if len(values) != channels:
            raise ValueError(f"{name} has {len(values)} values for {channels} channels: {list(values)}")
        chosen.append(values)
    if min(chosen[1]) <= 0:
        raise ValueError(f"std is {list(chosen[1])}; expected positive values")
    return chosen[0], chosen[1]


def train_transform(
    size: int | tuple[int, int],
    *,
    channels: Literal[1, 3] = 3,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    no_aug: bool = False,
    crop: str = "auto",
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    pad_px: int | None = None,
    hflip: float | None = None,
    vflip: float = 0.0,
    color_jitter: float | Sequence[float] = 0.4,
    auto_augment: str | None = None,
    interpolation: str = "random",
    erase: float = 0.0,
    erase_mode: str = "pixel",
    erase_count: int = 1,
    albumentations: Sequence[Mapping[str, Any] | str] | None = None,
) -> ImageTransform:
    """Build the transform of training images: crop, flip, colours, normalisation, erasing.

    Images of more than 64 px are zoomed into at random (timm's recipe for ImageNet). Smaller ones, such as
    digits, keep their scale: they are padded, cropped at random, and not flipped by default.

    All randomness comes from the global generators of Python, NumPy and torch.

    Args:
        size: height and width of the result in px, or one number for both.
        channels: 1 for grey, 3 for RGB; the images must have as many.
        mean: see `mean_and_std`.
        std: see `mean_and_std`.
        no_aug: no random augmentation: resize, crop the centre, normalise.
        crop: "zoom", "pad", or "auto" by the size.
        scale: share of the image's area that "zoom" crops, minimum and maximum, 0-1.
        ratio: width by height of what "zoom" crops, minimum and maximum.
        pad_px: black border before the "pad" crop. Default: an eighth of the shorter side, at least 1.
        hflip: probability of mirroring left and right. Default: 0.5 with "zoom", 0 with "pad".
        vflip: probability of mirroring top and bottom.
        color_jitter: strength for brightness, contrast and saturation, or each on its own. Not used with
            `auto_augment`, as in timm.
        auto_augment: a policy in timm's notation, such as "rand-m9-mstd0.5-inc1", "original" or
            "augmix-m3-w3".
        interpolation: "bilinear", "bicubic" ..., or "random" of these two.
        erase: probability of random erasing.
        erase_mode: "const" fills with zeros, "rand" with one random colour, "pixel" with noise.
        erase_count: maximum number of rectangles to erase.
        albumentations: transforms of that library as plain data, see `AlbumentationsList`; applied to the
            cropped 8-bit image, after the colours and before normalisation.

    Raises:
        ValueError: a value is out of range, or a name is unknown.

    Example:
        >>> transform = train_transform(28, channels=1, albumentations=[{"ElasticTransform": {"alpha": 1.0}}])
        >>> transform(Image.new("L", (28, 28))).shape
        torch.Size([1, 28, 28])
    """
    height, width = _pair(size)
    mean, std = mean_and_std(channels, mean, std)
    _check_range("scale", scale, 1.0)
    _check_range("ratio", ratio, None)
    for name, rate in (("hflip", hflip), ("vflip", vflip), ("erase", erase)):
        if rate is not None and not 0 <= rate <= 1:
            raise ValueError(f"{name} is {rate}, expected a probability, 0-1")
    if crop not in ("auto", "zoom", "pad"):
        raise ValueError(f"crop is {crop!r}; expected auto, zoom or pad")
    if erase_mode not in ("const", "rand", "pixel"):
        raise ValueError(f"erase_mode is {erase_mode!r}; expected const, rand or pixel")
    _check_interpolation(interpolation, "random")
    if no_aug:
        if albumentations:
            raise ValueError("no_aug and albumentations exclude each other")
        return eval_transform(
            (height, width),
            channels=channels,
            mean=mean,
            std=std,
            crop_pct=1.0,
            interpolation="bilinear" if interpolation == "random" else interpolation,
        )
    padded = crop == "pad" or (crop == "auto" and max(height, width) <= SMALL_PX)
    if hflip is None:
        hflip = 0.0 if padded else 0.5
    jitter: Any = tuple(color_jitter) if isinstance(color_jitter, Sequence) else color_jitter or None
    try:
        geometry, colours, final = create_transform(
            (channels, height, width),
            is_training=True,
            scale=(scale[0], scale[1]),
            ratio=(ratio[0], ratio[1]),
            hflip=hflip,
            vflip=vflip,
            color_jitter=jitter,
            auto_augment=auto_augment or None,
            interpolation=interpolation,
            mean=mean,
            std=std,
            re_prob=erase,
            re_mode=erase_mode,
            re_count=erase_count,
            separate=True,
        )
    except (AssertionError, KeyError, ValueError) as error:
        raise ValueError(
            f"timm does not accept auto_augment={auto_augment!r} with color_jitter={color_jitter!r}; a policy "
            "reads like 'rand-m9-mstd0.5-inc1', 'original' or 'augmix-m3-w3', a jitter is one number or three"
        ) from error
    steps = list(geometry.transforms)
    if padded:
        border = max(1, min(height, width) // 8) if pad_px is None else pad_px
        if border < 0:
            raise ValueError(f"pad_px is {border}, it cannot be negative")
        resize = str_to_interp_mode("bilinear" if interpolation == "random" else interpolation)
        steps[:1] = [
            transforms.Resize((height, width), resize),
            transforms.RandomCrop((height, width), padding=border),
        ]
    if channels == 1 and auto_augment:  # the policies need colours
        steps += [_to_rgb, *colours.transforms, _to_grey]
    else:
        steps += colours.transforms
    if albumentations:
        steps.append(AlbumentationsList(albumentations))
    return transforms.Compose([*steps, *final.transforms])


def eval_transform(
    size: int | tuple[int, int],
    *,
    channels: Literal[1, 3] = 3,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    crop_pct: float | None = None,
    crop_mode: str = "center",
    interpolation: str = "bicubic",
) -> ImageTransform:
    """Build the transform of images to evaluate: resize, crop the centre, normalise.

    Args:
        size: height and width of the result in px, or one number for both.
        channels: 1 for grey, 3 for RGB; the images must have as many.
        mean: see `mean_and_std`.
        std: see `mean_and_std`.
        crop_pct: side of the crop by side of the resized image, 0-1. Default: 0.875, but 1 up to 64 px.
        crop_mode: "center" keeps the proportions and loses the margins, "squash" changes the proportions,
            "border" loses nothing and pads.
        interpolation: "bilinear", "bicubic" ...

    Raises:
        ValueError: a value is out of range, or a name is unknown.

    Example:
        >>> eval_transform((32, 48))(Image.new("RGB", (100, 80))).shape
        torch.Size([3, 32, 48])
    """
    height, width = _pair(size)
    mean, std = mean_and_std(channels, mean, std)
    if crop_pct is None:
        crop_pct = 1.0 if max(height, width) <= SMALL_PX else 0.875
    if not 0 < crop_pct <= 1:
        raise ValueError(f"crop_pct is {crop_pct}, expected more than 0 and at most 1")
    if crop_mode not in ("center", "squash", "border"):
        raise ValueError(f"crop_mode is {crop_mode!r}; expected center, squash or border")
    _check_interpolation(interpolation)
    # timm accepts one number for square images: the shorter side is resized, proportions stay.
    return create_transform(
        (channels, height, width),
        is_training=False,
        crop_pct=crop_pct,
        crop_mode=crop_mode,
        interpolation=interpolation,
        mean=mean,
        std=std,
    )


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"the image size is {height} x {width}; both must be positive")
    return int(height), int(width)


def _check_range(name: str, values: Sequence[float], top: float | None) -> None:
    fits = len(values) == 2 and 0 < values[0] <= values[1] and (top is None or values[1] <= top)
    if not fits:
        limit = f" and at most {top:g}" if top else ""
        raise ValueError(f"{name} is {list(values)}; expected two rising numbers, more than 0{limit}")


def _check_interpolation(name: str, *more: str) -> None:
    known = (*_INTERPOLATIONS, *more)
    if name not in known:
        raise ValueError(f"no interpolation is called {name!r}; {choices(name, known)}")


def _to_rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


def _to_grey(image: Image.Image) -> Image.Image:
    return image.convert("L")
