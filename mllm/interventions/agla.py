"""AGLA: assembly of global and local attention, which adds the logits for an image reduced to the relevant regions.

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
    """Logits z + alpha * z', with z' the logits of the prompt with an augmented image.

    A matching model gives the similarity of question and image, and the relevance of each patch. The lower the
    similarity, the more of the image is kept, from half to all of it; the least relevant pixels become black. Cost: one
    forward and backward pass of the matching model per image, and a second stream with an image.

    Differences from the authors' code: there the second stream takes over the cache of the first at every step, so that
    from the second token on z' = z and the rule only sharpens z by 1 + alpha; here the second stream has its own cache.
    They resize the augmented image to 384 x 384; here it keeps its size, so that the prompt has the same number of
    image tokens, and their map is stretched. They match the question without the suffix " Please answer this question
    with one word."; here the question is matched as given. They sample; greedy decoding uses the largest logit.

    Attributes:
        matcher: the matching model: a folder or hub id of BLIP for image-text matching in transformers' form with
            safetensors, or `open_clip:ARCH:WEIGHTS` for another kind, with our own relevance map; see
            `regard.mllm.image_matching.load_matcher`. It is loaded at first use.
        alpha: weight of the second stream, at least 0.
        plausible: tokens whose probability is below this fraction of the highest are excluded, 0-1.
        block: block of BLIP's text encoder whose attention to the image gives the relevance, from 0; not the last.
        device: of the matching model, e.g. `"cuda:1"`; by default that of the LVLM's inputs.
        dtype: of the matching model.
        inputs: the LVLM's inputs for the augmented images; `bind` makes them.

    Raises:
        ValueError: a value is out of its range; or the matching model cannot be loaded; or, when a call begins, there
            are not inputs for augmented images, or they are of other prompts.

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
        """A copy with the LVLM's inputs for the augmented images.

        Raises:
            ValueError: no prompt has an image; or the matching model cannot be loaded or matched with a question.
        """
        if not any(len(images) for images in prompts.images):
            raise ValueError("AGLA needs prompts with images")
        matcher = self._matching
        matcher.to(self.device or prompts.inputs_with(prompts.images)["input_ids"].device)
        images = [
            [augmented(image, matcher.match(image, question)) for image in images]
            for question, images in zip(prompts.questions, prompts.images, strict=True)
        ]
        return dataclasses.replace(self, inputs=prompts.inputs_with(images))

    def begin(self, call: Call) -> Edit:
        """Start the stream with the augmented images."""
        if self.inputs is None:
            raise ValueError(
                "AGLA needs the question and the images: use LVLM, which provides them, or pass "
                "AGLA(...).bind(prompts) instead of AGLA(...)"
            )
        stream = Stream.with_images(call, self.inputs)

        def combine(scores: Tensor, other: Tensor) -> Tensor:
            return scores + self.alpha * other

        return Edit(process=contrast(call, stream.scores, combine, self.plausible))

    @cached_property
    def _matching(self) -> Matcher:
        return load_matcher(self.matcher, block=self.block, dtype=self.dtype)


def augmented(image: Image.Image, match: Match) -> Image.Image:
    """The image with its least relevant pixels black; same size, RGB.

    Args:
        image: the image.
        match: result of the matching model.

    Example:
        >>> match = Match(0.9, torch.eye(24)[:, :, None].amax(dim=-1))
        >>> augmented(Image.new("RGB", (30, 20), "white"), match).getpixel((29, 0))
        (0, 0, 0)
    """
    kept = kept_pixels(smooth_map(match.relevance, image.height, image.width), match.similarity)
    pixels = np.asarray(image.convert("RGB"))
    return Image.fromarray(np.where(kept.numpy()[..., None], pixels, np.uint8(0)))


def smooth_map(relevance: Float[Tensor, "rows columns"], height: int, width: int) -> Float[Tensor, "{height} {width}"]:
    """A relevance map of patches as a smooth map of pixels, 0 to 1.

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
    """The pixels to keep: those not below the value at the rank given by the similarity.

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
