"""VAR: visual attention redistribution. Attention that sinks into a few tokens goes back to the image.

Source: Kang et al., "See What You Are Told: Visual Attention Sink in Large Multimodal Models", ICLR 2025,
arXiv:2503.03321; seilk/VisAttnSink@98e62d6 (`src/logic/logic.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..call import Call
from ..edit import Edit, View, layer_indices
from ..sinks import sink_strength, sinks_of

__all__ = ["VAR", "redistributed"]

_IMAGE, _SINKS, _FREE = range(3)


@dataclass(frozen=True, kw_only=True)
class VAR:
    """Take a part of the attention of every sink and give it to the image tokens that are none.

    A token is a sink of a layer if, in the layer's input, one of the model's few sink dimensions is larger than
    `threshold` times the root mean square of all. Only rows after the image and only heads that look at the image
    beyond its sinks are edited. The sinks are found while the prompt is read; the heads, for every new token.

    Where the authors' code and paper differ, the options say which is meant. Their code keeps the sinks of the first
    image it ever saw; here every call finds its own. As in the code, a layer without a sink on the image is left
    alone, and the last layer is edited (the code means to leave it out, but does not; write layers="2:-1" for that).

    Attributes:
        transfer: part of a sink's attention that is given away, 0-1. The paper transfers 0.6; the code, which calls
            the part that is kept p = 0.6, transfers 0.4.
        min_image: least attention that a row pays to the image, 0-1; else it is left alone.
        min_free: least share of that attention that is not on sinks, 0-1. The code's rho is the largest share on
            sinks: min_free = 1 - rho. 0.5 for hallucination, 0.8 in general and 0.9 for vision-centric questions.
        threshold: a sink's strength (tau), above 0, at most the square root of the width; by default the model's own
            of the table, 20 for published models.
        dimensions: sink dimensions; by default those in the table for this model.
        layers: decoder layers, as in `layer_indices`; the authors leave out the first two.

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
            raise ValueError(f"VAR takes shares from 0 to 1 and a threshold above 0; got {', '.join(wrong)}")

    def begin(self, call: Call) -> Edit:
        """Look the sink dimensions up, and the sinks themselves in every layer's input."""
        layers = layer_indices(self.layers, call.layers)
        known = sinks_of(call.model, self.dimensions, self.threshold)
        columns: dict[int, Float[Tensor, "batch prompt 3"]] = {}
        found: dict[str, dict[int, list[int]]] = {"sinks": {}, "image_sinks": {}}

        def look(layer: int, hidden: Tensor) -> None:
            strength = sink_strength(hidden[:, : call.prompt], known.dimensions)
            sinks = (strength > known.threshold) & call.valid
            on_image = sinks & call.image
            acts = on_image.any(dim=-1, keepdim=True)  # no sink on the image: the sample is left alone
            found["sinks"][layer] = sinks.sum(dim=-1).tolist()
            found["image_sinks"][layer] = on_image.sum(dim=-1).tolist()
            if any(found["image_sinks"][layer]):
                parts = [call.image, sinks, call.image & ~sinks]
                columns[layer] = torch.stack([part & acts for part in parts], dim=-1).float()

        def edit(weights: Tensor, view: View) -> Tensor:
            if view.layer not in columns:
                return weights
            seen = columns[view.layer][:, None, view.start : view.start + view.stop]
            rows = None if view.rows is None else view.rows.squeeze(-1)
            return redistributed(
                weights, seen, transfer=self.transfer, min_image=self.min_image, min_free=self.min_free, rows=rows
            )[0]

        return Edit(layers=layers, rows="after_image", on_hidden=look, edit_weights=edit, details=found)


def redistributed(
    weights: Float[Tensor, "batch heads rows keys"],
    columns: Float[Tensor, "batch 1 prompt 3"],
    *,
    transfer: float,
    min_image: float,
    min_free: float,
    rows: Bool[Tensor, "batch 1 rows"] | None = None,
) -> tuple[Float[Tensor, "batch heads rows keys"], Bool[Tensor, "batch heads rows"]]:
    """Give a part of the attention of the sinks to the image columns that are none, in proportion to what they have.

    Rows still sum to 1.

    Args:
        weights: attention after the softmax.
        columns: 1 or 0 for each of the first `prompt` keys: of the image; a sink; of the image and no sink.
        transfer: part of a sink's attention that it gives.
        min_image: least attention to the image of a row that is edited.
        min_free: least share of it that is on no sink.
        rows: rows that may be edited, all by default.

    Returns:
        The new weights, and which rows were edited.

    Example:
        >>> columns = torch.tensor([[0.0, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 0]])[None, None]
        >>> weights = torch.tensor([0.4, 0.1, 0.3, 0.2])[None, None, None]
        >>> new, _ = redistributed(weights, columns, transfer=0.6, min_image=0.2, min_free=0.5)
        >>> new.round(decimals=3).tolist()[0][0][0]
        [0.16, 0.04, 0.6, 0.2]
    """
    prompt = columns.shape[2]
    old = weights[..., :prompt]
    mass = torch.matmul(old, columns)  # batch heads rows 3
    image, sinks, free = mass.unbind(dim=-1)
    # The authors add 1e-6 to the weight of every image column before they sum them.
    padded = image + 1e-6 * columns[..., _IMAGE].sum(dim=-1, keepdim=True)
    edited = (image >= min_image) & (image - free <= (1 - min_free) * padded)
    if rows is not None:
        edited = edited & rows
    gain = transfer * sinks / free.clamp(min=torch.finfo(free.dtype).tiny)
    factors = torch.stack([torch.full_like(gain, -transfer), gain], dim=-1) * (edited & (free > 0))[..., None]
    new = weights.clone()
    new[..., :prompt].addcmul_(old, torch.matmul(factors, columns[..., _SINKS:].transpose(-1, -2)))
    return new, edited
