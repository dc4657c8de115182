"""The contract between a session and its interventions.

An intervention is a frozen dataclass of options with a `name` and `begin(call) -> Edit`. The session calls `begin` once
for every prompt; the returned `Edit` keeps the state of that call in its closures, so nothing outlives the call. An
intervention that needs the images or the text itself, and not only the model's inputs, also has `bind(prompts)`, which
returns an intervention for these prompts; `LVLM` calls it.

In each selected decoder layer an edit can do four things, in this order:

1. `on_hidden(layer, hidden)`: inspect the input of the layer during the prefill;
2. `edit_logits(layer, logits, view)`: change the scaled attention scores before the softmax;
3. `edit_weights(layer, weights, view)`: change the attention weights after it;
4. `scale_heads(layer, heads)`: multiply the outputs of whole heads.

Edits of one kind run in the order of their interventions. Outside attention, `process` changes the logits of the next
token.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["Call", "Edit", "Intervention", "Prompts", "View"]

_SPARE_COLUMNS = 128  # for generated tokens, added at a time


@runtime_checkable
class Call(Protocol):
    """What an intervention may know of the running call: one prompt and the tokens generated after it.

    Attributes:
        model: the whole model.
        inputs: the model's inputs for the samples, before beam search repeats them.
        layers: number of decoder layers.
        samples: number of samples.
        beams: rows of the batch per sample.
        prompt: length of the prompt in tokens, with padding.
        image: (batch, prompt), positions that hold image tokens.
        valid: (batch, prompt), positions that are not padding.
        image_end: (batch,), position after the last image token; without an image, the length of the prompt.
        reading: whether the prefill is running.
        total: number of tokens so far, including those of the current forward pass.
        at_end: functions that are called when the call is over.
    """

    model: PreTrainedModel
    inputs: Mapping[str, Any]
    layers: int
    samples: int
    beams: int
    prompt: int
    image: Bool[Tensor, "batch prompt"]
    valid: Bool[Tensor, "batch prompt"]
    image_end: Int[Tensor, " batch"]
    reading: bool
    total: int
    at_end: list[Callable[[], None]]

    @property
    def text_config(self) -> PreTrainedConfig:
        """Configuration of the language model."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the prompt's masks."""
        ...

    def expand(self, values: Tensor) -> Tensor:
        """Per-sample values repeated for all rows of the batch."""
        ...

    def given(self, name: str, intervention: str) -> Any:
        """An input of the model that an intervention requires.

        Raises:
            ValueError: the call has no such input.
        """
        ...


class View:
    """The keys of a layer in the current pass, and the query rows that may be edited.

    There may be fewer keys than tokens so far (a sliding window drops the oldest) or more (a static cache has empty
    slots), so columns are identified by their absolute position. Layers with the same number of keys share one view.

    Attributes:
        start: absolute position of the first key.
        keys: number of keys; those beyond the prompt are generated tokens or empty slots.
        rows: (batch, 1, rows, 1), rows that may be edited; `None` when all may.
    """

    __slots__ = ("_padded", "keys", "rows", "start")

    def __init__(
        self,
        start: int,
        keys: int,
        rows: Bool[Tensor, "batch 1 rows 1"] | None,
        padded: dict[int, tuple[Tensor, Tensor]],
    ) -> None:
        self.start, self.keys, self.rows = start, keys, rows
        self._padded = padded  # id of per-column values -> them, and them with room for new tokens; for the whole call

    def of_prompt(self, values: Shaped[Tensor, "batch prompt"]) -> Shaped[Tensor, "batch 1 1 keys"]:
        """Per-column values of the prompt at the keys of this layer; 0 beyond the prompt."""
        known = self._padded.get(id(values))
        if known is None or known[1].shape[-1] < self.start + self.keys:
            room = self.start + self.keys - values.shape[1] + _SPARE_COLUMNS
            known = values, functional.pad(values, (0, room))[:, None, None]  # keeps `values`, and so its identity
            self._padded[id(values)] = known
        return known[1].narrow(3, self.start, self.keys)

    def where_edited(self, factor: Tensor) -> Tensor:
        """`factor`, set to 0 in rows that may not be edited."""
        return factor if self.rows is None else factor * self.rows


@dataclass(kw_only=True)
class Edit:
    """What one intervention does during one call; whatever is omitted is not done.

    Attributes:
        layers: indices of the decoder layers that are edited.
        rows: `"last"`: the query that predicts the next token; `"after_image"`: also the queries of the prompt that
            follow the last image token.
        on_hidden: receives a layer's index and its input (batch, tokens, dim), during the prefill.
        edit_logits: receives a layer's index, its scaled scores (batch, heads, rows, keys) and a `View`; returns new
            scores and leaves the given ones unchanged. Masked keys are masked again afterwards.
        edit_weights: the same with the weights, whose rows sum to 1.
        scale_heads: receives a layer's index and the heads' output at the last token of the prompt (batch, heads,
            head_dim); returns one factor per head, (batch, heads), or `None` for no change. It is called once, during
            the prefill; the factors apply to all its rows and to the rest of the call.
        process: receives the tokens so far (batch, tokens) and the logits of the next one (batch, vocabulary); returns
            new logits.
        paired: `scale_heads` compares with an image-free pass that the session runs in lockstep; its third argument is
            the heads' output of that pass.
        scales_pair: the factors apply to the image-free pass too.
        details: what the intervention reports about the call.
    """

    layers: Collection[int] = ()
    rows: Literal["last", "after_image"] = "last"
    on_hidden: Callable[[int, Tensor], None] | None = None
    edit_logits: Callable[[int, Tensor, View], Tensor] | None = None
    edit_weights: Callable[[int, Tensor, View], Tensor] | None = None
    scale_heads: Callable[..., Float[Tensor, "batch heads"] | None] | None = None
    process: Callable[[Int[Tensor, "batch tokens"], Float[Tensor, "batch vocabulary"]], Tensor] | None = None
    paired: bool = False
    scales_pair: bool = True
    details: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Intervention(Protocol):
    """Frozen options with a name."""

    @property
    def name(self) -> str:
        """Its key in `regard.mllm.INTERVENTIONS`."""
        ...

    def begin(self, call: Call) -> Edit:
        """Prepare for one call.

        Raises:
            ValueError: the intervention does not support this model or these inputs.
        """
        ...


@runtime_checkable
class Prompts(Protocol):
    """Questions and images before they became the model's inputs.

    Attributes:
        questions: one per sample.
        images: of each sample, as PIL images.
    """

    questions: Sequence[str]
    images: Sequence[Sequence[Image]]

    def first_tokens(self, word: str) -> list[int]:
        """First tokens of the usual spellings of a word: with and without a space, upper and lower case."""
        ...

    def inputs_with(self, images: Sequence[Sequence[Image]]) -> dict[str, Any]:
        """The model's inputs for the same questions about other images."""
        ...
