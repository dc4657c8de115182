"""HAT, the hybrid attention transformer, for super-resolution, denoising and JPEG artefacts.

Source: Chen et al. 2023, arXiv:2205.04437, and for a scale of 1 arXiv:2309.05239, section 3; XPixelGroup/HAT@1638a9a,
hat/archs/hat_arch.py and hat/models/hat_model.py, whose parameter names are kept. Differs from it: a scale of 1 is
implemented (the authors' code has no path for it and no weights were published: what there is here follows the
paper's words, the image plus a convolution of the features), and images of any size will do: the network itself
pads them, by reflection as the authors' tests do, and cuts the result.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import calculate_drop_path_rates
from timm.models import build_model_with_cfg, checkpoint_seq, generate_default_cfgs, register_model
from torch import Tensor, nn

from ..attention.windows import may_reuse_memory
from .hat_layers import ResidualHybridAttentionGroup, checkpoint_filter_fn
from .hat_shapes import deduce
from .pyramid import init_linear

__all__ = ["HAT", "KEYS", "PAPER", "PSNR", "TOP1", "checkpoint_filter_fn", "deduce", "named", "reflect", "start_from"]

PAPER = "arXiv:2205.04437"

#: A name that only files of this family have.
KEYS = (r"^layers\.\d+\.residual_group\.overlap_attn\.",)

#: It restores images and has no classes.
TOP1: dict[str, float] = {}

#: Published PSNR (dB) of the Y channel, a border as wide as the scale cut: Set5, Set14, BSD100, Urban100, Manga109.
PSNR: dict[str, tuple[float, ...]] = {
    "hat_s_x2.df2k": (38.58, 34.70, 32.59, 34.31, 40.14),
    "hat_x2.df2k": (38.63, 34.86, 32.62, 34.45, 40.26),
    "hat_x2.imagenet_df2k": (38.73, 35.13, 32.69, 34.81, 40.71),
    "hat_l_x2.imagenet_df2k": (38.91, 35.29, 32.74, 35.09, 41.01),
    "hat_s_x3.df2k": (35.01, 31.05, 29.50, 30.15, 35.40),
    "hat_x3.df2k": (35.07, 31.08, 29.54, 30.23, 35.53),
    "hat_x3.imagenet_df2k": (35.16, 31.33, 29.59, 30.70, 35.84),
    "hat_l_x3.imagenet_df2k": (35.28, 31.47, 29.63, 30.92, 36.02),
    "hat_s_x4.df2k": (32.92, 29.15, 27.97, 27.87, 32.35),
    "hat_x4.df2k": (33.04, 29.23, 28.00, 27.97, 32.48),
    "hat_x4.imagenet_df2k": (33.18, 29.38, 28.05, 28.37, 32.87),
    "hat_l_x4.imagenet_df2k": (33.30, 29.47, 28.09, 28.60, 33.09),
}

#: Means of red, green and blue that the authors subtract.
_MEAN = (0.4488, 0.4371, 0.4040)

#: Channels before the last convolution.
_LAST = 64

#: How far, in features, the convolutions that put it together reach: 1 before, and less than 1 + 1/2 + ... + 1 after.
_REACH = 4

#: Values between these convolutions that are there at a time without gradients: 16 MB of float32.
STRIP = 2**22


class HAT(nn.Module):
    """Residual groups of hybrid attention between two convolutions, then pixel shuffling to the wanted size.

    Args:
        scale: sides of the result over those of the image: 1, 3 or a power of two. With 1 (noise, JPEG artefacts)
            the result is the image plus a convolution of the features.
        in_chans: channels of the image: 3 for colour, 1 for grey.
        dim: width of a token, a multiple of every `num_heads`.
        depths: hybrid attention layers of each group.
        num_heads: heads of each group, or one number for all.
        window_size: side of a window.
        overlap_ratio: how much longer the side of an overlapping window is.
        conv_scale: weight of the channel attention blocks.
        compress_ratio: `dim` over the width between their convolutions.
        squeeze_factor: `dim` over the width of their gates.
        mlp_ratio: hidden width of the MLPs over `dim`.
        qkv_bias: whether queries, keys and values have a bias.
        conv: whether groups end in a convolution (the authors' `resi_connection="1conv"`).
        img_range: what the image is multiplied with inside.
        drop_path_rate: stochastic depth rate of the last layer, 0-1; it increases linearly from 0.
        device: device of the parameters.
        dtype: type of the parameters.

    Raises:
        ValueError: numbers that do not fit each other, or out of range.

    Example:
        >>> model = HAT(scale=3, dim=12, depths=(2,), num_heads=2, window_size=4)
        >>> model(torch.rand(1, 3, 9, 14)).shape
        torch.Size([1, 3, 27, 42])
    """

    #: timm asks for it; there is no head.
    num_classes = 0
    mean: Tensor

    def __init__(
        self,
        *,
        scale: int = 4,
        in_chans: int = 3,
        dim: int = 180,
        depths: Sequence[int] = (6, 6, 6, 6, 6, 6),
        num_heads: int | Sequence[int] = 6,
        window_size: int = 16,
        overlap_ratio: float | int = 0.5,
        conv_scale: float | int = 0.01,
        compress_ratio: int = 3,
        squeeze_factor: int = 30,
        mlp_ratio: float | int = 2,
        qkv_bias: bool = True,
        conv: bool = True,
        img_range: float | int = 1,
        drop_path_rate: float | int = 0.1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if scale != 3 and (scale < 1 or scale & (scale - 1)):
            raise ValueError(f"scale is {scale}; it must be 1, 3 or a power of two")
        heads = [num_heads] * len(depths) if isinstance(num_heads, int) else list(num_heads)
        if len(heads) != len(depths) or not heads:
            raise ValueError(f"num_heads has {len(heads)} numbers for {len(depths)} groups; give one for each")
        self.scale = scale
        self.window_size = window_size
        self.in_chans = in_chans
        self.img_range = img_range
        self.num_features = dim
        self.grad_checkpointing = False
        mean = torch.tensor(_MEAN if in_chans == 3 else [0.0] * in_chans)
        self.register_buffer("mean", mean.view(1, -1, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(in_chans, dim, 3, padding=1)
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(dim)})
        rates: Iterator[Any] = iter(calculate_drop_path_rates(drop_path_rate, sum(depths)))
        layers = [
            ResidualHybridAttentionGroup(
                dim,
                depth=depth,
                num_heads=one,
                window_size=window_size,
                overlap_ratio=overlap_ratio,
                conv_scale=conv_scale,
                compress_ratio=compress_ratio,
                squeeze_factor=squeeze_factor,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                conv=conv,
                drop_path_rates=list(itertools.islice(rates, depth)),
            )
            for depth, one in zip(depths, heads, strict=True)
        ]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(dim)
        self.conv_after_body = nn.Conv2d(dim, dim, 3, padding=1) if conv else nn.Identity()
        if scale == 1:
            self.conv_last = nn.Conv2d(dim, in_chans, 3, padding=1)
        else:
            self.conv_before_upsample = nn.Sequential(nn.Conv2d(dim, _LAST, 3, padding=1), nn.LeakyReLU(0.01))
            factors = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
            self.upsample = nn.Sequential(*itertools.chain.from_iterable(map(_upsampling, factors)))
            self.conv_last = nn.Conv2d(_LAST, in_chans, 3, padding=1)
        self.init_weights()
        if device is not None or dtype is not None:
            self.to(device=device, dtype=dtype)

    def init_weights(self) -> None:
        """Truncated normal with std 0.02 and zero biases for linear layers; convolutions keep PyTorch's default."""
        init_linear(self)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Names of the parameters without weight decay, beyond those of one axis: tables of biases."""
        return {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns for timm's layer-wise learning rates; `coarse` groups by residual group."""
        fine = r"^layers\.(\d+)\.residual_group\.(?:blocks\.(\d+)|overlap_attn)"
        return {
            "stem": r"^conv_first|^patch_embed",
            "blocks": r"^layers\.(\d+)" if coarse else [(fine, None), (r"^layers\.(\d+)\.conv", (99998,))],
        }

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each group in the backward pass instead of storing its activations."""
        self.grad_checkpointing = enable

    def forward_features(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch dim height width"]:
        """The features of an image in 0-1, at its own size, for which windows at the border are smaller."""
        shallow = self.conv_first((x - self.mean) * self.img_range)
        tokens = self.patch_embed["norm"](shallow.permute(0, 2, 3, 1))  # batch height width dim
        tokens = checkpoint_seq(self.layers, tokens) if self.grad_checkpointing else self.layers(tokens)
        features = self.conv_after_body(self.norm(tokens).permute(0, 3, 1, 2))
        return (
            features.add_(shallow)
            if may_reuse_memory() and "weight" in self.conv_after_body._parameters
            else features + shallow
        )

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels scaled_height scaled_width"]:
        """Restore images in 0-1; the result is not clamped.

        Args:
            x: any height and width from 1.

        Returns:
            `scale` times as high and wide.
        """
        height, width = x.shape[2:]
        padded = reflect(x, -height % self.window_size, -width % self.window_size)
        features = self.forward_features(padded)[:, :, : height + _REACH, : width + _REACH]
        lines = max(16, STRIP // (features.shape[0] * _LAST * self.scale**2 * features.shape[3]))
        if not may_reuse_memory() or lines >= height:
            return self._compose(features, x)
        image = x.new_empty(*x.shape[:2], height * self.scale, width * self.scale)
        for first in range(0, height, lines):
            above, stop = min(first, _REACH), min(first + lines, height)
            strip = self._compose(features[:, :, first - above : stop + _REACH], x[:, :, first - above : stop])
            image[:, :, first * self.scale : stop * self.scale] = strip[:, :, above * self.scale :]
        return image

    def _compose(self, features: Tensor, x: Tensor) -> Tensor:
        """The image from the features, which may extend beyond `x` at the bottom and right."""
        if self.scale == 1:
            return x + self.conv_last(features)[:, :, : x.shape[2], : x.shape[3]] / self.img_range
        image = self.conv_last(self.upsample(self.conv_before_upsample(features)))
        return image[:, :, : x.shape[2] * self.scale, : x.shape[3] * self.scale] / self.img_range + self.mean


def _upsampling(factor: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(_LAST, _LAST * factor**2, 3, padding=1), nn.PixelShuffle(factor)


def reflect(
    x: Float[Tensor, "batch channels height width"], below: int, right: int
) -> Float[Tensor, "batch channels padded_height padded_width"]:
    """Pad by reflection at the bottom and the right; an image that is smaller than that is reflected repeatedly.

    Args:
        x: what to pad.
        below: rows to add, at least 0.
        right: columns to add, at least 0.

    Example:
        >>> reflect(torch.arange(3.0).view(1, 1, 1, 3), 1, 4)[0, 0]
        tensor([[0., 1., 2., 1., 0., 1., 2.],
                [0., 1., 2., 1., 0., 1., 2.]])
    """
    height, width = x.shape[2:]
    if below < height and right < width:
        return F.pad(x, (0, right, 0, below), mode="reflect") if below or right else x
    rows, columns = (_reflected(length, more, x.device) for length, more in ((height, below), (width, right)))
    return x.index_select(2, rows).index_select(3, columns)


def _reflected(length: int, more: int, device: torch.device) -> Tensor:
    period = max(1, 2 * (length - 1))
    index = torch.arange(length + more, device=device) % period
    return torch.minimum(index, period - index)


def named(options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The most similar registered network, and the arguments in which it differs.

    Args:
        options: as `deduce` returns them.

    Example:
        >>> model = HAT(scale=2, in_chans=1, dim=144, compress_ratio=24, squeeze_factor=24, depths=(6,) * 6)
        >>> named(deduce(model.state_dict()))
        ('hat_s_x2', {'in_chans': 1})
    """
    usual = {key: one.default for key, one in inspect.signature(HAT).parameters.items()}
    scale = options["scale"] if options["scale"] in (1, 2, 3, 4) else 4
    found = []
    for size, own in _SIZES.items():
        defaults = usual | own | {"scale": scale}
        changed = {key: value for key, value in options.items() if value != defaults[key]}
        found.append((f"{size}_x{scale}", changed))
    return min(found, key=lambda pair: len(pair[1]))


def start_from(model: nn.Module, weights: Mapping[str, Any]) -> list[str]:
    """Initialise a network from the weights of another scale, as the authors do for x4 from x2.

    Args:
        model: the `HAT` to fill in index.
        weights: of a network that differs in its scale only, by the authors' names.

    Returns:
        The parameters that stay as they were: `upsample.2` for x4 from x2, all of `upsample` for x3.

    Raises:
        ValueError: the body does not fit; the first names are given.

    Example:
        >>> small = {"dim": 12, "depths": (1,), "num_heads": 2, "window_size": 4}
        >>> start_from(HAT(scale=4, **small), HAT(scale=2, **small).state_dict())
        ['upsample.2.weight', 'upsample.2.bias']
    """
    own, given = model.state_dict(), checkpoint_filter_fn(weights, model)
    tail = ("upsample.", "conv_before_upsample.", "conv_last.")
    fits = [name for name, tensor in own.items() if name in given and given[name].shape == tensor.shape]
    fresh = [name for name in own if name not in set(fits)]
    wrong = [name for name in (*fresh, *given) if name not in set(fits) and not name.startswith(tail)]
    if wrong:
        raise ValueError(
            f"the weights are not of this network at another scale: {', '.join(wrong[:3])} and in all {len(wrong)} "
            "tensors do not fit; regard convert FILE prints which network a file is of"
        )
    model.load_state_dict({name: given[name] for name in fits}, strict=False)
    return fresh


#: The authors' folder of all weights.
_FOLDER = "https://drive.google.com/drive/folders/1HpmReFfoUqUbnAOQ7rvOeNU3uf_m69w0"

#: A mirror of two of its files, as of commit 8403819bcbf5959d54c72383f0725f2525472d30.
_MIRROR = "https://huggingface.co/Acly/hat/resolve/8403819bcbf5959d54c72383f0725f2525472d30"


def _cfg(note: str = "", url: str = "") -> dict[str, Any]:
    """Images in 0-1 as they are."""
    return {
        "url": url,
        "num_classes": 0,
        "input_size": (3, 64, 64),
        "pool_size": None,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "first_conv": None,  # images have the same channels when they come out: it cannot be adapted alone
        "classifier": None,
        "paper_ids": PAPER,
        "paper_name": "Activating More Pixels in Image Super-Resolution Transformer",
        "origin_url": "https://github.com/XPixelGroup/HAT",
        "license": "apache-2.0",
        **({"notes": (note,)} if note else {}),
    }


def _by_hand(file: str) -> dict[str, Any]:
    return _cfg(f"bring {file} from {_FOLDER}")


def _sizes(scale: int) -> dict[str, dict[str, Any]]:
    """The published files of a scale; the first tag of a network is what `pretrained` means."""
    mirrored = {"url": f"{_MIRROR}/HAT_SRx4_ImageNet-pretrain.pth"} if scale == 4 else {}
    pretrained = _by_hand(f"HAT_SRx{scale}_ImageNet-pretrain.pth")
    return {
        f"hat_s_x{scale}.df2k": _by_hand(f"HAT-S_SRx{scale}.pth"),
        f"hat_x{scale}.imagenet_df2k": _cfg(**mirrored) if mirrored else pretrained,
        f"hat_x{scale}.df2k": _by_hand(f"HAT_SRx{scale}.pth"),
        f"hat_l_x{scale}.imagenet_df2k": _by_hand(f"HAT-L_SRx{scale}_ImageNet-pretrain.pth"),
    }


default_cfgs = generate_default_cfgs(
    {
        **_sizes(2),
        **_sizes(3),
        **_sizes(4),
        "hat_x4.real_gan": _by_hand("Real_HAT_GAN_SRx4.pth"),
        "hat_x4.real_gan_sharper": _cfg(url=f"{_MIRROR}/Real_HAT_GAN_sharper.pth"),
        "hat_s_x1.untrained": _cfg(),
        "hat_x1.untrained": _cfg(),
        "hat_l_x1.untrained": _cfg(),
        **{f"hat_tiny_x{scale}.untrained": _cfg() for scale in (1, 2, 3, 4)},
    }
)


def _create_hat(variant: str, pretrained: bool, settings: dict[str, Any], given: dict[str, Any]) -> nn.Module:
    if given.get("features_only"):
        raise ValueError(f"{variant} restores images and has no pyramid of features; forward_features gives its map")
    return build_model_with_cfg(
        HAT,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        kwargs_filter=("num_classes", "global_pool"),  # type: ignore[arg-type]
        **{**settings, **given},
    )


_SMALL: dict[str, Any] = {"dim": 144, "compress_ratio": 24, "squeeze_factor": 24}
_LARGE: dict[str, Any] = {"depths": (6,) * 12}
_TINY: dict[str, Any] = {"dim": 48, "depths": (4, 4, 4), "num_heads": 4, "window_size": 8, "squeeze_factor": 12}

#: Size -> its arguments apart from the scale.
_SIZES: dict[str, dict[str, Any]] = {"hat": {}, "hat_s": _SMALL, "hat_l": _LARGE, "hat_tiny": _TINY}


@register_model
def hat_tiny_x1(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A small variant of ours for CPUs, not in the paper, noise and JPEG artefacts: 0.56 M parameters."""
    return _create_hat("hat_tiny_x1", pretrained, {**_TINY, "scale": 1}, kwargs)


@register_model
def hat_tiny_x2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A small variant of ours for CPUs, not in the paper, x2: 0.73 M parameters."""
    return _create_hat("hat_tiny_x2", pretrained, {**_TINY, "scale": 2}, kwargs)


@register_model
def hat_tiny_x3(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A small variant of ours for CPUs, not in the paper, x3: 0.92 M parameters."""
    return _create_hat("hat_tiny_x3", pretrained, {**_TINY, "scale": 3}, kwargs)


@register_model
def hat_tiny_x4(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A small variant of ours for CPUs, not in the paper, x4: 0.88 M parameters."""
    return _create_hat("hat_tiny_x4", pretrained, {**_TINY, "scale": 4}, kwargs)


@register_model
def hat_s_x1(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HAT-S, noise and JPEG artefacts: 9.24 M parameters."""
    return _create_hat("hat_s_x1", pretrained, {**_SMALL, "scale": 1}, kwargs)


@register_model
def hat_s_x2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HAT-S, x2: 9.47 M parameters."""
    return _create_hat("hat_s_x2", pretrained, {**_SMALL, "scale": 2}, kwargs)


@register_model
def hat_s_x3(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HAT-S, x3: 9.66 M parameters."""
    return _create_hat("hat_s_x3", pretrained, {**_SMALL, "scale": 3}, kwargs)


@register_model
def hat_s_x4(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HAT-S, x4: 9.62 M parameters."""
    return _create_hat("hat_s_x4", pretrained, {**_SMALL, "scale": 4}, kwargs)


@register_model
def hat_x1(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HAT, noise and JPEG artefacts: 20.38 M parameters."""
    return _create_hat("hat_x1", pretrained, {"scale": 1}, kwargs)


@register_model
def hat_x2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HAT, x2: 20.62 M parameters."""
    return _create_hat("hat_x2", pretrained, {"scale": 2}, kwargs)


@register_model
def hat_x3(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HAT, x3: 20.81 M parameters."""
    return _create_hat("hat_x3", pretrained, {"scale": 3}, kwargs)


@register_model
def hat_x4(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HAT, x4: 20.77 M parameters."""
    return _create_hat("hat_x4", pretrained, {"scale": 4}, kwargs)


@register_model
def hat_l_x1(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HAT-L, noise and JPEG artefacts: 40.45 M parameters."""
    return _create_hat("hat_l_x1", pretrained, {**_LARGE, "scale": 1}, kwargs)


@register_model
def hat_l_x2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HAT-L, x2: 40.70 M parameters."""
    return _create_hat("hat_l_x2", pretrained, {**_LARGE, "scale": 2}, kwargs)


@register_model
def hat_l_x3(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HAT-L, x3: 40.88 M parameters."""
    return _create_hat("hat_l_x3", pretrained, {**_LARGE, "scale": 3}, kwargs)


@register_model
def hat_l_x4(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HAT-L, x4: 40.85 M parameters."""
    return _create_hat("hat_l_x4", pretrained, {**_LARGE, "scale": 4}, kwargs)
