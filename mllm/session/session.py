"""The session: methods at work on a model, for as long as a `with` block lasts.

    with intervene(model, [VAR(), VHR()]) as session:
        tokens = session.generate(**inputs, max_new_tokens=64)
        print(session.activity)

A session without methods is the baseline to compare with: the same attention function, nothing edited.
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
from .attention import IMPLEMENTATION, WORK
from .call import Call, LayerWork
from .edit import Intervention
from .image_free import image_free_inputs, image_free_model
from .layers import attention_modules, decoder_layers, image_columns, image_token_id, text_stack
from .lockstep import Lockstep

__all__ = ["Session", "intervene"]

#: Model -> what stands in it now; a session within a session of the same model joins it.
_ENGINES: WeakKeyDictionary[PreTrainedModel, _Engine] = WeakKeyDictionary()


@contextmanager
def intervene(
    model: PreTrainedModel,
    methods: Intervention | Sequence[Intervention] = (),
    *,
    allow_inactive: bool = False,
    watch: bool = False,
) -> Iterator[Session]:
    """Put methods into a model for as long as the block lasts; afterwards the model is as it was.

    Args:
        model: a vision-language model of transformers, with its images as tokens of the prompt and a decoder-only
            language model. Any device and dtype; on several devices as accelerate laid it out.
        methods: one or several. Edits of one kind run in this order; those of an outer session come first.
        allow_inactive: accept that a method never did anything; otherwise this is an error when the block ends.
        watch: keep the attention of every new token over the prompt, for `Session.attention`.

    Raises:
        ValueError: the model has no attention that could be edited, or takes no images, or runs attention in a way
            that cannot be followed.
        RuntimeError: a method did nothing in the whole block; or the model is in a session of another thread.

    Example:
        >>> from regard.mllm import LVLM, PAI, intervene
        >>> lvlm = LVLM.load("embedded")
        >>> inputs = lvlm.prepare([lvlm.example_image()], ["describe the image in detail ."])
        >>> with intervene(lvlm.model, PAI(alpha=0.2)) as session:
        ...     tokens = session.generate(**inputs, max_new_tokens=4)
        >>> session.activity[0].active
        True
    """
    chosen = (methods,) if isinstance(methods, Intervention) else tuple(methods)
    for method in chosen:
        if not isinstance(method, Intervention):
            raise ValueError(f"{method!r} is no method: it has no name or no begin(call)")
    engine = _ENGINES.get(model)
    outermost = engine is None
    if engine is None:
        engine = _Engine(model)
    elif engine.thread != threading.get_ident():
        raise RuntimeError("another thread has a session on this model; give each thread a model of its own")
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
    idle = sorted({method.name for method in chosen} - session.fired)
    if idle and not allow_inactive:
        raise RuntimeError(
            f"{', '.join(idle)} did nothing in this session of {session.calls} call{'s' * (session.calls != 1)}: its "
            "answers are the baseline's. Look at the method's layers and thresholds, and whether the prompts have "
            "images; allow_inactive=True accepts it"
        )


class Session:
    """Methods at work on a model; made by `intervene`.

    Attributes:
        model: the model.
        methods: this session's methods.
        calls: prompts read so far.
        fired: names of the methods that have done something.
        activity: what each method did in the last call.
        details: what the methods tell of the last call, by method.
    """

    def __init__(self, engine: _Engine, methods: tuple[Intervention, ...], *, watch: bool) -> None:
        self._engine, self.methods, self.watch = engine, methods, watch
        self.model = engine.model
        self.calls = 0
        self.fired: set[str] = set()
        self.details: dict[str, dict[str, Any]] = {}
        self._activity: list[Activity] = []
        self._attention: Tensor | None = None

    @property
    def activity(self) -> list[Activity]:
        """What each method did in the last call, in the order of the methods."""
        self._engine.end_call()
        return self._activity

    def attention(self) -> Float[Tensor, "batch steps layers prompt"]:
        """How much the row that foretold each new token attended to each token of the prompt, after all edits.

        Mean over the heads, in the last call; `batch` counts the beams of each sample.

        Raises:
            ValueError: the session was not told to watch, or nothing has been read yet.
        """
        self._engine.end_call()
        if self._attention is None:
            raise ValueError("nothing was watched; write intervene(model, methods, watch=True) and run a prompt")
        return self._attention

    def generate(self, **inputs: Any) -> Any:
        """`model.generate` with the methods at work; takes and returns the same.

        Raises:
            ValueError: no `input_ids`, padding on the right, or a way of decoding that the methods cannot follow:
                assisted decoding, prefill in chunks, no cache.
        """
        config = self.model.generation_config
        for name, why in (
            ("assistant_model", "speculative decoding presents guessed tokens together with the prompt"),
            ("prompt_lookup_num_tokens", "speculative decoding presents guessed tokens together with the prompt"),
            ("prefill_chunk_size", "a prompt that is read in pieces hides its image from the methods"),
        ):
            if inputs.get(name) is not None or getattr(config, name, None) is not None:
                raise ValueError(f"a session cannot follow generate({name}=...): {why}. Leave it out")
        if not (inputs.get("use_cache", True) and config.use_cache is not False):
            raise ValueError(
                "a session cannot follow generate(use_cache=False): edited rows would be read again without their "
                "edits. Leave it out"
            )
        if inputs.get("cache_implementation") in ("static", "offloaded_static") or inputs.get("compile_config"):
            inputs.setdefault("disable_compile", True)  # the methods' state is Python's
        processors = LogitsProcessorList(inputs.pop("logits_processor", None) or [])
        processors.append(_Process(self._engine))
        with self._engine.given(inputs, prompt=None):
            generate: Any = self.model.generate
            return generate(**inputs, logits_processor=processors)

    def forward(self, *, prompt: int | None = None, **inputs: Any) -> ModelOutput:
        """`model(**inputs)` with the methods at work, without gradients.

        Args:
            prompt: how many of the tokens are the prompt; the rest is an answer, whose rows are edited as they would
                be while it was generated. All by default.
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
        """Run the model as it is, within the session."""
        with self._engine.paused():
            yield

    def record(self, activity: list[Activity], call: Call) -> None:
        """Take the account of a call that has ended."""
        self._activity = activity
        self.calls += 1
        self.fired |= {one.method for one in activity if one.active}
        self.details = {method.name: call.details.get(method.name, {}) for method in self.methods}
        self._attention = call.attention() if self.watch and call.seen else None


class _Engine:
    """What stands in a model while there are sessions: the attention function, the hooks and the running call."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.thread = model, threading.get_ident()
        self.text = text_stack(model)
        self.layers = decoder_layers(model)
        self.attention = attention_modules(model)
        image_token_id(model)
        self.sessions: list[Session] = []
        self.call: Call | None = None
        self._given: tuple[Mapping[str, Any], int | None] | None = None
        self._paused = 0
        self._handles: list[RemovableHandle] = []
        self._layer_handles: list[RemovableHandle] = []
        self._work = [LayerWork(index) for index in range(len(self.layers))]
        self._previous = str(self.text.config._attn_implementation)
        if "flash" in self._previous or self._previous.startswith(("flex", "paged")):
            raise ValueError(
                f"the language model was loaded with attn_implementation {self._previous!r}, whose weights cannot be "
                "reached; load it with attn_implementation='sdpa'"
            )
        if any(getattr(module, "_compiled_call_impl", None) is not None for module in (model, self.text)):
            raise ValueError("the model is compiled; a session's state is Python's. Give the model itself")

    def open(self) -> None:
        """Put the attention function and the hooks in."""
        self._set_implementation(IMPLEMENTATION)
        for module, work in zip(self.attention, self._work, strict=True):
            WORK[id(module)] = work
        self._handles = [
            self.model.register_forward_pre_hook(self._before_model, with_kwargs=True),
            self.text.register_forward_pre_hook(self._before_text, with_kwargs=True),
            self.text.register_forward_hook(self._after_text),
        ]

    def close(self) -> None:
        """Take everything out again."""
        for handle in (*self._handles, *self._layer_handles):
            handle.remove()
        for module in self.attention:
            WORK.pop(id(module), None)
        self._set_implementation(self._previous)

    @contextmanager
    def given(self, inputs: Mapping[str, Any], prompt: int | None) -> Iterator[None]:
        """Read the prompt of the next pass from these inputs."""
        if not isinstance(inputs.get("input_ids"), Tensor):
            raise ValueError("a session reads where the image is from input_ids, which are missing")
        tokens = inputs["input_ids"].shape[1]
        if prompt is not None and not 1 <= prompt <= tokens:
            raise ValueError(f"the prompt cannot have {prompt} tokens; the input has {tokens}")
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
        call, stream = self.call, self.call.stream if self.call else None
        self._paused += 1
        if call is not None:
            call.stream = "none"
        try:
            yield
        finally:
            self._paused -= 1
            if call is not None and stream is not None:
                call.stream = stream

    def process_rows(self, tokens: Int[Tensor, "samples tokens"], logits: Float[Tensor, "samples rows words"]) -> None:
        """Change the scores that follow the prompt and every token of a given answer, where methods work there."""
        call = self.call
        if call is None or not any(edit.process for edit in call.edits):
            return
        length = tokens.shape[1]
        with self.paused():
            for end in range(max(call.prompt, length - logits.shape[1] + 1), length + 1):
                logits[:, end - 1 - length] = call.process(tokens[:, :end], logits[:, end - 1 - length])

    def end_call(self) -> None:
        """Give the account of the running call to the sessions."""
        if self.call is None:
            return
        call, first = self.call, 0
        report = call.ledger.report()
        for session in self.sessions:
            last = first + len(session.methods)
            session.record(report[first:last], call)
            first = last
        self.drop_call()

    def drop_call(self) -> None:
        """Forget the running call."""
        ended, self.call = self.call, None
        for work in self._work:
            work.stop()
        while self._layer_handles:
            self._layer_handles.pop().remove()
        if ended is not None:
            ended.end()

    def _before_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A forward pass that the session was not told of: remember its inputs."""
        if self._paused or self._given is not None or self._reads_free() or _length(kwargs) > 0:
            return
        inputs = {**dict(zip(("input_ids",), args, strict=False)), **kwargs}
        self.end_call()
        if not isinstance(inputs.get("input_ids"), Tensor):
            raise ValueError("a session reads where the image is from input_ids, which are missing")
        self._begin(inputs, None, inputs["input_ids"].shape[0])

    def _before_text(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._paused or self._reads_free():
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
                "this pass goes on from a cache that was filled outside the session, which cannot know what it holds; "
                "give the whole prompt"
            )
        call.reading = past == 0
        call.advance(past + length, length)

    def _after_text(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        call = self.call
        if self._paused or call is None or self._reads_free():
            return
        if call.reading:
            call.reading = False
            if call.lockstep is not None:
                call.lockstep.finish()
            while self._layer_handles:
                self._layer_handles.pop().remove()

    def _begin(self, inputs: Mapping[str, Any], prompt: int | None, batch: int) -> None:
        """Start a call: the methods get ready, and the layers are told what to do."""
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
        methods = [method for session in self.sessions for method in session.methods]
        watch = any(session.watch for session in self.sessions)
        with self.paused():  # a method may run parts of the model to get ready
            self.call = call = Call(
                self.model, inputs, image, valid, batch=batch, layers=len(self.layers), methods=methods, watch=watch
            )
        if any(edit.paired for edit in call.edits):
            call.lockstep = Lockstep(call, lambda: self._read_without_image(input_ids, valid & ~image, inputs))
        for work in self._work:
            work.start(call)
        for index, layer in enumerate(self.layers):
            looks = [edit.on_hidden for edit in call.edits if edit.on_hidden and index in edit.layers]
            if looks:
                self._layer_handles.append(
                    layer.register_forward_pre_hook(_looker(call, index, looks), with_kwargs=True)
                )

    def _read_without_image(
        self, input_ids: Int[Tensor, "samples prompt"], keep: Tensor, inputs: Mapping[str, Any]
    ) -> None:
        image_free_model(self.model)(**image_free_inputs(input_ids, keep, inputs), use_cache=False, logits_to_keep=1)

    def _reads_free(self) -> bool:
        return self.call is not None and self.call.stream != "main"

    def _set_implementation(self, name: str) -> None:
        self.text.set_attn_implementation(name)


class _Process(LogitsProcessor):
    """Hands the scores of the next token to the methods of the running call."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        call = self._engine.call
        if call is None or not any(edit.process for edit in call.edits):
            return scores
        with self._engine.paused():
            return call.process(input_ids, scores)


def _looker(call: Call, index: int, looks: list[Any]) -> Any:
    def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if call.stream == "main":
            hidden = args[0] if args else kwargs["hidden_states"]
            for one in looks:
                one(index, hidden)

    return look


def _length(kwargs: Mapping[str, Any]) -> int:
    cache = kwargs.get("cache", kwargs.get("past_key_values"))
    return 0 if cache is None else int(cache.get_seq_length())
