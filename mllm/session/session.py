"""A session: interventions that are active in a model for the duration of a `with` block.

    with intervene(model, [VAR(), VHR()]) as session:
        tokens = session.generate(**inputs, max_new_tokens=64)
        print(session.activity)

A session without interventions is the baseline: the same attention function without edits.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel
from transformers.utils import ModelOutput

from .activity import Activity
from .attention import EDITS, IMPLEMENTATION
from .contract import Intervention
from .image_free import image_free_inputs, image_free_model
from .layer_edits import LayerEdits
from .lockstep import Lockstep
from .model_structure import attention_modules, decoder_layers, image_columns, image_token_id, text_stack
from .running_call import RunningCall

__all__ = ["Session", "intervene"]

#: Model -> its engine; a session within a session of the same model joins it.
_ENGINES: WeakKeyDictionary[PreTrainedModel, _Engine] = WeakKeyDictionary()


@contextmanager
def intervene(
    model: PreTrainedModel,
    interventions: Intervention | Sequence[Intervention] = (),
    *,
    allow_inactive: bool = False,
    watch: bool = False,
) -> Iterator[Session]:
    """Apply interventions to a model for the duration of the block; afterwards the model is unchanged.

    Args:
        model: a vision-language model of transformers, with images as tokens of the prompt and a decoder-only language
            model. Any device and dtype, or several devices as placed by accelerate.
        interventions: one or several. Edits of one kind run in this order; those of an outer session come first.
        allow_inactive: accept interventions that never changed anything; otherwise they are an error at the end of
            the block.
        watch: keep the attention of every new token to the prompt, for `Session.attention`.

    Raises:
        ValueError: the model has no attention that can be edited, does not accept images, or runs attention in an
            unsupported way.
        RuntimeError: an intervention changed nothing in the whole block; or another thread has a session on the model.

    Example:
        >>> from regard.mllm import LVLM, PAI, intervene
        >>> lvlm = LVLM.load("embedded")
        >>> inputs = lvlm.prepare([lvlm.example_image()], ["describe the image in detail ."])
        >>> with intervene(lvlm.model, PAI(alpha=0.2)) as session:
        ...     tokens = session.generate(**inputs, max_new_tokens=4)
        >>> session.activity[0].active
        True
    """
    chosen = (interventions,) if isinstance(interventions, Intervention) else tuple(interventions)
    for one in chosen:
        if not isinstance(one, Intervention):
            raise ValueError(f"{one!r} is not an intervention: it has no name or no begin(call)")
    engine = _ENGINES.get(model)
    outermost = engine is None
    if engine is None:
        engine = _Engine(model)
    elif engine.thread != threading.get_ident():
        raise RuntimeError("another thread has a session on this model; give each thread its own model")
    if engine.call is not None and engine.call.stream != "main":
        raise RuntimeError("a session cannot begin inside another one's forward pass")
    session = Session(engine, chosen, watch=watch)
    engine.sessions.append(session)
    try:
        if outermost:
            engine.open()
            _ENGINES[model] = engine
        yield session
        engine.end_call()
    finally:
        engine.drop_call()
        engine.sessions.remove(session)
        if outermost:
            _ENGINES.pop(model, None)
            engine.close()
    inactive = sorted({one.name for one in chosen} - session.active)
    if inactive and not allow_inactive:
        raise RuntimeError(
            f"{', '.join(inactive)} changed nothing in this session of {session.calls} "
            f"call{'s' * (session.calls != 1)}, so the answers are the baseline's. Check the layers and thresholds, "
            f"and "
            "that the prompts have images; allow_inactive=True accepts this"
        )


class Session:
    """Interventions that are active in a model; made by `intervene`.

    Attributes:
        model: the model.
        interventions: of this session.
        calls: number of prompts so far.
        active: names of the interventions that have changed something.
        activity: what each intervention did in the last call.
        details: intervention -> what it reports about the last call.
    """

    def __init__(self, engine: _Engine, interventions: tuple[Intervention, ...], *, watch: bool) -> None:
        self._engine, self.interventions, self.watch = engine, interventions, watch
        self.model = engine.model
        self.calls = 0
        self.active: set[str] = set()
        self.details: dict[str, dict[str, Any]] = {}
        self._activity: list[Activity] = []
        self._attention: Tensor | None = None

    @property
    def activity(self) -> list[Activity]:
        """What each intervention did in the last call, in the order of the interventions."""
        self._engine.end_call()
        return self._activity

    def attention(self) -> Float[Tensor, "batch steps layers prompt"]:
        """Attention of the row that predicted each new token to each token of the prompt, after all edits.

        Mean over the heads, in the last call; `batch` includes the beams of each sample.

        Raises:
            ValueError: the session does not watch, or no prompt has been read yet.
        """
        self._engine.end_call()
        if self._attention is None:
            raise ValueError(
                "no attention was kept; write intervene(model, interventions, watch=True) and run a prompt"
            )
        return self._attention

    def generate(self, **inputs: Any) -> Any:
        """`model.generate` with the interventions; same arguments and result.

        Raises:
            ValueError: no `input_ids`, padding on the right, or unsupported decoding: assisted decoding, chunked
                prefill, no cache.
        """
        config = self.model.generation_config
        for name, why in (
            ("assistant_model", "speculative decoding processes guessed tokens together with the prompt"),
            ("prompt_lookup_num_tokens", "speculative decoding processes guessed tokens together with the prompt"),
            ("prefill_chunk_size", "interventions need the whole prompt in one prefill"),
        ):
            if inputs.get(name) is not None or getattr(config, name, None) is not None:
                raise ValueError(f"generate({name}=...) is not supported in a session: {why}. Leave it out")
        if not (inputs.get("use_cache", True) and config.use_cache is not False):
            raise ValueError(
                "generate(use_cache=False) is not supported in a session: edited rows would be recomputed without "
                "their "
                "edits. Leave it out"
            )
        if inputs.get("cache_implementation") in ("static", "offloaded_static") or inputs.get("compile_config"):
            inputs.setdefault("disable_compile", True)  # the state of interventions is Python state
        processors = LogitsProcessorList(inputs.pop("logits_processor", None) or [])
        processors.append(_Process(self._engine))
        with self._engine.given(inputs, prompt=None):
            generate: Any = self.model.generate
            return generate(**inputs, logits_processor=processors)

    def forward(self, *, prompt: int | None = None, **inputs: Any) -> ModelOutput:
        """`model(**inputs)` with the interventions, without gradients.

        Args:
            prompt: number of tokens of the prompt; the rest is an answer, whose rows are edited as during generation.
                All tokens by default.
            inputs: of the model.

        Raises:
            ValueError: `prompt` is not between 1 and the number of tokens, or `input_ids` are missing.
        """
        with self._engine.given(inputs, prompt=prompt), torch.no_grad():
            output = self.model(**inputs)
            self._engine.process_rows(inputs["input_ids"], output.logits)
            return output

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Run the model without edits, within the session."""
        with self._engine.paused():
            yield

    def store(self, activity: list[Activity], call: RunningCall) -> None:
        """Keep the results of a call that has ended."""
        self._activity = activity
        self.calls += 1
        self.active |= {one.intervention for one in activity if one.active}
        self.details = {one.name: call.details.get(one.name, {}) for one in self.interventions}
        self._attention = call.attention() if self.watch else None


class _Engine:
    """Attention function, hooks and running call of a model that has sessions."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.thread = model, threading.get_ident()
        self.text = text_stack(model)
        self.layers = decoder_layers(model)
        self.attention = attention_modules(model)
        image_token_id(model)
        self.sessions: list[Session] = []
        self.call: RunningCall | None = None
        self._given: tuple[Mapping[str, Any], int | None] | None = None
        self._paused = 0
        self._handles: list[RemovableHandle] = []
        self._layer_handles: list[RemovableHandle] = []
        self._edits = [LayerEdits(index) for index in range(len(self.layers))]
        self._previous = str(self.text.config._attn_implementation)
        if "flash" in self._previous or self._previous.startswith(("flex", "paged")):
            raise ValueError(
                f"attn_implementation {self._previous!r} of the language model does not expose attention weights; "
                f"load the "
                "model with attn_implementation='sdpa'"
            )
        if any(getattr(module, "_compiled_call_impl", None) is not None for module in (model, self.text)):
            raise ValueError("compiled models are not supported in a session; give the model before torch.compile")

    def open(self) -> None:
        """Install the attention function and the hooks."""
        self._set_implementation(IMPLEMENTATION)
        for module, edits in zip(self.attention, self._edits, strict=True):
            EDITS[id(module)] = edits
        self._handles = [
            self.model.register_forward_pre_hook(self._before_model, with_kwargs=True),
            self.text.register_forward_pre_hook(self._before_text, with_kwargs=True),
            self.text.register_forward_hook(self._after_text),
        ]

    def close(self) -> None:
        """Remove them again."""
        for handle in (*self._handles, *self._layer_handles):
            handle.remove()
        for module in self.attention:
            EDITS.pop(id(module), None)
        self._set_implementation(self._previous)

    @contextmanager
    def given(self, inputs: Mapping[str, Any], prompt: int | None) -> Iterator[None]:
        """Take the prompt of the next pass from these inputs."""
        if not isinstance(inputs.get("input_ids"), Tensor):
            raise ValueError("a session locates the image in input_ids, which are missing")
        tokens = inputs["input_ids"].shape[1]
        if prompt is not None and not 1 <= prompt <= tokens:
            raise ValueError(f"prompt={prompt} is not between 1 and the {tokens} tokens of the input")
        self.end_call()
        self._given = (inputs, prompt)
        try:
            yield
        except BaseException:
            self.drop_call()
            raise
        finally:
            self._given = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave forward passes alone."""
        call, before = self.call, self.call is not None and self.call.paused
        self._paused += 1
        if call is not None:
            call.paused = True
        try:
            yield
        finally:
            self._paused -= 1
            if call is not None:
                call.paused = before

    def process_rows(
        self, tokens: Int[Tensor, "samples tokens"], logits: Float[Tensor, "samples rows vocabulary"]
    ) -> None:
        """Edit the logits after the prompt and after every token of a given answer."""
        call = self.call
        if call is None or not any(edit.process for edit in call.edits):
            return
        length = tokens.shape[1]
        with self.paused():
            for end in range(max(call.prompt, length - logits.shape[1] + 1), length + 1):
                logits[:, end - 1 - length] = call.process(tokens[:, :end], logits[:, end - 1 - length])

    def end_call(self) -> None:
        """Hand the results of the running call to the sessions."""
        if self.call is None:
            return
        call, first = self.call, 0
        report = call.record.report()
        for session in self.sessions:
            last = first + len(session.interventions)
            session.store(report[first:last], call)
            first = last
        self.drop_call()

    def drop_call(self) -> None:
        """Drop the running call."""
        ended, self.call = self.call, None
        for edits in self._edits:
            edits.stop()
        while self._layer_handles:
            self._layer_handles.pop().remove()
        if ended is not None:
            ended.end()

    def _before_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin a call for a forward pass outside `generate` and `forward`."""
        if self._paused or self._given is not None or self._in_other_stream() or _length(kwargs) > 0:
            return
        inputs = {**dict(zip(("input_ids",), args, strict=False)), **kwargs}
        self.end_call()
        if not isinstance(inputs.get("input_ids"), Tensor):
            raise ValueError("a session locates the image in input_ids, which are missing")
        self._begin(inputs, None, inputs["input_ids"].shape[0])

    def _before_text(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._paused or self._in_other_stream():
            return
        embeddings = kwargs.get("inputs_embeds")
        embeddings = embeddings if embeddings is not None else kwargs.get("input_ids", args[0] if args else None)
        assert embeddings is not None
        batch, length = embeddings.shape[:2]
        past = _length(kwargs)
        if past == 0 and self._given is not None:
            self._begin(*self._given, batch)
        call = self.call
        if call is None:
            raise ValueError(
                "the cache of this pass was filled outside the session, so the position of the image is unknown; give "
                "the whole prompt"
            )
        call.reading = past == 0
        call.advance(past + length, length)

    def _after_text(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        call = self.call
        if self._paused or call is None or self._in_other_stream():
            return
        if call.reading:
            call.reading = False
            if call.lockstep is not None:
                call.lockstep.finish()
            while self._layer_handles:
                self._layer_handles.pop().remove()

    def _begin(self, inputs: Mapping[str, Any], prompt: int | None, batch: int) -> None:
        """Start a call: prepare the interventions and the layers."""
        input_ids = inputs["input_ids"]
        prompt = input_ids.shape[1] if prompt is None else prompt
        input_ids = input_ids[:, :prompt]
        mask = inputs.get("attention_mask")
        valid = torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask[:, :prompt].bool()
        if not bool(valid[:, -1].all()):
            raise ValueError(
                "the prompts are padded on the right; pad them on the left: processor(padding_side='left')"
            )
        image = image_columns(self.model, input_ids) & valid
        interventions = [one for session in self.sessions for one in session.interventions]
        watch = any(session.watch for session in self.sessions)
        with self.paused():  # an intervention may run parts of the model in begin
            self.call = call = RunningCall(
                self.model,
                inputs,
                image,
                valid,
                batch=batch,
                layers=len(self.layers),
                interventions=interventions,
                watch=watch,
            )
        if any(edit.paired for edit in call.edits):
            call.lockstep = Lockstep(lambda: self._read_without_image(input_ids, valid & ~image, inputs), call.beams)
        for edits in self._edits:
            edits.start(call)
        for index, layer in enumerate(self.layers):
            callbacks = [edit.on_hidden for edit in call.edits if edit.on_hidden and index in edit.layers]
            if callbacks:
                self._layer_handles.append(
                    layer.register_forward_pre_hook(_hidden_hook(call, index, callbacks), with_kwargs=True)
                )

    def _read_without_image(
        self, input_ids: Int[Tensor, "samples prompt"], keep: Tensor, inputs: Mapping[str, Any]
    ) -> None:
        image_free_model(self.model)(**image_free_inputs(input_ids, keep, inputs), use_cache=False, logits_to_keep=1)

    def _in_other_stream(self) -> bool:
        return self.call is not None and self.call.stream != "main"

    def _set_implementation(self, name: str) -> None:
        self.text.set_attn_implementation(name)


class _Process(LogitsProcessor):
    """Passes the logits of the next token to the interventions of the running call."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        call = self._engine.call
        if call is None or not any(edit.process for edit in call.edits):
            return scores
        with self._engine.paused():
            return call.process(input_ids, scores)


def _hidden_hook(call: RunningCall, index: int, callbacks: list[Any]) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if call.stream == "main":
            hidden = args[0] if args else kwargs["hidden_states"]
            for callback in callbacks:
                callback(index, hidden)

    return hook


def _length(kwargs: Mapping[str, Any]) -> int:
    cache = kwargs.get("cache", kwargs.get("past_key_values"))
    return 0 if cache is None else int(cache.get_seq_length())
