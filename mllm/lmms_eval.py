r"""The model `regard` of lmms-eval: its tasks on a vision-language model with interventions.

    pip install "regard[lmms]"
    python -m lmms_eval --model regard --tasks pope,mme --batch_size 8 \
        --model_args 'pretrained=llava-hf/llava-1.5-7b-hf,fix=vhr(alpha=1.5)'

Without `fix` it is the baseline. Values with commas are quoted: 'fix="vhr:alpha=1.5,layers=8:,pai"'. The other
arguments are those of `Regard`. `accelerate launch` and `torchrun` share the questions among processes, and --use_cache
keeps answers, as with lmms-eval's own models. From Python:

    simple_evaluate(Regard(lvlm, fix=[VHR()]), tasks=["pope"])

Contract: EvolvingLMMs-Lab/lmms-eval 0.7.3, `api/model.py` and the entry points `lmms_eval.models`. Its comments and its
own models differ about `loglikelihood`; this follows the models: the mean loss per token, of which tasks take the
smallest, without the end-of-answer token. Prompts use the model's chat template, with the images first, or at the
positions of `<image>` in the question.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .interventions import parse_interventions
from .lmms_requests import MARK, Options, Question, batched, images_of, with_marks

try:
    from lmms_eval.api.instance import GenerationResult, TokenCounts, unwrap_generation_output
    from lmms_eval.api.model import lmms
except ModuleNotFoundError:  # the module can be imported without lmms-eval, but the model cannot be created
    lmms = object

if TYPE_CHECKING:
    from .answer import Answer
    from .lvlm import LVLM
    from .session.contract import Intervention

__all__ = ["Regard", "manifest"]

_LOG = logging.getLogger(__name__)


def manifest() -> Any:
    """The description of the model for lmms-eval, through the entry point `regard`."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="regard", simple_class_path=f"{__name__}.Regard")


class Regard(lmms):  # type: ignore[misc, valid-type, unused-ignore]
    """A vision-language model with interventions, as a model of lmms-eval.

    Args:
        pretrained: as in `LVLM.load`; or an `LVLM`.
        fix: interventions, as text or objects; none is the baseline.
        batch_size: number of questions that are answered together.
        device: as in `LVLM.load`; with several processes each uses its own GPU.
        device_map: as in `LVLM.load`.
        dtype: as in `LVLM.load`.
        text_attention: as in `LVLM.load`.
        vision_attention: as in `LVLM.load`.
        revision: as in `LVLM.load`.
        template: put questions into the model's chat template.
        seed: of sampling, if a task uses it; every batch and process derives its own.
        allow_inactive: accept interventions that changed nothing for all questions; otherwise they are an error at the
            end, since the scores would be the baseline's.
        unknown: any other argument is an error.

    Raises:
        ImportError: lmms-eval is not installed.
        ValueError: an unknown argument, an invalid batch size, or as `LVLM.load` and `parse_interventions`.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str | Path | LVLM = "embedded",
        fix: str | Sequence[Intervention] = (),
        *,
        batch_size: int | str = 1,
        device: str | None = None,
        device_map: Any = None,
        dtype: str = "auto",
        text_attention: str = "sdpa",
        vision_attention: str = "sdpa",
        revision: str | float | None = None,
        template: bool = True,
        seed: int = 0,
        allow_inactive: bool = False,
        **unknown: Any,
    ) -> None:
        if lmms is object:
            raise ImportError('lmms-eval is not installed; pip install "regard[lmms]"')
        if unknown:
            raise ValueError(
                f"the model regard of lmms-eval has no argument {', '.join(map(repr, unknown))}; options "
                'with commas are quoted, as in fix="vhr:alpha=1.5,layers=8:"'
            )
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise ValueError(f"batch_size must be an integer of at least 1; got {batch_size!r}")
        super().__init__()
        from .lvlm import LVLM

        self.interventions = _interventions(fix)
        self.batch_size, self.template, self.seed, self.allow_inactive = int(batch_size), template, seed, allow_inactive
        self._own = not isinstance(pretrained, LVLM)
        if isinstance(pretrained, LVLM):
            self.lvlm = pretrained
        else:
            self.lvlm = LVLM.load(
                pretrained,
                device=None if device_map else _device(device),
                device_map=device_map,
                dtype=dtype,
                text_attention=text_attention,
                vision_attention=vision_attention,
                revision=None if revision is None else str(revision),
            )
        self._batches = self._asked = 0
        self._active: set[str] = set()
        self._said: set[str] = set()

    @property
    def device(self) -> Any:
        """Where the model is."""
        return self.lvlm.model.device

    def generate_until(self, requests: Sequence[Any]) -> list[Any]:
        """Answers, in the order of the requests."""
        questions = []
        for request in requests:
            text, given, visuals, *location = request.args
            questions.append(self._question(text, self._loader(visuals, *location), given))
        found: list[Any] = [None] * len(requests)
        for index, answer in self._answers(questions):
            text = questions[index].options.cut(answer.text)
            found[index] = GenerationResult(text, TokenCounts(output_tokens=len(answer.tokens)))
            self.cache_hook.add_partial("generate_until", (questions[index].text, questions[index].given), text)
        return found

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[list[str]]:
        """Answers of every round, in the order of the requests; all requests go through a round together."""
        replies: list[list[str]] = [[] for _ in requests]
        notes: list[Any] = [None] * len(requests)
        open_questions: dict[int, Question] = {}
        for index, request in enumerate(requests):
            text, given, visuals, _, *location = request.args
            open_questions[index] = self._question(text, self._loader(visuals, *location), given)
        for round_index in itertools.count(1):
            if not open_questions:
                break
            order = list(open_questions)
            for position, answer in self._answers([open_questions[index] for index in order]):
                index = order[position]
                replies[index].append(open_questions[index].options.cut(answer.text))
            for index in order:
                ask, *location = requests[index].args[3:]
                load_images, text, ended, outputs, notes[index] = ask(
                    self._document(*location),
                    previous_output=list(replies[index]),
                    round_idx=round_index,
                    previous_round_info=notes[index],
                )
                replies[index] = replies[index] if outputs is None else list(outputs)
                if ended:
                    del open_questions[index]
                else:
                    given = requests[index].args[1]
                    open_questions[index] = self._question(text, self._loader(load_images), given)
        for request, texts in zip(requests, replies, strict=True):
            self.cache_hook.add_partial("generate_until_multi_round", (request.args[0], request.args[1]), texts)
        return replies

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """For each request the mean loss of a token of the given answer, and whether greedy decoding begins with it.

        They are pairs. lmms-eval 0.7.3 makes a text of every pair that a model returns, so that none of its tasks of
        multiple choice can be counted; there they come wrapped, which keeps them. Its --use_cache cannot keep them.

        Raises:
            ValueError: a request has an answer and no question, as those of the metric acc_mutual_info.
        """
        asked: dict[tuple[Any, ...], dict[str, list[int]]] = {}
        load_images: dict[tuple[Any, ...], Callable[[], Any]] = {}
        for index, request in enumerate(requests):
            if len(request.args) != 6:
                raise ValueError(
                    "a request has an answer and no question, so that there is no image; metrics such as "
                    "acc_mutual_info need that, acc and acc_norm do not"
                )
            text, target, visuals, *location = request.args
            answer = target(self._document(*location)) if callable(target) else str(target)
            asked.setdefault((text, *location), {}).setdefault(answer, []).append(index)
            load_images[text, *location] = self._loader(visuals, *location)
        found: list[Any] = [None] * len(requests)
        for keys in batched(asked, lambda key: tuple(asked[key]), self.batch_size):
            answers = list(asked[keys[0]])
            images = [images_of(load_images[key]()) for key in keys]
            read = self.lvlm.read(
                images,
                self._marked([key[0] for key in keys], images),
                answers,
                interventions=self.interventions,
                batch_size=self.batch_size,
                template=self.template,
                allow_inactive=True,
            )
            self._count(len(keys), read.active)
            losses = (-read.scores / read.lengths).tolist()
            for row, key in enumerate(keys):
                for column, answer in enumerate(answers):
                    pair = losses[row][column], bool(read.greedy[row, column])
                    for index in asked[key][answer]:
                        found[index] = _kept(pair)
                        self.cache_hook.add_partial("loglikelihood", requests[index].args, pair)
        return found

    def clean(self) -> None:
        """Release the model, if it was loaded here; lmms-eval calls this at the end.

        Raises:
            RuntimeError: an intervention changed nothing for all questions of all processes.
        """
        inactive = self._inactive()
        if self._own:
            del self.lvlm
        super().clean()
        self._asked, self._active = 0, set()
        if inactive and not self.allow_inactive:
            raise RuntimeError(
                f"{inactive}, so the scores would be the baseline's. Check the "
                "layers and thresholds, and that the tasks have images; allow_inactive=true accepts this"
            )

    def _answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """Answers with the indices of their questions, in batches of questions with the same options."""
        from tqdm import tqdm

        longest_first = sorted(range(len(questions)), key=lambda index: -len(questions[index].text))
        with tqdm(total=len(questions), disable=self.rank != 0, desc="regard") as bar:
            for batch in batched(longest_first, lambda index: questions[index].options, self.batch_size):
                options = questions[batch[0]].options
                images = [images_of(questions[index].load_images()) for index in batch]
                answers = self.lvlm.answer(
                    images,
                    self._marked([questions[index].text for index in batch], images),
                    interventions=self.interventions,
                    max_new_tokens=options.max_new_tokens,
                    temperature=options.temperature,
                    top_p=options.top_p,
                    beams=options.beams,
                    seed=self.seed + self._batches * self.world_size + self.rank,
                    batch_size=len(batch),
                    template=self.template,
                    allow_inactive=True,
                )
                self._count(
                    len(batch), {one.intervention for answer in answers for one in answer.activity if one.active}
                )
                yield from zip(batch, answers, strict=True)
                bar.update(len(batch))

    def _question(self, text: str, load_images: Callable[[], Any], given: Mapping[str, Any]) -> Question:
        options, ignored = Options.of(given)
        for name in ignored:
            self._say(f"the task's option {name}={given[name]!r} is ignored by the model regard")
        return Question(text, load_images, options, given)

    def _document(self, doc_id: Any, task: str, split: str) -> Any:
        return self.task_dict[task][split][doc_id]

    def _loader(self, visuals: Any, *location: Any) -> Callable[[], Any]:
        return lambda: visuals(self._document(*location)) if callable(visuals) else visuals

    def _marked(self, texts: Sequence[str], images: Sequence[Sequence[Any]]) -> list[str]:
        """Questions in the model's form."""
        from .processor_inputs import placeholder

        own, marked = placeholder(self.lvlm.processor), []
        for text, some in zip(texts, images, strict=True):
            if text.count(MARK) not in (0, len(some)):
                self._say(f"some questions do not have one {MARK} per image; it is removed, and images come first")
            marked.append(with_marks(text, len(some), own))
        return marked

    def _count(self, asked: int, active: Iterable[str]) -> None:
        first, self._asked, self._batches = not self._asked, self._asked + asked, self._batches + 1
        self._active.update(active)
        inactive = [one.name for one in self.interventions if one.name not in self._active]
        if first and inactive:
            self._say(f"{', '.join(inactive)} changed nothing for the first {asked} questions")

    def _inactive(self) -> str:
        """A message about inactive interventions, the same in all processes; empty if there are none."""
        from torch import distributed

        asked, active = self._asked, self._active
        if distributed.is_available() and distributed.is_initialized():
            counts: list[Any] = [None] * distributed.get_world_size()
            distributed.all_gather_object(counts, (asked, active))
            asked, active = sum(one[0] for one in counts), set().union(*(one[1] for one in counts))
        inactive = [one.name for one in self.interventions if one.name not in active]
        text = f"{', '.join(inactive)} changed nothing for any of {asked} questions" if inactive and asked else ""
        if text:
            _LOG.error(text)
        return text

    def _say(self, text: str) -> None:
        """Warn, once."""
        if text not in self._said:
            _LOG.warning(text)
        self._said.add(text)


def _interventions(fix: str | Sequence[Intervention]) -> tuple[Intervention, ...]:
    """Interventions from text, which lmms-eval passes on with its quotes."""
    if not isinstance(fix, str):
        return tuple(fix)
    text = fix.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    return parse_interventions(text) if text else ()


def _kept(pair: tuple[float, bool]) -> Any:
    """A pair in a form that lmms-eval's evaluator passes on to the task unchanged."""
    return pair if unwrap_generation_output(pair)[0] == pair else GenerationResult(pair)


def _device(device: str | None) -> str | None:
    """A GPU for each process that `accelerate launch` or `torchrun` started."""
    import torch

    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and device in (None, "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return device
