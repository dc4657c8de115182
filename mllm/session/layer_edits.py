"""The edits of all interventions in the attention of one decoder layer, for the running call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .contract import Edit, View
from .running_call import RunningCall

__all__ = ["LayerEdits"]


class LayerEdits:
    """What the attention of one decoder layer does for the running call.

    Args:
        layer: index of the layer.
    """

    def __init__(self, layer: int) -> None:
        self.layer = layer
        self._call: RunningCall | None = None
        self._kind: str | None = None
        self._logits: list[tuple[int, str, Callable[[int, Tensor, View], Tensor]]] = []
        self._weights: list[tuple[int, str, Callable[[int, Tensor, View], Tensor]]] = []
        self._scales: list[tuple[int, Edit]] = []
        self._factors: Tensor | None = None

    def start(self, call: RunningCall) -> None:
        """Collect the edits of a call that concern this layer."""
        self._call = call
        mine = [(index, edit) for index, edit in enumerate(call.edits) if self.layer in edit.layers]
        self._logits = [(i, edit.rows, edit.edit_logits) for i, edit in mine if edit.edit_logits]
        self._weights = [(i, edit.rows, edit.edit_weights) for i, edit in mine if edit.edit_weights]
        self._scales = [(i, edit) for i, edit in mine if edit.scale_heads]
        kinds = {rows for _, rows, _ in (*self._logits, *self._weights)}
        if call.watch:
            kinds.add("last")
        self._kind = "after_image" if "after_image" in kinds else "last" if kinds else None

    def stop(self) -> None:
        """Drop them: attention is unchanged from now on."""
        self._call = self._kind = self._factors = None
        self._logits, self._weights, self._scales = [], [], []

    def rows(self, length: int) -> int:
        """Number of the last `length` rows that must be recomputed."""
        if self._kind is None or self._call is None or self._call.stream != "main":
            return 0
        return self._call.row_count(self._kind)

    def edit_logits(self, logits: Tensor, masked: Tensor | None) -> Tensor:
        """Attention scores (batch, heads, rows, keys) after the edits of scores; `masked` keys stay masked."""
        call = self._call
        assert call is not None
        for index, kind, edit in self._logits:
            view = call.view(kind, logits.shape[2], logits.shape[3])
            edited = edit(self.layer, logits, view)
            if masked is not None:
                edited = edited.masked_fill(masked, torch.finfo(logits.dtype).min)
            call.record.note_edit(index, self.layer, view.start, logits, edited, logits=True)
            logits = edited
        return logits

    def edit_weights(self, weights: Tensor) -> Tensor:
        """Attention weights (batch, heads, rows, keys) after the edits of weights."""
        call = self._call
        assert call is not None
        for index, kind, edit in self._weights:
            view = call.view(kind, weights.shape[2], weights.shape[3])
            edited = edit(self.layer, weights, view)
            if edited is not weights:
                call.record.note_edit(index, self.layer, view.start, weights, edited, logits=False)
                weights = edited
        if call.watch:
            call.note_attention(self.layer, weights)
        return weights

    def scale(self, output: Tensor) -> Tensor:
        """The heads' outputs (batch, rows, heads, head_dim) times the factors that were chosen during the prefill."""
        call = self._call
        if call is None or not self._scales or call.stream == "none":
            return output
        factors = self._factors
        if call.stream == "image_free":
            if call.lockstep is None or not any(edit.paired for _, edit in self._scales):
                return output
            factors = call.lockstep.hand_over(self.layer, output[:, -1])
        elif call.reading:
            factors = self._factors = self._choose_all(output, call)
        return output if factors is None else output * factors[:, None, :, None]

    def _choose_all(self, output: Tensor, call: RunningCall) -> Tensor | None:
        """Product of the factors of all interventions, in the dtype of the output."""
        factors = without_image = None
        rows = (call.valid.sum(dim=-1) + call.total - call.prompt).clamp(max=call.total)
        for index, edit in self._scales:
            own = self._choose(output, edit)
            if own is None:
                continue
            call.record.note_scale(index, self.layer, (own != 1).sum(dim=-1), rows)
            own = own.to(output.dtype)
            factors = own if factors is None else factors * own
            if edit.scales_pair:
                without_image = own if without_image is None else without_image * own
        if any(edit.paired for _, edit in self._scales):
            assert call.lockstep is not None
            call.lockstep.set_factors(without_image)
        return factors

    def _choose(self, output: Tensor, edit: Edit) -> Tensor | None:
        """The factors of one intervention during the prefill."""
        call = self._call
        assert call is not None
        assert edit.scale_heads is not None
        heads = output[:, call.prompt - call.total - 1 + output.shape[1]]  # of the last row of the prompt
        if not edit.paired:
            return edit.scale_heads(self.layer, heads)
        assert call.lockstep is not None
        return edit.scale_heads(self.layer, heads, call.expand(call.lockstep.heads(self.layer)))
