"""A second stream: logits of the same answer under another prompt.

Contrastive interventions compare the logits of the next token with those of the prompt without its image, or with
another image. The second prompt runs through transformers' own `generate`, in a coroutine (a greenlet) that waits at
every new token until the main stream has chosen it; so it has its own cache and positions in every model family. Its
logits are raw; those of the main stream include the processors of `generate` (such as penalties), except temperature,
top-k and top-p, which come last.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from typing import Any

import torch
from greenlet import getcurrent, greenlet
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from .contract import Call
from .image_free import image_free_inputs, image_free_model
from .teacher_forcing import with_answers

__all__ = ["Stream", "contrast", "guidance"]

#: Inputs of the main prompt that a second one with the same text does not share.
_OWN = frozenset({"past_key_values", "cache", "inputs_embeds", "position_ids", "mm_encoder_outputs"})


class Stream:
    """Runs another prompt, followed by the tokens that the main stream chooses.

    Under beam search, which reorders its beams, a prompt without images is processed again for every token.

    Args:
        call: the running call.
        model: runs the other prompt.
        inputs: the other prompt, one row per sample.

    Raises:
        ValueError: beam search with images in the second prompt.
    """

    def __init__(self, call: Call, model: PreTrainedModel, inputs: Mapping[str, Any]) -> None:
        self._run: greenlet | None = None
        call.at_end.append(self.close)
        self._followed = 0  # tokens of the answer that the run has processed
        self._model, self._inputs, self._main_prompt = model, dict(inputs), call.prompt
        self._beams = call.beams
        self._eos = {"eos_token_id": call.inputs["eos_token_id"]} if "eos_token_id" in call.inputs else {}
        if self._beams > 1 and any(name.startswith("pixel") for name in inputs):
            raise ValueError(
                "beam search is not supported with a second stream that has an image, since beams are reordered; give "
                "num_beams=1"
            )

    @classmethod
    def without_image(cls, call: Call, *, instead: int | None = None) -> Stream:
        """The prompt without its image tokens, or with the single token `instead` in their position."""
        ids = call.inputs["input_ids"][:, : call.prompt]
        valid, image = call.valid[:: call.beams], call.image[:: call.beams]
        keep = valid & ~image
        if instead is not None:
            first = image & (image.cumsum(dim=-1) == 1)
            ids, keep = ids.masked_fill(first, instead), keep | first
        inputs = image_free_inputs(ids, keep, call.inputs)
        inputs.pop("position_ids")  # generate counts them itself
        return cls(call, image_free_model(call.model), inputs)

    @classmethod
    def with_pixels(cls, call: Call, pixel_values: Tensor) -> Stream:
        """The same prompt with other pixels."""
        inputs = {n: value for n, value in call.inputs.items() if isinstance(value, Tensor) and n not in _OWN}
        tokens = call.inputs["input_ids"].shape
        for name, value in inputs.items():
            if value.shape == tokens:  # in teacher forcing these include the answer
                inputs[name] = value[:, : call.prompt]
        return cls(call, call.model, {**inputs, "pixel_values": pixel_values})

    @classmethod
    def with_images(cls, call: Call, inputs: Mapping[str, Any]) -> Stream:
        """The same prompt with other images, in any model family.

        Args:
            call: the running call.
            inputs: all inputs of the model for the same questions about the other images.

        Raises:
            ValueError: the text, with its image tokens, is not that of the call.
        """
        given, ids = call.inputs["input_ids"][:, : call.prompt], inputs["input_ids"]
        if ids.shape != given.shape or not bool((ids.to(given.device) == given).all()):
            raise ValueError(
                f"the prompts with the other images, {tuple(ids.shape)}, differ from those of this call, "
                f"{tuple(given.shape)}; bind the intervention to the same questions in the same order and batch, and "
                f"to "
                "images of the same size"
            )
        second = {}
        for name, value in inputs.items():
            if isinstance(value, Tensor) and name not in _OWN:
                first = call.inputs.get(name, given)
                second[name] = value.to(first.device, first.dtype if value.is_floating_point() else None)
        return cls(call, call.model, second)

    def scores(self, tokens: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch vocabulary"]:
        """Logits of the next token.

        Args:
            tokens: the main stream's prompt and the answer so far.
        """
        answer = tokens[:, self._main_prompt :]
        if self._beams > 1:
            return self._read(self._continued(answer), 1)
        if self._run is None or self._run.dead or answer.shape[1] != self._followed + 1:
            self.close()
            self._followed = answer.shape[1]
            return self._read(self._continued(answer), 1 << 20)
        self._followed += 1
        scores = self._run.switch(answer[:, -1:])
        return (
            self.scores(tokens) if scores is None else scores
        )  # the run ended: it treated the token as the end of all answers

    def close(self) -> None:
        """Stop the run where it is."""
        if self._run is not None and not self._run.dead:
            self._run.parent = getcurrent()  # control returns to the caller, not to whoever started the run
            with torch.no_grad():  # the run leaves its own no_grad, which must not change the caller's mode
                self._run.throw()
        self._run = None

    def __del__(self) -> None:
        self.close()

    def _read(self, inputs: Mapping[str, Any], new_tokens: int) -> Tensor:
        """Start a run; returns the logits of its first new token."""
        waits = LogitsProcessorList([_Waits()])
        options = {**_plain_decoding(self._model), "max_new_tokens": new_tokens, **self._eos}
        generate: Any = self._model.generate
        self._run = greenlet(lambda: (generate(**inputs, **options, logits_processor=waits), None)[1])
        self._run.gr_context = contextvars.copy_context()
        return self._run.switch()

    def _continued(self, answer: Tensor) -> dict[str, Any]:
        """The second prompt followed by the answer so far."""
        rows = len(self._inputs["input_ids"])
        times = len(answer) // rows
        inputs = {}
        for name, value in self._inputs.items():
            one_each = isinstance(value, Tensor) and len(value) == rows and times > 1
            inputs[name] = value.repeat_interleave(times, dim=0) if one_each else value
        return with_answers(self._model.config.model_type, inputs, answer)


class _Waits(LogitsProcessor):
    """Hands the logits to the main stream, waits for the token that it chooses, and forces that token."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        parent = getcurrent().parent
        assert parent is not None
        token = parent.switch(scores)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)


def _plain_decoding(model: PreTrainedModel) -> dict[str, Any]:
    """Options of `generate` that reset whatever the model's own generation configuration changes."""
    defaults = GenerationConfig._get_default_generation_params()
    kept = {"eos_token_id", "pad_token_id", "bos_token_id", "transformers_version", "_from_model_config"}
    changed = model.generation_config.to_diff_dict()
    return {name: defaults.get(name) for name in changed if name not in kept} | {"do_sample": False, "num_beams": 1}


def contrast(
    call: Call, other: Callable[[Tensor], Tensor], combine: Callable[[Tensor, Tensor], Tensor], plausible: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """An edit of the next token's logits that combines them with those of another stream.

    Args:
        call: the running call.
        other: maps the tokens so far to the logits of the other stream.
        combine: maps the logits of both, (batch, vocabulary), to new ones.
        plausible: tokens whose probability is below this fraction of the highest are excluded, 0-1; 0 excludes none.
    """

    def process(tokens: Tensor, scores: Tensor) -> Tensor:
        combined = combine(scores, other(tokens).to(scores.dtype))
        combined = torch.where(scores == -torch.inf, scores, combined)  # excluded tokens stay excluded
        if plausible > 0:
            floor = scores.amax(dim=-1, keepdim=True) + torch.tensor(plausible).log().to(scores)
            combined = combined.masked_fill(scores < floor, -torch.inf)
        return combined.log_softmax(dim=-1) if call.beams > 1 else combined

    return process


def guidance(call: Call, gamma: float, plausible: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Classifier-free guidance: gamma * (s - u) + u, with log probabilities s with the image and u without it.

    Source: Sanchez et al. 2023, arXiv:2306.17806, as PAI (arXiv:2407.21771) uses it.
    """

    def combine(scores: Tensor, other: Tensor) -> Tensor:
        with_image, without = scores.log_softmax(dim=-1), other.log_softmax(dim=-1)
        return gamma * (with_image - without) + without

    return contrast(call, Stream.without_image(call).scores, combine, plausible)
