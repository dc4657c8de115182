r"""A vision-language model with its processor: answers to questions about images, with or without interventions.

lvlm = LVLM.load("llava-hf/llava-1.5-7b-hf", dtype="bfloat16")
for answer in lvlm.answer(["kitchen.jpg"], ["What is on the table?"], interventions=[VAR(), VHR()]):
    print(answer.text, *answer.activity, sep="\n")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from .answer import Answer, activity_of_sample, token_texts
from .images import ImageInput, as_image, image_grids, seen_images
from .loading import EMBEDDED, load_model, load_processor, model_source
from .processor_inputs import answer_tokens, images_per_question
from .prompt_batches import BoundInterventions, PromptBatch, seeded
from .scoring import Scored, score_answers
from .session.contract import Intervention
from .session.image_free import image_free_inputs
from .session.model_structure import image_columns
from .session.session import Session
from .session.shared_features import shared_image_features
from .session.teacher_forcing import with_padded_answers

__all__ = ["LVLM"]

_Images = Sequence[ImageInput | Sequence[ImageInput] | None] | np.ndarray | Tensor | None


class LVLM:
    """A model of transformers that answers questions about images, and its processor.

    Args:
        model: the model, whose language model is decoder-only.
        processor: its processor; padding on the left.

    Example:
        >>> lvlm = LVLM.load("embedded")
        >>> lvlm.answer([lvlm.example_image()], ["describe the image in detail ."], max_new_tokens=5)[0].complete
        False
    """

    def __init__(self, model: PreTrainedModel, processor: Any) -> None:
        self.model, self.processor = model, processor
        self.tokenizer = processor.tokenizer

    @classmethod
    def load(
        cls,
        model: str | Path = "embedded",
        *,
        device: str | torch.device | None = None,
        device_map: Any = None,
        dtype: str | torch.dtype = "auto",
        text_attention: str = "sdpa",
        vision_attention: str = "sdpa",
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> LVLM:
        """Load a model. Only safetensors weights are read, and code in a model folder is never run.

        Args:
            model: `embedded`, the small bundled model; a model folder; or a name on the Hugging Face hub.
            device: cpu, cuda, cuda:1 ...; by default a CUDA GPU if there is one.
            device_map: several devices, as for accelerate; instead of `device`.
            dtype: float32, bfloat16 or float16; `auto` is the dtype of the file, except that float16 becomes float32
                on a CPU, where float16 is slow.
            text_attention: attention implementation of the language model; sessions need `sdpa` or `eager`.
            vision_attention: attention implementation of the vision tower.
            revision: branch, tag or commit on the hub.
            local_files_only: do not contact the hub.

        Raises:
            ValueError: no such folder, device or dtype; the model does not accept images or needs its own code; files
                are missing; the hub cannot be reached.
        """
        source = model_source(model)
        hub: dict[str, Any] = {"local_files_only": local_files_only}
        hub |= {} if revision is None else {"revision": revision}
        loaded = load_model(
            source,
            device=device,
            device_map=device_map,
            dtype=dtype,
            text_attention=text_attention,
            vision_attention=vision_attention,
            **hub,
        )
        return cls(loaded, load_processor(source, **hub))

    @staticmethod
    def example_image() -> Image.Image:
        """A rendered scene of the kind that the embedded model was trained on.

        Raises:
            ValueError: the installation does not include it.
        """
        return as_image(EMBEDDED / "example.png")

    def prepare(
        self, images: _Images, questions: Sequence[str], *, template: bool = True, answers: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Inputs of the model, on its device and in its dtype; prompts are padded on the left.

        Args:
            images: for each question an image (Pillow's, a file, an array or a tensor, see `as_image`), several, or
                `None`.
            questions: one per sample. Images come first, or at the model's image placeholders in the question.
            template: use the processor's chat template. Without one, or with `template=False`, the question is the
                whole prompt.
            answers: an answer after each prompt, for scoring; shorter ones are padded on the right.

        Raises:
            ValueError: an empty question, an image that cannot be read, or images and placeholders that do not match.
        """
        batch = self.prompt_batch(images, questions, template)
        inputs = batch.inputs()
        if answers is None:
            return inputs
        pairs = zip(batch.texts, answers, strict=True)
        return self._with_answers(inputs, [answer_tokens(self.processor, text, answer) for text, answer in pairs])

    def image_mask(self, inputs: Mapping[str, Tensor]) -> Bool[Tensor, "samples tokens"]:
        """Which tokens of each sample are image tokens."""
        return image_columns(self.model, inputs["input_ids"]) & inputs["attention_mask"].bool()

    def image_grid(self, inputs: Mapping[str, Tensor]) -> list[list[tuple[int, int]]]:
        """Rows and columns of the image tokens, for each image of each sample.

        Raises:
            ValueError: the tokens form no grid: the image was cut into tiles, or its tokens are learned queries.
        """
        return image_grids(self.model, self.processor, inputs, self.image_mask(inputs))

    def seen_images(self, inputs: Mapping[str, Tensor]) -> list[Image.Image] | None:
        """All images as given to the model, resized and cropped; `None` if the processor cuts them into patches."""
        return seen_images(self.processor, inputs)

    def without_image(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs of the same prompts without their images."""
        keep = inputs["attention_mask"].bool() & ~self.image_mask(inputs)
        return image_free_inputs(inputs["input_ids"], keep, inputs)

    def answer(
        self,
        images: _Images,
        questions: Sequence[str],
        *,
        interventions: Intervention | Sequence[Intervention] = (),
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        beams: int = 1,
        seed: int = 0,
        batch_size: int = 8,
        template: bool = True,
        allow_inactive: bool = False,
        watch: bool = False,
    ) -> list[Answer]:
        """Answer questions about images.

        Args:
            images: as in `prepare`.
            questions: as in `prepare`.
            interventions: one or several.
            max_new_tokens: maximum length of an answer, at least 1.
            temperature: 0 selects the most likely token; above 0, tokens are sampled from the whole vocabulary.
            top_p: sample from the most likely tokens with this total probability, above 0 to 1.
            beams: width of the beam search, at least 1.
            seed: of sampling, which also depends on `batch_size`. The state of torch's generators is restored.
            batch_size: number of prompts that are answered together.
            template: as in `prepare`.
            allow_inactive: accept interventions that changed nothing for all prompts; otherwise they are an error.
            watch: keep the attention to the images; not with beams, which are reordered.

        Raises:
            ValueError: a value out of its range, as `prepare`, or an intervention that does not support the model.
            RuntimeError: an intervention changed nothing for all prompts.
        """
        options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
        options |= {"beams": beams, "seed": seed, "batch_size": batch_size, "template": template, "watch": watch}
        return self.answer_arms(images, questions, {"": interventions}, allow_inactive=allow_inactive, **options)[""]

    def answer_arms(
        self,
        images: _Images,
        questions: Sequence[str],
        arms: Mapping[str, Intervention | Sequence[Intervention]],
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        beams: int = 1,
        seed: int = 0,
        batch_size: int = 8,
        template: bool = True,
        allow_inactive: bool = False,
        watch: bool = False,
    ) -> dict[str, list[Answer]]:
        """Answer the same questions with several sets of interventions.

        Every arm has the same prompts and random numbers, and images are encoded once for all arms; the answers are
        bit for bit those of `answer`.

        Args:
            images: as in `prepare`.
            questions: as in `prepare`.
            arms: name -> interventions.
            max_new_tokens: as in `answer`, like all further arguments.
            temperature: see `answer`.
            top_p: see `answer`.
            beams: see `answer`.
            seed: see `answer`.
            batch_size: see `answer`.
            template: see `answer`.
            allow_inactive: see `answer`.
            watch: see `answer`.

        Returns:
            Name -> answers.

        Raises:
            ValueError: no arms, or as `answer`.
            RuntimeError: an intervention of an arm changed nothing for all prompts.

        Example:
            >>> from regard.mllm import VHR
            >>> lvlm, arms = LVLM.load("embedded"), {"baseline": (), "vhr": VHR(alpha=1.5)}
            >>> found = lvlm.answer_arms([lvlm.example_image()], ["what is it ?"], arms, max_new_tokens=3)
            >>> list(found)
            ['baseline', 'vhr']
        """
        if max_new_tokens < 1 or beams < 1 or batch_size < 1 or temperature < 0 or not 0 < top_p <= 1:
            raise ValueError(
                "max_new_tokens, beams and batch_size must be at least 1, temperature at least 0, and 0 < top_p <= 1; "
                f"got {max_new_tokens=}, {beams=}, {batch_size=}, {temperature=}, {top_p=}"
            )
        if watch and beams > 1:
            raise ValueError(f"watch=True needs beams=1, since beams are reordered; got beams={beams}")
        if not arms:
            raise ValueError("there are no arms; give at least one, such as {'baseline': ()}")
        options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "num_beams": beams, "do_sample": temperature > 0}
        options |= {"temperature": temperature or None, "top_p": top_p if temperature else None}
        options |= {"top_k": 0 if temperature else None, "pad_token_id": self.tokenizer.pad_token_id}
        batch = self.prompt_batch(images, questions, template)
        bound = {name: BoundInterventions(self.model, own, watch=watch) for name, own in arms.items()}
        answers: dict[str, list[Answer]] = {name: [] for name in arms}
        for first in range(0, len(questions), batch_size):
            part = batch.part(range(len(questions))[first : first + batch_size])
            inputs = part.inputs()
            grids = self.image_grid(inputs) if watch else []
            with shared_image_features(self.model) if len(arms) > 1 else nullcontext():
                for name in arms:
                    with seeded(seed + first), bound[name].session(part) as session:
                        tokens = session.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
                        answers[name] += self._answers(inputs, tokens, session, grids)
        if not allow_inactive:
            for one in bound.values():
                one.check_active()
        return answers

    def score(
        self,
        images: _Images,
        questions: Sequence[str],
        answers: Sequence[str],
        *,
        interventions: Intervention | Sequence[Intervention] = (),
        normalise: bool = False,
        batch_size: int = 8,
        template: bool = True,
        allow_inactive: bool = False,
    ) -> Float[Tensor, "samples answers"]:
        """Log probability of given answers, such as yes and no, with the interventions as during generation.

        The end-of-answer token is not included: "no" is at least as likely as "no car".

        Args:
            images: as in `prepare`.
            questions: as in `prepare`.
            answers: the same for all questions.
            interventions: as in `answer`.
            normalise: return probabilities that sum to 1 over the given answers, instead of log probabilities.
            batch_size: number of prompts per forward pass.
            template: as in `prepare`.
            allow_inactive: as in `answer`.

        Returns:
            One row per question, float32 on the CPU.

        Raises:
            ValueError: no answers, or as `answer`.
            RuntimeError: an intervention changed nothing for all prompts.
        """
        options: dict[str, Any] = {"batch_size": batch_size, "template": template, "allow_inactive": allow_inactive}
        scores = self.read(images, questions, answers, interventions=interventions, **options).scores
        if not normalise:
            return scores
        return scores.softmax(dim=-1).nan_to_num(1 / len(answers))  # where an intervention excludes all of them

    def read(
        self,
        images: _Images,
        questions: Sequence[str],
        answers: Sequence[str],
        *,
        interventions: Intervention | Sequence[Intervention] = (),
        batch_size: int = 8,
        template: bool = True,
        allow_inactive: bool = False,
    ) -> Scored:
        """Score given answers: log probability, length, and whether greedy decoding would begin with them.

        Arguments and errors are those of `score`.
        """
        if isinstance(answers, str) or not answers or batch_size < 1:
            raise ValueError(
                f"answers must be a non-empty list and batch_size at least 1; got {answers!r} and {batch_size}"
            )
        bound = BoundInterventions(self.model, interventions)
        batch = self.prompt_batch(images, questions, template)
        scored = score_answers(batch, answers, bound, self._with_answers, batch_size=batch_size)
        if not allow_inactive:
            bound.check_active()
        return scored

    def prompt_batch(self, images: _Images, questions: Sequence[str], template: bool = True) -> PromptBatch:
        """The prompts before tokenization, which interventions with `bind` need; arguments as in `prepare`."""
        if isinstance(questions, str) or not len(questions):
            raise ValueError(f"questions must be a non-empty list; got {questions!r}")
        sample_images = images_per_question(images, len(questions))
        batch = PromptBatch(self.processor, questions, sample_images, template, self._to_device)
        _ = batch.texts  # raises for invalid prompts before anything runs
        return batch

    def _with_answers(self, inputs: dict[str, Tensor], answers: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        return with_padded_answers(self.model.config.model_type, inputs, answers)

    def _to_device(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        device, dtype = self.model.device, self.model.dtype
        return {
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in inputs.items()
        }

    def _answers(
        self, inputs: Mapping[str, Tensor], tokens: Tensor, session: Session, grids: list[list[tuple[int, int]]]
    ) -> list[Answer]:
        """The answers of one batch."""
        ends = self.model.generation_config.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends or ())
        activity, mask = session.activity, self.image_mask(inputs)
        seen = session.attention().mean(dim=2).float().cpu() if session.watch else None  # samples steps prompt
        answers = []
        for index, row in enumerate(tokens.tolist()):
            end = next((position for position, token in enumerate(row) if token in ends), None)
            ids, maps = row[:end], None
            if seen is not None:
                to_image = seen[index, : len(ids), mask[index].cpu()]  # tokens image
                parts = to_image.split([rows * columns for rows, columns in grids[index]], dim=-1)
                maps = tuple(part.unflatten(-1, grid) for part, grid in zip(parts, grids[index], strict=True))
            answers.append(
                Answer(
                    text=self.tokenizer.decode(ids, skip_special_tokens=True).strip(),
                    tokens=token_texts(self.tokenizer, ids),
                    complete=end is not None,
                    activity=tuple(activity_of_sample(one, index) for one in activity),
                    attention=maps,
                )
            )
        return answers
