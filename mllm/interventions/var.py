"""VAR: visual attention redistribution, which moves attention from sinks to the other image tokens.

Source: Kang et al., "See What You Are Told: Visual Attention Sink in Large Multimodal Models", ICLR 2025,
arXiv:2503.03321; seilk/VisAttnSink@98e62d6 (`src/logic/logic.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from ..session.contract import Call, Edit, View
from ..session.layer_selection import layer_indices
from ..session.sinks import sink_strength, sinks_of

__all__ = ["VAR", "SinkColumns", "redistributed"]

_ROOM = 128  # columns for generated tokens, added at a time
_TINY = 1e-30  # keeps a quotient finite


@dataclass(frozen=True, kw_only=True)
class VAR:
    """Move the fraction `transfer` of the attention to sinks to the image tokens that are not sinks.

    A token is a sink S of a layer if max_d |x_d| / RMS(x) > threshold over the model's sink dimensions d, with x its
    input to the layer. With attention weights a, image columns V and free = V without S, a row of a head is edited if
    sum_V a >= min_image and sum_free a >= min_free * sum_V a; it becomes

        a_j <- (1 - transfer) * a_j                                    for j in S
        a_j <- a_j + transfer * sum_S a * a_j / sum_free a             for j in free

    and still sums to 1. Only rows after the image are edited. Sinks are found in the prefill, heads are selected for
    every new token. Cost: attention of the edited rows is computed explicitly in layers with a sink on the image.

    Differences from the authors' code: it keeps the sinks of the first image it ever saw; here every call finds its
    own. As in the code, a layer without a sink on the image is not edited, and the last layer is edited (the code
    intends to exclude it, but does not; use layers="2:-1" for that).

    Attributes:
        transfer: fraction of a sink's attention that is moved, 0-1. 0.6 in the paper; in the code p = 0.6 is the
            fraction that is kept, so it moves 0.4.
        min_image: minimum attention of a row to the image, 0-1.
        min_free: minimum fraction of that attention that is not on sinks, 0-1. The code's rho is the maximum fraction
            on sinks: min_free = 1 - rho. 0.5 for hallucination, 0.8 in general, 0.9 for vision-centric questions.
        threshold: minimum strength of a sink (tau), above 0, at most the square root of the width; by default that of
            the table `SINKS`, 20 for published models.
        dimensions: sink dimensions; by default those of the table `SINKS`.
        layers: decoder layers, see `layer_indices`; the authors exclude the first two.

    Raises:
        ValueError: a value is out of its range; or, when a call begins, the model is not in the table.

    Example:
        >>> VAR(transfer=0.4).min_free
        0.5
    """

    name: ClassVar[str] = "var"
    transfer: float = 0.6
    min_image: float = 0.2
    min_free: float = 0.5
    threshold: float | None = None
    dimensions: Sequence[int] | None = None
    layers: str | Sequence[int] = "2:"

    def __post_init__(self) -> None:
        shares = {"transfer": self.transfer, "min_image": self.min_image, "min_free": self.min_free}
        wrong = [f"{name}={value}" for name, value in shares.items() if not 0 <= value <= 1]
        if self.threshold is not None and self.threshold <= 0:
            wrong.append(f"threshold={self.threshold}")
        if wrong:
            raise ValueError(f"VAR needs shares from 0 to 1 and a threshold above 0; got {', '.join(wrong)}")

    def begin(self, call: Call) -> Edit:
        """Look up the sink dimensions, and find the sinks in every layer's input."""
        layers = layer_indices(self.layers, call.layers)
        known = sinks_of(call.model, self.dimensions, self.threshold)
        columns: dict[int, SinkColumns] = {}
        found: dict[str, dict[int, list[int]]] = {"sinks": {}, "image_sinks": {}}

        def find_sinks(layer: int, hidden: Tensor) -> None:
            strength = sink_strength(hidden[:, : call.prompt], known.dimensions)
            sinks = (strength > known.threshold) & call.valid
            on_image = sinks & call.image
            acts = on_image.any(dim=-1, keepdim=True)  # without a sink on the image the sample is not edited
            found["sinks"][layer] = sinks.sum(dim=-1).tolist()
            found["image_sinks"][layer] = on_image.sum(dim=-1).tolist()
            if any(found["image_sinks"][layer]):
                columns[layer] = SinkColumns.of(
                    call.image & acts,
                    sinks & acts,
                    transfer=self.transfer,
                    min_image=self.min_image,
                    min_free=self.min_free,
                )

        def edit(layer: int, weights: Tensor, view: View) -> Tensor:
            if layer not in columns:
                return weights
            short = view.start + view.keys - columns[layer].lost.shape[-1]
            if short > 0:
                columns[layer] = columns[layer].longer(short + _ROOM)
            rows = None if view.rows is None else view.rows.squeeze(-1)
            return redistributed(weights, columns[layer].seen(view.start, view.keys), rows)[0]

        return Edit(layers=layers, rows="after_image", on_hidden=find_sinks, edit_weights=edit, details=found)


class SinkColumns(NamedTuple):
    """What `redistributed` must know of every key: sums and shares that it forms of a row of weights.

    Attributes:
        sums: (batch, keys, 5). A row of weights times these: its attention to the image, negative; how far the image's
            sinks exceed their share; its attention to free image columns, negative; to sinks; to free ones.
        lost: (batch, 1, keys), the part that a sink gives away, negative.
        gained: (batch, 1, keys), the part of what is given away that comes to free image columns.
        limits: (batch, 1, 5), of the sums; a row is edited where all are at most that.
    """

    sums: Float[Tensor, "batch keys 5"]
    lost: Float[Tensor, "batch 1 keys"]
    gained: Float[Tensor, "batch 1 keys"]
    limits: Float[Tensor, "batch 1 5"]

    @classmethod
    def of(
        cls,
        image: Bool[Tensor, "batch keys"],
        sinks: Bool[Tensor, "batch keys"],
        *,
        transfer: float,
        min_image: float,
        min_free: float,
    ) -> SinkColumns:
        """The columns of prompts, from which of their tokens are the image's and which are sinks; see `VAR`."""
        imaged, sunk, free = image.float(), sinks.float(), (image & ~sinks).float()
        sums = torch.stack([-imaged, min_free * imaged - free, -free, sunk, free + _TINY], dim=-1)
        limits = torch.full((len(image), 5), torch.inf, device=image.device)
        limits[:, 0] = -min_image
        limits[:, 1] = (1 - min_free) * 1e-6 * imaged.sum(dim=-1)  # the authors add 1e-6 to every image weight
        limits[:, 2] = -_TINY
        return cls(sums, -transfer * sunk[:, None], transfer * free[:, None], limits[:, None])

    def longer(self, room: int) -> SinkColumns:
        """The same with `room` keys behind, which are neither image nor sink."""
        sums = functional.pad(self.sums, (0, 0, 0, room))
        return SinkColumns(
            sums, functional.pad(self.lost, (0, room)), functional.pad(self.gained, (0, room)), self.limits
        )

    def seen(self, start: int, keys: int) -> SinkColumns:
        """As a layer sees them that has `keys` keys, of which the first is token `start`."""
        return SinkColumns(
            self.sums.narrow(1, start, keys),
            self.lost.narrow(2, start, keys),
            self.gained.narrow(2, start, keys),
            self.limits,
        )


def redistributed(
    weights: Float[Tensor, "batch heads rows keys"],
    columns: SinkColumns,
    rows: Bool[Tensor, "batch 1 rows"] | None = None,
) -> tuple[Float[Tensor, "batch heads rows keys"], Bool[Tensor, "batch heads rows"]]:
    """Move attention from sinks to the other image columns, in proportion to their attention; see `VAR`.

    Rows still sum to 1.

    Args:
        weights: attention after the softmax.
        columns: of the image and of the sinks, with the options of `VAR`.
        rows: rows that may be edited, all by default.

    Returns:
        The new weights, and which rows were edited.

    Example:
        >>> image, sinks = torch.tensor([[False, True, True, False]]), torch.tensor([[True, True, False, False]])
        >>> columns = SinkColumns.of(image, sinks, transfer=0.6, min_image=0.2, min_free=0.5)
        >>> weights = torch.tensor([0.4, 0.1, 0.3, 0.2])[None, None, None]
        >>> redistributed(weights, columns)[0].flatten()
        tensor([0.1600, 0.0400, 0.6000, 0.2000])
    """
    batch, heads, count, keys = weights.shape
    flat = weights.reshape(batch, heads * count, keys)
    sums = torch.bmm(flat, columns.sums)  # batch heads*count 5
    edited = (sums <= columns.limits).all(dim=-1, keepdim=True)
    if rows is not None:
        edited = edited & rows.expand(-1, heads, -1).reshape(batch, -1, 1)
    change = torch.addcmul(columns.lost, sums.narrow(2, 3, 1) / sums.narrow(2, 4, 1), columns.gained)
    new = torch.addcmul(flat, flat, change * edited)
    return new.view(weights.shape), edited.view(batch, heads, count)
