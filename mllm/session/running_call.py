"""One call: a prompt, and the tokens generated after it.

All state of a session lives here and is dropped with the next prompt, so nothing carries over from one image to
another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from .activity import ActivityRecord
from .contract import Edit, Intervention, View
from .lockstep import Lockstep

__all__ = ["RunningCall"]


class RunningCall:
    """The state of a call; interventions see it as `regard.mllm.session.contract.Call`, which lists its attributes.

    Args:
        model: the whole model.
        inputs: the model's inputs for the samples, before beam search repeats them.
        image: (samples, prompt), positions that hold image tokens.
        valid: (samples, prompt), positions that are not padding.
        batch: rows that the model runs: samples times beams.
        layers: number of decoder layers.
        interventions: in the order of their edits.
        watch: keep, for every token, the attention of the last row to the prompt.

    Attributes:
        paused: whether forward passes of the model are left alone.
        record: what the edits did.
        details: intervention -> what it reports about this call.
        lockstep: the image-free pass, if an edit is paired.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        inputs: Mapping[str, Any],
        image: Bool[Tensor, "samples prompt"],
        valid: Bool[Tensor, "samples prompt"],
        *,
        batch: int,
        layers: int,
        interventions: Sequence[Intervention],
        watch: bool = False,
    ) -> None:
        self.model, self.inputs, self.layers, self.watch = model, inputs, layers, watch
        self.samples, self.prompt = image.shape
        self.beams = batch // self.samples
        self.image, self.valid = self.expand(image), self.expand(valid)
        end = (self.image * torch.arange(1, self.prompt + 1, device=image.device)).amax(dim=-1)
        self.image_end = torch.where(end > 0, end, self.prompt)
        self.reading, self.total, self.length = True, 0, 0
        self.paused = False
        self.lockstep: Lockstep | None = None
        self.at_end: list[Callable[[], None]] = []
        self.record = ActivityRecord([one.name for one in interventions], self.samples, layers, self.image)
        self._watched: list[dict[int, Tensor]] = []  # of each pass, layer -> attention to the prompt
        self._first_row = {"last": self.prompt - 1, "after_image": int(self.image_end.min())}
        self._padded: dict[int, tuple[Tensor, Tensor]] = {}
        self._views: dict[tuple[str, int, int], View] = {}
        self.edits: list[Edit] = [one.begin(self) for one in interventions]
        self.details = {one.name: edit.details for one, edit in zip(interventions, self.edits, strict=True)}

    @property
    def text_config(self) -> PreTrainedConfig:
        """Configuration of the language model."""
        return self.model.config.get_text_config(decoder=True)

    @property
    def device(self) -> torch.device:
        """Device of the prompt's masks."""
        return self.image.device

    @property
    def stream(self) -> Literal["main", "image_free", "none"]:
        """The pass that is running: the prompt's own, the one without the image, or one that is left alone."""
        if self.paused:
            return "none"
        return "image_free" if self.lockstep is not None and self.lockstep.running else "main"

    def expand(self, values: Tensor) -> Tensor:
        """Per-sample values repeated for all rows of the batch."""
        return values if self.beams == 1 else values.repeat_interleave(self.beams, dim=0)

    def given(self, name: str, intervention: str) -> Any:
        """An input of the model that an intervention requires.

        Raises:
            ValueError: the call has no such input.
        """
        value = self.inputs.get(name)
        if value is None:
            raise ValueError(
                f"{intervention} needs the input {name!r}, but this call has only {', '.join(sorted(self.inputs))}; "
                "give an image with the prompt, and run session.generate or session.forward instead of the model's own"
            )
        return value

    def advance(self, total: int, length: int) -> None:
        """Begin a forward pass of `length` tokens, after which there are `total`."""
        self.total, self.length = total, length
        if not self.reading:
            self.record.later_rows += length
        self._views.clear()
        if self.watch:
            self._watched.append({})

    def row_count(self, kind: str) -> int:
        """Number of last rows of this pass that may be edited, from the first row that any sample edits."""
        return min(self.length, max(0, self.total - self._first_row[kind]))

    def view(self, kind: str, rows: int, keys: int) -> View:
        """The view of a layer with `keys` keys for edits of the given kind in the last `rows` rows."""
        view = self._views.get((kind, rows, keys))
        if view is None:
            view = View(max(0, self.total - keys), keys, self._row_mask(kind, rows), self._padded)
            self._views[kind, rows, keys] = view
        return view

    def process(self, tokens: Tensor, scores: Tensor) -> Tensor:
        """Logits of the next token after the interventions that change them, in order."""
        for index, edit in enumerate(self.edits):
            if edit.process is not None:
                before = scores
                scores = edit.process(tokens, scores)
                self.record.note_process(index, before, scores)
        return scores

    def end(self) -> None:
        """Release everything; closures of the edits hold the call, and it holds them."""
        if self.lockstep is not None:
            self.lockstep.abandon()
        for close in self.at_end:
            close()
        self.edits, self.at_end, self._watched, self.lockstep = [], [], [], None

    def note_attention(self, layer: int, weights: Float[Tensor, "batch heads rows keys"]) -> None:
        """Keep the attention of the newest rows to the prompt, mean of the heads."""
        rows, keys = weights.shape[2:]
        new, start = self.row_count("last"), max(0, self.total - keys)
        stop = min(self.prompt - start, keys)
        to_prompt = weights.new_zeros(weights.shape[0], new, self.prompt)
        to_prompt[..., start : start + stop] = weights[:, :, rows - new :, :stop].mean(dim=1)
        self._watched[-1][layer] = to_prompt

    def attention(self) -> Float[Tensor, "batch steps layers prompt"] | None:
        """Attention to the prompt of the row that predicted each new token, mean of the heads; only with `watch`."""
        steps = [torch.stack([step[layer] for layer in range(self.layers)], dim=2) for step in self._watched if step]
        return torch.cat(steps, dim=1) if steps else None

    def _row_mask(self, kind: str, rows: int) -> Tensor | None:
        first = self.total - rows
        if first >= self.prompt:
            return None
        positions = torch.arange(first, self.total, device=self.device)
        begin = self.image_end if kind == "after_image" else torch.full_like(self.image_end, self.prompt - 1)
        mask = positions >= begin[:, None]  # batch rows
        return mask[:, None, :, None]
