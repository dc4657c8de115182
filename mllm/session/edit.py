"""What a method does to attention, and what it is told: the contract between the session and its methods.

A method is a frozen dataclass of options with a `name` and `begin(call) -> Edit`. `begin` runs once for every prompt
that is read; the `Edit` that it returns holds that call's state in its closures, so nothing outlives the call. A method
that needs the images or words themselves, not only the model's inputs, has `bind(prompts)`, which gives one that is
ready for these prompts; `LVLM` calls it.

In every decoder layer of its own, an edit may do four things, in this order:

1. `on_hidden(layer, hidden)`: look at the input of the layer while the prompt is read;
2. `edit_logits(layer, logits, view)`: change the scaled scores before the softmax;
3. `edit_weights(layer, weights, view)`: change the weights after it;
4. `scale_heads(layer, heads)`: multiply the output of whole heads.

Several edits of one kind run in the order in which their methods were named. Beside attention, `process` changes the
scores of the next token.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from PIL.Image import Image

    from .call import Call

_ROOM = 128  # new tokens at a time

__all__ = ["Edit", "Intervention", "Prompts", "View", "head_mask", "layer_indices"]


class View:
    """Which part of the prompt a layer sees at one moment, and which rows of it a method may edit.

    Keys may be fewer than the tokens so far (a sliding window drops the oldest) or more (a static cache has room
    left), so columns are named by their absolute place in the prompt. Layers with as many keys share one view.

    Attributes:
        start: absolute place of the first key.
        keys: how many there are; those beyond the prompt were generated since, or are empty.
        rows: (batch, 1, rows, 1), rows that may be edited; `None` when all of them may.
    """

    __slots__ = ("_long", "keys", "rows", "start")

    def __init__(
        self,
        start: int,
        keys: int,
        rows: Bool[Tensor, "batch 1 rows 1"] | None,
        long: dict[int, tuple[Tensor, Tensor]],
    ) -> None:
        self.start, self.keys, self.rows = start, keys, rows
        self._long = long  # values of the prompt with room for new tokens, by identity, for the whole call

    def of_prompt(self, values: Shaped[Tensor, "batch prompt"]) -> Shaped[Tensor, "batch 1 1 keys"]:
        """Per-column values of the prompt as this layer sees them; 0 beyond the prompt."""
        known = self._long.get(id(values))
        if known is None or known[1].shape[-1] < self.start + self.keys:
            room = self.start + self.keys - values.shape[1] + _ROOM
            known = values, functional.pad(values, (0, room))[:, None, None]  # keeps `values`, and so its identity
            self._long[id(values)] = known
        return known[1].narrow(3, self.start, self.keys)

    def where_edited(self, factor: Tensor) -> Tensor:
        """`factor`, but 0 in rows that may not be edited."""
        return factor if self.rows is None else factor * self.rows


@dataclass(kw_only=True)
class Edit:
    """What one method does during one call; what it leaves out, it does not do.

    Attributes:
        layers: indices of the decoder layers that it concerns.
        rows: `"last"`: the query that foretells the next token; `"after_image"`: also the queries of the prompt that
            follow the last image.
        on_hidden: takes a layer's index and its input (batch, tokens, dim), while the prompt is read.
        edit_logits: takes a layer's index, its scaled scores (batch, heads, rows, keys) and a `View`, gives new ones
            and leaves the old as they are. Hidden keys are masked afterwards: what it does to them has no effect.
        edit_weights: likewise with the weights, whose rows sum to 1.
        scale_heads: takes a layer's index and the heads' output at the last token of the prompt (batch, heads,
            head_dim), gives one factor for each head, (batch, heads), or `None` for no change. It is asked once, while
            the prompt is read; the factors hold for all its rows and for the rest of the call.
        process: takes the tokens so far (batch, tokens) and scores of the next one (batch, vocabulary), gives new
            scores.
        paired: `scale_heads` compares with a run without the image, which the session keeps in step: it is then given
            a third argument, the heads of that run.
        scales_pair: the factors hold for that run too.
        details: what the method wants to tell about the call.
    """

    layers: Collection[int] = ()
    rows: Literal["last", "after_image"] = "last"
    on_hidden: Callable[[int, Tensor], None] | None = None
    edit_logits: Callable[[int, Tensor, View], Tensor] | None = None
    edit_weights: Callable[[int, Tensor, View], Tensor] | None = None
    scale_heads: Callable[..., Float[Tensor, "batch heads"] | None] | None = None
    process: Callable[[Int[Tensor, "batch tokens"], Float[Tensor, "batch words"]], Tensor] | None = None
    paired: bool = False
    scales_pair: bool = True
    details: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Intervention(Protocol):
    """A method: frozen options with a name."""

    @property
    def name(self) -> str:
        """The name that the table of methods has for it."""
        ...

    def begin(self, call: Call) -> Edit:
        """Make ready for one call.

        Raises:
            ValueError: the method cannot work on this model or these inputs.
        """
        ...


@runtime_checkable
class Prompts(Protocol):
    """What was asked, before it became the model's inputs.

    Attributes:
        questions: one for each sample.
        images: of each sample, as PIL images.
    """

    questions: Sequence[str]
    images: Sequence[Sequence[Image]]

    def first_tokens(self, word: str) -> list[int]:
        """Tokens with which the usual spellings of a word begin: with and without a space, upper and lower case."""
        ...

    def inputs_with(self, images: Sequence[Sequence[Image]]) -> dict[str, Any]:
        """The model's inputs for the same questions about other images."""
        ...


def layer_indices(layers: str | Sequence[int], count: int) -> list[int]:
    """Indices of decoder layers from a description.

    Args:
        layers: `"all"`; a Python slice such as `"2:"`, `"2:-1"` or `"-14:"`; several of these and single indices
            joined by commas, `"1,-14:"`; or the indices themselves. Negative ones count from the end.
        count: how many layers the model has.

    Raises:
        ValueError: the description cannot be read, or names a layer that the model does not have, or none.

    Example:
        >>> layer_indices("1,-3:", 6)
        [1, 3, 4, 5]
    """
    chosen: set[int] = set()
    parts = layers.split(",") if isinstance(layers, str) else layers
    for part in parts:
        if part == "all":
            chosen.update(range(count))
        elif isinstance(part, str) and ":" in part:
            try:
                bounds = [int(bound) if bound.strip() else None for bound in part.split(":")]
                chosen.update(range(count)[slice(*bounds)])
            except (ValueError, TypeError) as error:
                raise ValueError(f"cannot read the layers {layers!r}; write all, 2:, 2:-1, -14: or 0,3,5") from error
        else:
            try:
                index = int(part)
            except ValueError as error:
                raise ValueError(f"cannot read the layers {layers!r}; write all, 2:, 2:-1, -14: or 0,3,5") from error
            if not -count <= index < count:
                raise ValueError(
                    f"layer {index} of {layers!r} does not exist; the model has {count} layers, 0 to {count - 1}"
                )
            chosen.add(index % count)
    if not chosen:
        raise ValueError(f"the layers {layers!r} name none of the model's {count} layers, 0 to {count - 1}")
    return sorted(chosen)


def head_mask(heads: str | Sequence[int], count: int, device: torch.device) -> Bool[Tensor, " heads"]:
    """Which heads are meant, as a mask; `heads` reads as in `layer_indices`."""
    mask = torch.zeros(count, dtype=torch.bool, device=device)
    mask[layer_indices(heads, count)] = True
    return mask
