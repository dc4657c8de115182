"""One call: a prompt that is read, and the tokens decoded after it.

All state of a session lives here and goes with the next prompt: what one image left behind can never reach another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from .activity import Ledger
from .edit import Edit, Intervention, View

if TYPE_CHECKING:
    from .lockstep import Lockstep

__all__ = ["Call", "LayerWork"]


class Call:
    """What the methods may know of the running call, and what they do in it.

    Args:
        model: the whole model.
        inputs: the model's inputs for the samples, before beams multiply them.
        image: (samples, prompt), columns that stand for images.
        valid: (samples, prompt), columns that are not padding.
        batch: rows that the model runs: the samples, each times its beams.
        layers: how many decoder layers there are.
        methods: the methods, in order.
        watch: keep, for every token, the attention that the last row pays to the prompt.

    Attributes:
        samples: how many there are.
        beams: rows of the batch that belong to one sample.
        prompt: tokens of the prompt, with padding.
        image: as given, for all rows of the batch: (batch, prompt).
        valid: likewise.
        image_end: (batch,), the place after the last image token; of a sample without one, the prompt's end.
        reading: whether the prompt is being read now.
        total: tokens so far, with those that are being read.
        stream: whose forward pass is running: the prompt's own, the one without the image, or one that is none of
            the methods' business.
        details: what the methods want to tell about this call, by name.
        at_end: is called when the call is over.
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
        methods: Sequence[Intervention],
        watch: bool = False,
    ) -> None:
        self.model, self.inputs, self.layers, self.watch = model, inputs, layers, watch
        self.samples, self.prompt = image.shape
        self.beams = batch // self.samples
        self.image, self.valid = self.expand(image), self.expand(valid)
        places = torch.arange(1, self.prompt + 1, device=image.device)
        end = (self.image * places).amax(dim=-1)
        self.image_end = torch.where(end > 0, end, self.prompt)
        self.reading, self.total, self.length = True, 0, 0
        self.stream: Literal["main", "free", "none"] = "main"
        self._first = {"last": self.prompt - 1, "after_image": int(self.image_end.min())}
        self._long: dict[int, tuple[Tensor, Tensor]] = {}
        self._views: dict[tuple[str, int, int], View] = {}
        self.ledger = Ledger([method.name for method in methods], self.samples, layers, self.image)
        self.seen: list[dict[int, Tensor]] = []
        self.lockstep: Lockstep | None = None
        self.at_end: list[Callable[[], None]] = []
        self.edits: list[Edit] = [method.begin(self) for method in methods]
        self.details = {method.name: edit.details for method, edit in zip(methods, self.edits, strict=True)}

    @property
    def text_config(self) -> PreTrainedConfig:
        """Configuration of the language model."""
        return self.model.config.get_text_config(decoder=True)

    @property
    def device(self) -> torch.device:
        """Where the prompt's masks are."""
        return self.image.device

    def expand(self, values: Tensor) -> Tensor:
        """Per-sample values, for all rows of the batch."""
        return values if self.beams == 1 else values.repeat_interleave(self.beams, dim=0)

    def given(self, name: str, method: str) -> Any:
        """An input of the model that a method cannot do without.

        Raises:
            ValueError: it is not there.
        """
        value = self.inputs.get(name)
        if value is None:
            raise ValueError(
                f"{method} needs {name!r}, which this call does not have (it has {', '.join(sorted(self.inputs))}); "
                "give an image with the prompt, and run session.generate or session.forward instead of the model's own"
            )
        return value

    def advance(self, total: int, length: int) -> None:
        """Begin a forward pass of `length` tokens, after which there are `total`."""
        self.total, self.length = total, length
        if not self.reading:
            self.ledger.later += length
        self._views.clear()
        if self.watch:
            self.seen.append({})

    def row_count(self, kind: str) -> int:
        """How many of the last rows of this pass may be edited, counting from the first that any sample edits."""
        return min(self.length, max(0, self.total - self._first[kind]))

    def view(self, kind: str, rows: int, keys: int) -> View:
        """What a layer with `keys` keys sees, for an edit of the given kind, in the last `rows` rows."""
        view = self._views.get((kind, rows, keys))
        if view is None:
            view = View(max(0, self.total - keys), keys, self._row_mask(kind, rows), self._long)
            self._views[kind, rows, keys] = view
        return view

    def process(self, tokens: Tensor, scores: Tensor) -> Tensor:
        """The scores of the next token, as the methods that work there change them, one after the other."""
        for index, edit in enumerate(self.edits):
            if edit.process is not None:
                before = scores
                scores = edit.process(tokens, scores)
                self.ledger.processed(index, before, scores)
        return scores

    def end(self) -> None:
        """Let go of everything; closures of the edits hold the call, and it holds them."""
        if self.lockstep is not None:
            self.lockstep.abandon()
        for close in self.at_end:
            close()
        self.edits, self.at_end, self.seen, self.lockstep = [], [], [], None

    def attention(self) -> Float[Tensor, "batch steps layers prompt"]:
        """What the row that foretold each new token paid to the prompt, mean of the heads; only with `watch`."""
        steps = [torch.stack([step[layer] for layer in range(self.layers)], dim=2) for step in self.seen if step]
        return torch.cat(steps, dim=1)

    def _row_mask(self, kind: str, rows: int) -> Tensor | None:
        first = self.total - rows
        if first >= self.prompt:
            return None
        places = torch.arange(first, self.total, device=self.device)
        begin = self.image_end if kind == "after_image" else torch.full_like(self.image_end, self.prompt - 1)
        mask = places >= begin[:, None]  # batch rows
        return mask[:, None, :, None]


class LayerWork:
    """What the attention of one decoder layer has to do for the running call.

    Args:
        layer: index of the layer.
    """

    def __init__(self, layer: int) -> None:
        self.layer = layer
        self._call: Call | None = None
        self._kind: str | None = None
        self._logits: list[tuple[int, str, Callable[[int, Tensor, View], Tensor]]] = []
        self._weights: list[tuple[int, str, Callable[[int, Tensor, View], Tensor]]] = []
        self._scales: list[tuple[int, Edit]] = []
        self._factors: Tensor | None = None

    def start(self, call: Call) -> None:
        """Take up the edits of a call."""
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
        """Leave attention alone."""
        self._call = self._kind = self._factors = None
        self._logits, self._weights, self._scales = [], [], []

    def rows(self, length: int) -> int:
        """How many of the last `length` rows must be recomputed."""
        if self._kind is None or self._call is None or self._call.stream != "main":
            return 0
        return self._call.row_count(self._kind)

    def edit_logits(self, logits: Tensor, hidden: Tensor | None) -> Tensor:
        """Scores (batch, heads, rows, keys) after the methods that change scores; `hidden` keys stay hidden."""
        call = self._call
        assert call is not None
        for index, kind, edit in self._logits:
            view = call.view(kind, logits.shape[2], logits.shape[3])
            edited = edit(self.layer, logits, view)
            if hidden is not None:
                edited = edited.masked_fill(hidden, torch.finfo(logits.dtype).min)
            call.ledger.edited(index, self.layer, view, logits, edited, logits=True)
            logits = edited
        return logits

    def edit_weights(self, weights: Tensor) -> Tensor:
        """Weights (batch, heads, rows, keys) after the methods that change weights."""
        call = self._call
        assert call is not None
        for index, kind, edit in self._weights:
            view = call.view(kind, weights.shape[2], weights.shape[3])
            edited = edit(self.layer, weights, view)
            if edited is not weights:
                call.ledger.edited(index, self.layer, view, weights, edited, logits=False)
                weights = edited
        if call.watch:
            self._watch(weights, call)
        return weights

    def _watch(self, weights: Tensor, call: Call) -> None:
        rows, keys = weights.shape[2:]
        new, start = call.row_count("last"), max(0, call.total - keys)
        stop = min(call.prompt - start, keys)
        paid = weights.new_zeros(weights.shape[0], new, call.prompt)
        paid[..., start : start + stop] = weights[:, :, rows - new :, :stop].mean(dim=1)
        call.seen[-1][self.layer] = paid

    def scale(self, output: Tensor) -> Tensor:
        """The heads' outputs (batch, rows, heads, head_dim), scaled by what was chosen while the prompt was read."""
        call = self._call
        if call is None or not self._scales or call.stream == "none":
            return output
        factors = self._factors
        if call.stream == "free":
            if call.lockstep is None or not any(edit.paired for _, edit in self._scales):
                return output
            factors = call.lockstep.offer(self.layer, output[:, -1])
        elif call.reading:
            factors = self._factors = self._choose_all(output, call)
        return output if factors is None else output * factors[:, None, :, None]

    def _choose_all(self, output: Tensor, call: Call) -> Tensor | None:
        """The factors of all methods together, in the dtype of the output."""
        factors = without_image = None
        rows = (call.valid.sum(dim=-1) + call.total - call.prompt).clamp(max=call.total)
        for index, edit in self._scales:
            own = self._choose(output, edit)
            if own is None:
                continue
            call.ledger.scaled(index, self.layer, (own != 1).sum(dim=-1), rows)
            own = own.to(output.dtype)
            factors = own if factors is None else factors * own
            if edit.scales_pair:
                without_image = own if without_image is None else without_image * own
        if any(edit.paired for _, edit in self._scales):
            assert call.lockstep is not None
            call.lockstep.answer(without_image)
        return factors

    def _choose(self, output: Tensor, edit: Edit) -> Tensor | None:
        """The factors of one method while the prompt is read."""
        call = self._call
        assert call is not None
        assert edit.scale_heads is not None
        heads = output[:, call.prompt - call.total - 1 + output.shape[1]]  # of the last row of the prompt
        if not edit.paired:
            return edit.scale_heads(self.layer, heads)
        assert call.lockstep is not None
        return edit.scale_heads(self.layer, heads, call.expand(call.lockstep.heads(self.layer)))
