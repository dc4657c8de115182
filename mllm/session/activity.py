"""Statistics of what interventions did: rows and heads edited, attention moved, largest change of a score.

Counting must not cost more than the edits themselves: the tensors before and after each edit are kept, and are counted
together once they hold `MAX_PENDING` numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Activity", "ActivityRecord"]

#: Numbers that may wait to be counted, 8 MB in float32.
MAX_PENDING = 1 << 21


@dataclass(frozen=True, kw_only=True)
class Activity:
    """What one intervention did during one call, per sample and decoder layer.

    Attributes:
        intervention: its name.
        rows: number of query rows whose attention it changed, (samples, layers).
        heads: number of pairs of row and head that it changed.
        moved: attention mass that these pairs redistributed, at most 1 each.
        to_image: change of the attention mass on image tokens.
        change: largest change of an attention score before the softmax.
        token_change: largest change of a logit of the next token, for interventions that edit logits, (samples).
    """

    intervention: str
    rows: Int[Tensor, "samples layers"]
    heads: Int[Tensor, "samples layers"]
    moved: Float[Tensor, "samples layers"]
    to_image: Float[Tensor, "samples layers"]
    change: Float[Tensor, "samples layers"]
    token_change: Float[Tensor, " samples"]

    @property
    def active(self) -> bool:
        """Whether it changed anything."""
        return bool(self.heads.any() or self.token_change.any())

    def __str__(self) -> str:
        layers = [str(layer) for layer in range(self.heads.shape[1]) if self.heads[:, layer].any()]
        parts = []
        if layers:
            parts.append(
                f"{int(self.heads.sum())} heads of {int(self.rows.sum())} rows in layers {', '.join(layers)}; "
                f"attention moved {self.moved.sum().item():.3g}, to the image {self.to_image.sum().item():+.3g}"
            )
        if self.token_change.any():
            parts.append(f"logits of tokens changed by up to {self.token_change.max().item():.3g}")
        return f"{self.intervention}: {'; '.join(parts) or 'inactive'}"


class _Entry(NamedTuple):
    intervention: int
    layer: int
    start: int
    before: Tensor
    after: Tensor
    logits: bool


class ActivityRecord:
    """Collects the statistics of one call.

    Args:
        interventions: their names, in order.
        samples: number of samples.
        layers: number of decoder layers.
        image: (batch, prompt), positions of image tokens; `batch` is a multiple of `samples` under beam search.

    Attributes:
        later_rows: query rows after the prefill.
    """

    def __init__(self, interventions: Sequence[str], samples: int, layers: int, image: Tensor) -> None:
        self.interventions = list(interventions)
        self._samples = samples
        self._image = image
        shape = (len(self.interventions), samples, layers)
        self._rows = torch.zeros(shape, dtype=torch.long, device=image.device)
        self._heads = torch.zeros_like(self._rows)
        self._moved, self._to_image, self._change = (torch.zeros(shape, device=image.device) for _ in range(3))
        self._token_change = torch.zeros(shape[:2], device=image.device)
        self._scaled: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self.later_rows = 0
        self._pending: list[_Entry] = []
        self._numbers = 0

    def note_edit(
        self, intervention: int, layer: int, start: int, before: Tensor, after: Tensor, *, logits: bool
    ) -> None:
        """Record an edit: scores (`logits`) or weights, (batch, heads, rows, keys), before and after it.

        The first of the keys has the absolute position `start`.
        """
        self._pending.append(_Entry(intervention, layer, start, before, after, logits))
        self._numbers += 2 * before.numel()
        if self._numbers > MAX_PENDING:
            self.count()

    def note_scale(
        self, intervention: int, layer: int, heads: Int[Tensor, " batch"], rows: Int[Tensor, " batch"]
    ) -> None:
        """Record how many heads of each sample are scaled, in how many rows of the prompt and in all later rows."""
        self._scaled[intervention, layer] = heads, rows

    def note_process(self, intervention: int, before: Tensor, after: Tensor) -> None:
        """Record a change of the logits of the next token, (batch, vocabulary)."""
        both = torch.isfinite(before) & torch.isfinite(after)
        change = torch.where(both, after - before, 0).abs().amax(dim=-1)
        ruled_out = (torch.isfinite(before) & ~torch.isfinite(after)).any(dim=-1)
        change = torch.where(ruled_out & (change == 0), torch.inf, change).float()
        self._token_change[intervention] = torch.maximum(
            self._token_change[intervention], self._by_sample(change).amax(dim=1)
        )

    def count(self) -> None:
        """Count the pending edits."""
        groups: dict[tuple[object, ...], list[_Entry]] = defaultdict(list)
        for entry in self._pending:
            batch, heads, rows, keys = entry.before.shape
            exact_keys = keys if rows > 1 else 0  # single rows of different length are counted together
            groups[entry.intervention, entry.logits, entry.start, batch, heads, rows, exact_keys].append(entry)
        self._pending, self._numbers = [], 0
        for entries in groups.values():
            self._count_group(entries)

    def report(self) -> list[Activity]:
        """Statistics of every intervention so far, on the CPU."""
        self.count()
        rows, heads = self._rows.clone(), self._heads.clone()
        for (intervention, layer), (scaled, prompt_rows) in self._scaled.items():
            times = prompt_rows + self.later_rows
            touched = (scaled > 0) * times
            rows[intervention, :, layer] += self._by_sample(touched).sum(dim=1)
            heads[intervention, :, layer] += self._by_sample(scaled * times).sum(dim=1)
        tables = [table.cpu() for table in (rows, heads, self._moved, self._to_image, self._change, self._token_change)]
        names = ("rows", "heads", "moved", "to_image", "change", "token_change")
        return [
            Activity(intervention=name, **{key: table[index] for key, table in zip(names, tables, strict=True)})
            for index, name in enumerate(self.interventions)
        ]

    def _count_group(self, entries: list[_Entry]) -> None:
        first = entries[0]
        padding = torch.finfo(first.before.dtype).min if first.logits else 0.0
        before = _stack([entry.before for entry in entries], padding)  # entries batch heads rows keys
        after = _stack([entry.after for entry in entries], padding)
        index = torch.tensor([entry.layer for entry in entries], device=before.device)
        if first.logits:
            change = (after - before).abs_().flatten(2).amax(dim=-1).float()  # entries batch
            by_sample = self._by_sample(change).amax(dim=2)  # entries samples
            self._change[first.intervention].scatter_reduce_(1, index.expand_as(by_sample.T), by_sample.T, "amax")
            before, after = before.softmax(-1, dtype=torch.float32), after.softmax(-1, dtype=torch.float32)
        difference = after.sub_(before)
        on_image = self._image[:, first.start : first.start + difference.shape[-1]].to(difference.dtype)
        to_image = difference.sum(dim=(2, 3))[..., : on_image.shape[1]].mul(on_image).sum(dim=-1)  # entries batch
        moved = difference.abs_().sum(dim=-1) / 2  # entries batch heads rows; mass gained equals mass lost
        edited = moved > 0
        for table, values in (
            (self._rows, edited.any(dim=2).sum(dim=2)),
            (self._heads, edited.sum(dim=(2, 3))),
            (self._moved, moved.sum(dim=(2, 3)).float()),
            (self._to_image, to_image.float()),
        ):
            table[first.intervention].index_add_(1, index, self._by_sample(values).sum(dim=2).T)

    def _by_sample(self, values: Tensor) -> Tensor:
        """Split the last axis, the batch, into samples and beams."""
        return values.unflatten(-1, (self._samples, -1))


def _stack(tensors: list[Tensor], padding: float) -> Tensor:
    """Stack tensors whose last axes may differ in length."""
    max_length = max(tensor.shape[-1] for tensor in tensors)
    if all(tensor.shape[-1] == max_length for tensor in tensors):
        return torch.stack(tensors)
    stacked = tensors[0].new_full((len(tensors), *tensors[0].shape[:-1], max_length), padding)
    for into, tensor in zip(stacked, tensors, strict=True):
        into[..., : tensor.shape[-1]] = tensor
    return stacked
