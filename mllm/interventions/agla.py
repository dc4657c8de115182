"""AGLA: assembly of global and local attention. Add what is said of the parts of the image that the question is about.

Source: An et al., CVPR 2025, arXiv:2406.12718; Lackel/AGLA@efa1263 (`augmentation.py`, `sample.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from ..image_matching import Match, Matcher, load_matcher
from ..session.contract import Call, Edit, Prompts
from ..session.streams import Stream, contrast

__all__ = ["AGLA", "augmented", "kept_pixels", "smooth_map"]

#: Side in pixels at which the authors draw the map.
_SIDE = 384


@dataclass(frozen=True, kw_only=True)
class AGLA:
    """Scores of the next word z + alpha z', z' being those of the prompt with the question's parts of the image.

    A matching model says how well the question fits the image, and which patches make it so. The less it fits, the
    more of the image is kept, from all to a half; the pixels that matter least become black.

    In the authors' code the second stream takes its arguments anew from the first one at every step of the loop, and
    with them the first one's cache: from the second word on both say the same, z' = z, and the rule does no more than
    sharpen z by 1 + alpha. Here the second stream has a cache of its own. The authors also squeeze the augmented image
    to 384 x 384; here it keeps its size and shape, so that the prompt has as many image tokens as before; the map is
    theirs, stretched. They match the question as it was asked before " Please answer this question with one word." was
    put behind it; here it is the question that is given. They sample; under greedy decoding this takes the largest
    score.

    Attributes:
        matcher: the matching model: a folder or hub id of BLIP for image-text matching in transformers' form with
            safetensors, or `open_clip:ARCH:WEIGHTS` for another kind, with a map of our own; see
            `regard.mllm.image_matching.load_matcher`. It is loaded once, when it is needed first.
        alpha: weight of the second prompt, at least 0.
        plausible: words less likely than this share of the likeliest one are ruled out, 0-1.
        block: index of the block of BLIP's text encoder whose attention to the image counts, from 0; not the last.
        device: of the matching model, e.g. `"cuda:1"`; by default that of the LVLM's inputs.
        dtype: of the matching model.
        inputs: the LVLM's inputs for the augmented images; `bind` makes them.

    Raises:
        ValueError: a value is out of its range; or the matching model cannot be loaded; or, when a call begins, there
            are no inputs for augmented images, or they are of other prompts.

    Example:
        >>> AGLA(matcher="models/blip-itm-large-coco").alpha
        2.0
    """

    name: ClassVar[str] = "agla"
    matcher: str = "Salesforce/blip-itm-large-coco"
    alpha: float = 2.0
    plausible: float = 0.5
    block: int = 6
    device: str | None = None
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    inputs: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.alpha < 0 or not 0 <= self.plausible <= 1 or self.block < 0:
            raise ValueError(
                f"AGLA needs alpha >= 0, plausible from 0 to 1 and block >= 0; got alpha={self.alpha}, "
                f"plausible={self.plausible}, block={self.block}"
            )
        if self.dtype not in ("float32", "float16", "bfloat16"):
            raise ValueError(f"AGLA's matching model can be float32, float16 or bfloat16; got dtype={self.dtype!r}")

    def bind(self, prompts: Prompts) -> AGLA:
        """The same, with the LVLM's inputs for the augmented images.

        Raises:
            ValueError: no prompt has an image; or the matching model cannot be loaded or matched with a question.
        """
        if not any(len(images) for images in prompts.images):
            raise ValueError("AGLA needs images with its prompts; for text alone leave it out")
        matcher = self._matching
        matcher.to(self.device or prompts.inputs_with(prompts.images)["input_ids"].device)
        images = [
            [augmented(image, matcher.match(image, question)) for image in images]
            for question, images in zip(prompts.questions, prompts.images, strict=True)
        ]
        return dataclasses.replace(self, inputs=prompts.inputs_with(images))

    def begin(self, call: Call) -> Edit:
        """Open the stream with the augmented images."""
        if self.inputs is None:
            raise ValueError(
                "AGLA needs the question and the images themselves, to augment them: ask through LVLM, which gives "
                "them, or give AGLA(...).bind(prompts) in place of AGLA(...)"
            )
        stream = Stream.with_images(call, self.inputs)

        def combine(scores: Tensor, other: Tensor) -> Tensor:
            return scores + self.alpha * other

        return Edit(process=contrast(call, stream.scores, combine, self.plausible))

    @cached_property
    def _matching(self) -> Matcher:
        return load_matcher(self.matcher, block=self.block, dtype=self.dtype)


def augmented(image: Image.Image, match: Match) -> Image.Image:
    """An image whose pixels that matter least to the match are black; of the same size, in RGB.

    Args:
        image: the image.
        match: what the matching model said of it.

    Example:
        >>> match = Match(0.9, torch.eye(24)[:, :, None].amax(dim=-1))
        >>> augmented(Image.new("RGB", (30, 20), "white"), match).getpixel((29, 0))
        (0, 0, 0)
    """
    kept = kept_pixels(smooth_map(match.relevance, image.height, image.width), match.similarity)
    pixels = np.asarray(image.convert("RGB"))
    return Image.fromarray(np.where(kept.numpy()[..., None], pixels, np.uint8(0)))


def smooth_map(relevance: Float[Tensor, "rows columns"], height: int, width: int) -> Float[Tensor, "{height} {width}"]:
    """A map of patches as a smooth one of pixels, 0 to 1.

    As LAVIS's `getAttMap` draws it on 384 x 384 pixels: scaled to 0-1, enlarged by cubic splines with zeros beyond the
    border, and blurred by a Gaussian of 0.02 of the side; then stretched to the size of the image.

    Args:
        relevance: of the patches.
        height: of the image in pixels.
        width: likewise.
    """
    values = relevance.double().numpy()
    values = values - values.min()
    values = values / (values.max() or 1.0)
    scale = [_SIDE / side for side in values.shape]
    large = ndimage.zoom(values, scale, order=3, mode="grid-constant", grid_mode=True).clip(0, 1)
    blurred = torch.from_numpy(ndimage.gaussian_filter(large, 0.02 * _SIDE)).float()
    sized = F.interpolate(blurred[None, None], size=(height, width), mode="bilinear", align_corners=False)[0, 0]
    return (sized - sized.min()) / (sized.max() - sized.min()).clamp(min=1e-12)


def kept_pixels(values: Float[Tensor, "height width"], similarity: float) -> Bool[Tensor, "height width"]:
    """Pixels that stay: those not below the value at the rank that the similarity gives.

    Of n pixels, int(n r) + 1 stay, and those that are equal to the last of them; r = min(1 - similarity / 2,
    1 - 1e-5).

    Args:
        values: of the pixels.
        similarity: of image and question, -1 to 1.

    Example:
        >>> int(kept_pixels(torch.rand(10, 10), 0.5).sum())
        76
    """
    ratio = min(1 - similarity / 2, 1 - 1e-5)
    ranked = values.flatten().sort(descending=True).values
    return values >= ranked[int(len(ranked) * ratio)]
