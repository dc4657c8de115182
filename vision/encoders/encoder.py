"""A patch encoder: from patches to one feature vector each, including preprocessing and pooling."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from .table import Interpolation, Pooling, Precision

__all__ = ["PatchEncoder", "check_choice", "encoder_fingerprint"]


class PatchEncoder(nn.Module):
    """A network with the transforms of its patches and the pooling of its tokens.

    Patches are resized by area-true (antialiased) interpolation, cropped at the centre where the authors do so, scaled
    to 0-1 and normalised, all on the device that the network is on. On a GPU of CUDA the network runs in `precision`
    by autocast; elsewhere in float32, unless the precision was given.

    Args:
        network: maps "batch 3 size size" to "batch dim", tokens "batch tokens dim" or a map
            "batch dim height width" (alone in a list, as `features_only` models of timm give it), whose mean is taken.
        name: name of the encoder.
        dim: width of the features.
        size: side of the network's input, in pixels.
        mean: of red, green and blue, of values in 0-1.
        std: std of red, green and blue, positive.
        patch: side of a patch in pixels that it is meant for.
        mpp: micrometres a pixel of such a patch.
        resize: side that patches get before the centre is cropped to `size`; `size` itself if None.
        interpolation: bilinear or bicubic.
        pooling: network: as it comes; class: the first token; class+mean: the first token and the mean of those after
            the prefix, one after the other; mean: that mean alone.
        prefix: number of tokens before the patch tokens: class and register tokens.
        normalised: whether features are divided by their length.
        precision: float32, bfloat16 or float16.
        everywhere: whether the precision also holds on other devices than those of CUDA.

    Raises:
        ValueError: a name that is not one of those, or `resize` below `size`.

    Example:
        >>> network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> encoder = PatchEncoder(network, name="colour", dim=3, size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> encoder(torch.full((2, 64, 64, 3), 255, dtype=torch.uint8))
        tensor([[1., 1., 1.],
                [1., 1., 1.]])
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        dim: int,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        patch: int = 224,
        mpp: float = 0.5,
        resize: int | None = None,
        interpolation: str = "bilinear",
        pooling: str = "network",
        prefix: int = 1,
        normalised: bool = False,
        precision: str = "float32",
        everywhere: bool = False,
    ) -> None:
        super().__init__()
        for what, given, known in (
            ("interpolation", interpolation, Interpolation),
            ("pooling", pooling, Pooling),
            ("precision", precision, Precision),
        ):
            check_choice(what, given, known)
        if resize is not None and resize < size:
            raise ValueError(f"patches resized to {resize} px hold no centre of {size} px")
        self.network = network
        self.name, self.dim, self.size, self.patch, self.mpp = name, dim, size, patch, mpp
        self.resize, self.interpolation, self.pooling, self.prefix = resize or size, interpolation, pooling, prefix
        self.normalised, self.precision, self.everywhere = normalised, precision, everywhere
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(list(mean)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(list(std)).view(1, 3, 1, 1), persistent=False)

    def forward(self, patches: UInt8[Tensor, "batch side side 3"]) -> Float[Tensor, "batch dim"]:
        """Features of square patches of any side, red green blue, in float32."""
        patches = patches.to(self.mean.device)
        device = patches.device.type
        asked = self.precision != "float32" and (device == "cuda" or self.everywhere)
        with torch.autocast(device, dtype=getattr(torch, self.precision)) if asked else nullcontext():
            found = self.network(self.prepare(patches))
        features = self._pool(found).float()
        return F.normalize(features, dim=-1) if self.normalised else features

    def prepare(self, patches: UInt8[Tensor, "batch side side 3"]) -> Float[Tensor, "batch 3 size size"]:
        """The input of the network: resized, cropped, normalised, channels last in memory."""
        pixels = patches.permute(0, 3, 1, 2)  # batch 3 side side; channels_last without a copy
        if pixels.shape[-1] != self.resize and len(pixels):
            if pixels.device.type != "cpu":  # whole numbers are resized on the CPU only, fast, as Pillow does
                pixels = pixels.float()
            side = (self.resize, self.resize)
            pixels = F.interpolate(pixels, side, mode=self.interpolation, antialias=True, align_corners=False)
            if pixels.is_floating_point():
                pixels = pixels.round_().clamp_(0, 255)
        elif pixels.shape[-1] != self.resize:
            pixels = pixels.new_empty(0, 3, self.resize, self.resize)
        edge = round((self.resize - self.size) / 2)
        pixels = pixels[..., edge : edge + self.size, edge : edge + self.size]
        own = pixels.float().sub_(255 * self.mean).div_(255 * self.std)  # a copy, unless it is ours already
        return own.contiguous(memory_format=torch.channels_last)

    def _pool(self, found: Tensor | Sequence[Tensor]) -> Tensor:
        """One vector a patch from what the network gave."""
        if isinstance(found, (list, tuple)):
            found = found[-1]
        assert isinstance(found, Tensor)
        if found.ndim == 4:
            return found.float().mean(dim=(2, 3))
        if found.ndim == 2:
            return found
        if self.pooling == "class":
            return found[:, 0]
        patch_tokens = found[:, self.prefix :].float().mean(dim=1)
        return torch.cat([found[:, 0].float(), patch_tokens], dim=-1) if self.pooling == "class+mean" else patch_tokens


def check_choice(what: str, given: str, known: Any) -> None:
    """Check that a name is one of a `Literal`.

    Raises:
        ValueError: it is not.
    """
    if given not in get_args(known):
        raise ValueError(f"no {what} is called {given!r}; known: {', '.join(get_args(known))}")


def encoder_fingerprint(encoder: PatchEncoder, kind: Literal["long", "short"] = "short") -> str:
    """The name of an encoder and a hash of its weights and transforms, which identifies its features.

    It does not depend on device and precision.

    Args:
        encoder: of `build_encoder`.
        kind: short for 16 digits of the hash, long for 64.

    Example:
        >>> network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> encoder = PatchEncoder(network, name="colour", dim=3, size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> encoder_fingerprint(encoder).partition("@")[0]
        'colour'
    """
    names = ("dim", "size", "resize", "interpolation", "pooling", "prefix", "normalised")
    transforms = {name: getattr(encoder, name) for name in names}
    colours = [encoder.mean.flatten().tolist(), encoder.std.flatten().tolist()]
    whole = hashlib.sha256(json.dumps([transforms, colours]).encode())
    for name, tensor in sorted(encoder.network.state_dict().items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        whole.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    digest = whole.hexdigest()
    return f"{encoder.name}@{digest if kind == 'long' else digest[:16]}"
