"""What the methods did: rows and heads edited, attention moved, and the largest change of a score.

Counting must not cost more than the edit itself: at every generated token the tensors before and after each edit are
kept as they are, and counted together once they fill `PENDING` numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .edit import View

__all__ = ["Activity", "Ledger"]

#: Numbers that may wait to be counted, 8 MB in float32.
PENDING = 1 << 21


@dataclass(frozen=True, kw_only=True)
class Activity:
    """What one method did during one call, for each sample and decoder layer.

    Attributes:
        method: its name.
        rows: query rows of attention that it changed, (samples, layers).
        heads: pairs of row and head that it changed.
        moved: attention mass that these rows put elsewhere than before, at most 1 for each pair of row and head.
        to_image: the part by which the mass on image tokens grew; negative where it shrank.
        change: largest change of an attention score before the softmax.
        word_change: largest change of a score of the next token, where the method works there, (samples).
    """

    method: str
    rows: Int[Tensor, "samples layers"]
    heads: Int[Tensor, "samples layers"]
    moved: Float[Tensor, "samples layers"]
    to_image: Float[Tensor, "samples layers"]
    change: Float[Tensor, "samples layers"]
    word_change: Float[Tensor, " samples"]

    @property
    def active(self) -> bool:
        """Whether it did anything at all."""
        return bool(self.heads.any() or self.word_change.any())

    def __str__(self) -> str:
        layers = [str(layer) for layer in range(self.heads.shape[1]) if self.heads[:, layer].any()]
        parts = []
        if layers:
            parts.append(
                f"{int(self.heads.sum())} heads of {int(self.rows.sum())} rows in layers {', '.join(layers)}; "
                f"moved {self.moved.sum().item():.3g} of attention, {self.to_image.sum().item():+.3g} to the image"
            )
        if self.word_change.any():
            parts.append(f"changed scores of words by up to {self.word_change.max().item():.3g}")
        return f"{self.method}: {'; '.join(parts) or 'did nothing'}"


class _Entry(NamedTuple):
    method: int
    layer: int
    view: View
    before: Tensor
    after: Tensor
    logits: bool


class Ledger:
    """Keeps account of the edits of one call.

    Args:
        methods: their names, in order.
        samples: of the batch as it was given.
        layers: decoder layers of the model.
        image: (batch, prompt), columns of the image; `batch` is a multiple of `samples` under beam search.

    Attributes:
        later: rows that came after the prompt was read.
    """

    def __init__(self, methods: Sequence[str], samples: int, layers: int, image: Tensor) -> None:
        self.methods = list(methods)
        self._samples = samples
        self._image = image
        shape = (len(self.methods), samples, layers)
        self._rows = torch.zeros(shape, dtype=torch.long, device=image.device)
        self._heads = torch.zeros_like(self._rows)
        self._moved, self._to_image, self._change = (torch.zeros(shape, device=image.device) for _ in range(3))
        self._word_change = torch.zeros(shape[:2], device=image.device)
        self._scaled: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self.later = 0
        self._pending: list[_Entry] = []
        self._numbers = 0

    def edited(self, method: int, layer: int, view: View, before: Tensor, after: Tensor, *, logits: bool) -> None:
        """Note an edit: scores or weights (batch, heads, rows, keys) before and after it."""
        self._pending.append(_Entry(method, layer, view, before, after, logits))
        self._numbers += 2 * before.numel()
        if self._numbers > PENDING:
            self.count()

    def scaled(self, method: int, layer: int, heads: Int[Tensor, " batch"], rows: Int[Tensor, " batch"]) -> None:
        """Note that so many heads of each sample are scaled, in that many rows of the prompt and in all later ones."""
        self._scaled[method, layer] = heads, rows

    def processed(self, method: int, before: Tensor, after: Tensor) -> None:
        """Note a change of the scores of the next token, (batch, vocabulary)."""
        both = torch.isfinite(before) & torch.isfinite(after)
        change = torch.where(both, after - before, 0).abs().amax(dim=-1)
        ruled_out = (torch.isfinite(before) & ~torch.isfinite(after)).any(dim=-1)
        change = torch.where(ruled_out & (change == 0), torch.inf, change).float()
        self._word_change[method] = torch.maximum(self._word_change[method], self._by_sample(change).amax(dim=1))

    def count(self) -> None:
        """Count what is pending."""
        groups: dict[tuple[object, ...], list[_Entry]] = defaultdict(list)
        for entry in self._pending:
            batch, heads, rows, keys = entry.before.shape
            alone = keys if rows > 1 else 0  # single rows of different length are counted together
            groups[entry.method, entry.logits, entry.view.start, batch, heads, rows, alone].append(entry)
        self._pending, self._numbers = [], 0
        for entries in groups.values():
            self._count_group(entries)

    def report(self) -> list[Activity]:
        """What every method has done so far, on the CPU."""
        self.count()
        rows, heads = self._rows.clone(), self._heads.clone()
        for (method, layer), (chosen, read) in self._scaled.items():
            times = read + self.later
            touched = (chosen > 0) * times
            rows[method, :, layer] += self._by_sample(touched).sum(dim=1)
            heads[method, :, layer] += self._by_sample(chosen * times).sum(dim=1)
        tables = [table.cpu() for table in (rows, heads, self._moved, self._to_image, self._change, self._word_change)]
        names = ("rows", "heads", "moved", "to_image", "change", "word_change")
        return [
            Activity(method=name, **{key: table[index] for key, table in zip(names, tables, strict=True)})
            for index, name in enumerate(self.methods)
        ]

    def _count_group(self, entries: list[_Entry]) -> None:
        first = entries[0]
        lowest = torch.finfo(first.before.dtype).min if first.logits else 0.0
        before = _stack([entry.before for entry in entries], lowest)  # entries batch heads rows keys
        after = _stack([entry.after for entry in entries], lowest)
        index = torch.tensor([entry.layer for entry in entries], device=before.device)
        if first.logits:
            change = (after - before).abs_().flatten(2).amax(dim=-1).float()  # entries batch
            by_sample = self._by_sample(change).amax(dim=2)  # entries samples
            self._change[first.method].scatter_reduce_(1, index.expand_as(by_sample.T), by_sample.T, "amax")
            before, after = before.softmax(-1, dtype=torch.float32), after.softmax(-1, dtype=torch.float32)
        difference = after.sub_(before)
        seen = self._image[:, first.view.start : first.view.start + difference.shape[-1]].to(difference.dtype)
        to_image = difference.sum(dim=(2, 3))[..., : seen.shape[1]].mul(seen).sum(dim=-1)  # entries batch
        moved = difference.abs_().sum(dim=-1) / 2  # entries batch heads rows; what came equals what went
        edited = moved > 0
        for table, values in (
            (self._rows, edited.any(dim=2).sum(dim=2)),
            (self._heads, edited.sum(dim=(2, 3))),
            (self._moved, moved.sum(dim=(2, 3)).float()),
            (self._to_image, to_image.float()),
        ):
            table[first.method].index_add_(1, index, self._by_sample(values).sum(dim=2).T)

    def _by_sample(self, values: Tensor) -> Tensor:
        """Split the last axis, a batch, into samples and their beams."""
        return values.unflatten(-1, (self._samples, -1))


def _stack(tensors: list[Tensor], filling: float) -> Tensor:
    """Stack tensors whose last axes may differ."""
    longest = max(tensor.shape[-1] for tensor in tensors)
    if all(tensor.shape[-1] == longest for tensor in tensors):
        return torch.stack(tensors)
    stacked = tensors[0].new_full((len(tensors), *tensors[0].shape[:-1], longest), filling)
    for into, tensor in zip(stacked, tensors, strict=True):
        into[..., : tensor.shape[-1]] = tensor
    return stacked
