"""timm's interface for staged networks of families that timm does not have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import create_classifier, trunc_normal_
from timm.models import build_model_with_cfg
from timm.models._features import feature_take_indices
from torch import Tensor, nn

__all__ = ["Pyramid", "build_variant", "init_linear"]


class Pyramid(nn.Module, ABC):
    """A network of stages, a norm, a pooling and a classifier, behind timm's interface.

    A family builds its parts under its authors' names, sets `feature_info` (an entry for each stage), ends its
    construction with `complete`, and has

    - `init_weights`, its authors' initialisation,
    - `forward_stage(x, stage)`: from the map of the stage before, or the images, to that of a stage,
    - `cut_stages(count)`: leave only the first ones,
    - `head_parent` and `norm_parent`: the modules whose `head` and `norm` come at the end; without a
      `norm_parent` every stage ends with its norm.

    Args:
        num_features: channels of the last stage.
        in_chans: channels of the image.
        drop_rate: dropout before the classifier, 0-1.
    """

    feature_info: list[dict[str, Any]]
    global_pool: nn.Module

    def __init__(self, *, num_features: int, in_chans: int, drop_rate: float) -> None:
        super().__init__()
        self.num_features = self.head_hidden_size = num_features
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.grad_checkpointing = False

    def complete(
        self, num_classes: int, global_pool: str, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        """Add the classifier, initialise, and move to the device and type, after all other parts are built."""
        self.reset_classifier(num_classes, global_pool)
        self.init_weights()
        if device is not None or dtype is not None:
            self.to(device=device, dtype=dtype)

    def init_weights(self) -> None:
        """Truncated normal (0.02) and zero biases for linear layers; convolutions keep PyTorch's default."""
        init_linear(self)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Names of the parameters without weight decay, beyond those of one axis: none."""
        return set()

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return len(self.feature_info)

    @property
    def head_parent(self) -> nn.Module:
        """The module whose `head` is the classifier."""
        return self

    @property
    def norm_parent(self) -> nn.Module | None:
        """The module whose `norm` comes after the last stage; None where every stage has its own."""
        return None

    @abstractmethod
    def forward_stage(
        self, x: Float[Tensor, "batch channels h w"], stage: int
    ) -> Float[Tensor, "batch dim height width"]:
        """Run one stage.

        Args:
            x: the output of the stage before, or the images.
            stage: counted from 0.
        """

    @abstractmethod
    def cut_stages(self, count: int) -> None:
        """Remove all but the first `count` stages."""

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks in the backward pass instead of storing their activations."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head_parent.get_submodule("head")

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier, and the pooling if one is given."""
        pool = getattr(self.global_pool, "pool_type", "avg") if global_pool is None else global_pool
        self.num_classes = num_classes
        like = next(self.parameters())
        self.global_pool, self.head_parent.head = create_classifier(
            self.num_features, num_classes, pool, device=like.device, dtype=like.dtype
        )

    def forward_features(self, x: Float[Tensor, "batch in_chans h w"]) -> Float[Tensor, "batch dim height width"]:
        """The map of the last stage, normalised."""
        for stage in range(self.num_stages):
            x = self.forward_stage(x, stage)
        return self._norm(x)

    def forward_intermediates(
        self,
        x: Float[Tensor, "batch in_chans h w"],
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps of several stages.

        Args:
            x: images.
            indices: stages from 0; a number selects that many last ones, None all.
            norm: whether the map of the last stage passes the norm after it.
            stop_early: whether to skip stages after the last one requested.
            output_fmt: NCHW.
            intermediates_only: whether to return the list alone, without the features.

        Raises:
            ValueError: another `output_fmt`.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"{type(self).__name__} gives maps as NCHW, not {output_fmt!r}")
        chosen, last = feature_take_indices(self.num_stages, _listed(indices))
        final = self.num_stages - 1
        maps = []
        for stage in range((last if stop_early else final) + 1):
            x = self.forward_stage(x, stage)
            if stage in chosen:
                maps.append(self._norm(x) if norm and stage == final else x)
        if intermediates_only:
            return maps
        return (self._norm(x) if stage == final else x), maps

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the stages after the last one requested, with them norm and classifier.

        Args:
            indices: as for `forward_intermediates`.
            prune_norm: remove the norm in any case.
            prune_head: remove the classifier in any case.
        """
        chosen, last = feature_take_indices(self.num_stages, _listed(indices))
        pruned = last + 1 < self.num_stages
        if pruned:
            self.cut_stages(last + 1)
            self.feature_info = self.feature_info[: last + 1]
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        if (pruned or prune_norm) and self.norm_parent is not None:
            self.norm_parent.norm = nn.Identity()
        if pruned or prune_head:
            self.reset_classifier(0, "")
        return chosen

    def forward_head(
        self, x: Float[Tensor, "batch dim height width"], pre_logits: bool = False
    ) -> Float[Tensor, "batch *out"]:
        """Pool and classify; `pre_logits` stops before the classifier."""
        x = F.dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.get_classifier()(x)

    def forward(self, x: Float[Tensor, "batch in_chans h w"]) -> Float[Tensor, "batch *out"]:
        """Logits of images."""
        return self.forward_head(self.forward_features(x))

    def _norm(self, x: Tensor) -> Tensor:
        return x if self.norm_parent is None else self.norm_parent.get_submodule("norm")(x)


def init_linear(model: nn.Module) -> None:
    """Initialise the linear layers: truncated normal with std 0.02, zero biases."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def build_variant(
    family: type[nn.Module],
    variant: str,
    pretrained: bool,
    checkpoint_filter_fn: Callable[..., dict[str, Tensor]],
    settings: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    out_indices: int | Sequence[int] = (0, 1, 2, 3),
) -> nn.Module:
    """Build a registered variant through timm.

    Args:
        family: class of the network.
        variant: name it is registered under.
        pretrained: whether to load the published weights.
        checkpoint_filter_fn: brings a published file to the network's names.
        settings: arguments of the variant.
        given: arguments of the user, which have precedence.
        out_indices: stages that `features_only` gives by default.
    """
    arguments = {**settings, **given}
    return build_model_with_cfg(
        family,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": arguments.pop("out_indices", out_indices), "feature_cls": "getter"},
        **arguments,
    )


def _listed(indices: int | Sequence[int] | None) -> int | list[int] | None:
    return list(indices) if isinstance(indices, Sequence) else indices
