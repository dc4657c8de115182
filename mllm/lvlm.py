r"""A vision-language model with its processor: questions about images in, answers out, methods at work or not.

lvlm = LVLM.load("llava-hf/llava-1.5-7b-hf", dtype="bfloat16")
for answer in lvlm.answer(["kitchen.jpg"], ["What is on the table?"], methods=[VAR(), VHR()]):
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

from .answer import Answer, of_sample, token_texts
from .images import ImageInput, as_image, image_grids, seen_images
from .loading import EMBEDDED, load_model, load_processor, model_source
from .prompt_batches import Asked, AtWork, seeded
from .prompts import answer_tokens, followed_by, sorted_images
from .scoring import Scored, score_answers
from .session.edit import Intervention
from .session.image_free import image_free_inputs
from .session.layers import image_columns
from .session.session import Session
from .shared_features import shared_image_features

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
        """Load a model. Weights are read from safetensors only, and no code that comes with a model is run.

        Args:
            model: `embedded`, the small model that comes with the package; the folder of another; or its name on the
                Hugging Face hub.
            device: cpu, cuda, cuda:1 ...; by default a GPU of CUDA if there is one.
            device_map: several devices, as accelerate takes them; instead of `device`.
            dtype: float32, bfloat16 or float16; `auto` is that of the file, but on a CPU float32 for float16, which is
                slow there.
            text_attention: attention of the language model; sessions need `sdpa` or `eager`.
            vision_attention: attention of the vision tower.
            revision: branch, tag or commit on the hub.
            local_files_only: never ask the hub.

        Raises:
            ValueError: no such folder, device or dtype; the model takes no images or needs code of its own; files are
                missing; the hub cannot be reached.
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
        """A rendered scene of the kind that the embedded model knows.

        Raises:
            ValueError: this installation has none.
        """
        return as_image(EMBEDDED / "example.png")

    def prepare(
        self, images: _Images, questions: Sequence[str], *, template: bool = True, answers: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Inputs of the model, on its device and in its dtype; prompts are padded on the left.

        Args:
            images: for each question an image (Pillow's, a file, an array or a tensor, see `as_image`), several, or
                `None`.
            questions: what is asked. Images come first, or where the question has the model's placeholder for them.
            template: put the question into the processor's chat template. Without one, or with `template=False`, the
                question is the whole prompt.
            answers: what follows each prompt, to score it; the shorter are padded on the right.

        Raises:
            ValueError: an empty question, an image that cannot be read, or images and placeholders that do not match.
        """
        asked = self.asked(images, questions, template)
        inputs = asked.inputs()
        if answers is None:
            return inputs
        pairs = zip(asked.texts, answers, strict=True)
        return self._followed_by(inputs, [answer_tokens(self.processor, text, answer) for text, answer in pairs])

    def image_mask(self, inputs: Mapping[str, Tensor]) -> Bool[Tensor, "samples tokens"]:
        """Which tokens of each sample stand for a piece of an image."""
        return image_columns(self.model, inputs["input_ids"]) & inputs["attention_mask"].bool()

    def image_grid(self, inputs: Mapping[str, Tensor]) -> list[list[tuple[int, int]]]:
        """How the tokens of each image of each sample lie in it: rows and columns.

        Raises:
            ValueError: they lie on no grid, and why: the image was cut into tiles, or its tokens are queries.
        """
        return image_grids(self.model, self.processor, inputs, self.image_mask(inputs))

    def seen_images(self, inputs: Mapping[str, Tensor]) -> list[Image.Image] | None:
        """All images as the model sees them, cropped to what it sees; `None` if it takes the given ones apart."""
        return seen_images(self.processor, inputs)

    def without_image(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same prompts without their images."""
        keep = inputs["attention_mask"].bool() & ~self.image_mask(inputs)
        return image_free_inputs(inputs["input_ids"], keep, inputs)

    def answer(
        self,
        images: _Images,
        questions: Sequence[str],
        *,
        methods: Intervention | Sequence[Intervention] = (),
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
            methods: what is at work meanwhile.
            max_new_tokens: longest answer, in tokens, at least 1.
            temperature: 0 takes the likeliest token; above, tokens are drawn, from the whole vocabulary.
            top_p: draw from the likeliest tokens that together have this probability, above 0 to 1.
            beams: width of the beam search, at least 1.
            seed: of the draws, which also depend on `batch_size`. The state of torch's generators is left as it was.
            batch_size: prompts that are answered together.
            template: as in `prepare`.
            allow_inactive: accept that a method did nothing for all these prompts; otherwise that is an error.
            watch: keep the attention to the images; not with beams, which change places.

        Raises:
            ValueError: a value out of its range, what `prepare` raises, or a method that cannot work here.
            RuntimeError: a method did nothing, for all prompts.
        """
        options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
        options |= {"beams": beams, "seed": seed, "batch_size": batch_size, "template": template, "watch": watch}
        return self.answer_arms(images, questions, {"": methods}, allow_inactive=allow_inactive, **options)[""]

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
        """Answer the same questions with one set of methods after the other.

        Every arm is given the same prompts and draws, and the images are encoded once for all of them; answers are
        those of `answer`, to the last bit.

        Args:
            images: as in `prepare`.
            questions: as in `prepare`.
            arms: name -> methods.
            max_new_tokens: as in `answer`, like all that follow.
            temperature: see there.
            top_p: see there.
            beams: see there.
            seed: see there.
            batch_size: see there.
            template: see there.
            allow_inactive: see there.
            watch: see there.

        Returns:
            Name -> answers.

        Raises:
            ValueError: no arms, or what `answer` raises.
            RuntimeError: a method of an arm did nothing, for all prompts.

        Example:
            >>> from regard.mllm import VHR
            >>> lvlm, arms = LVLM.load("embedded"), {"baseline": (), "vhr": VHR(alpha=1.5)}
            >>> found = lvlm.answer_arms([lvlm.example_image()], ["what is it ?"], arms, max_new_tokens=3)
            >>> list(found)
            ['baseline', 'vhr']
        """
        if max_new_tokens < 1 or beams < 1 or batch_size < 1 or temperature < 0 or not 0 < top_p <= 1:
            raise ValueError(
                "max_new_tokens, beams and batch_size are at least 1, temperature is at least 0, and 0 < top_p <= 1; "
                f"got {max_new_tokens=}, {beams=}, {batch_size=}, {temperature=}, {top_p=}"
            )
        if watch and beams > 1:
            raise ValueError(f"the attention of {beams} beams cannot be watched, since they change places; beams=1 can")
        if not arms:
            raise ValueError("there are no arms to answer; give one at least, such as {'baseline': ()}")
        options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "num_beams": beams, "do_sample": temperature > 0}
        options |= {"temperature": temperature or None, "top_p": top_p if temperature else None}
        options |= {"top_k": 0 if temperature else None, "pad_token_id": self.tokenizer.pad_token_id}
        asked = self.asked(images, questions, template)
        work = {name: AtWork(self.model, methods, watch=watch) for name, methods in arms.items()}
        answers: dict[str, list[Answer]] = {name: [] for name in arms}
        for first in range(0, len(questions), batch_size):
            part = asked.part(range(len(questions))[first : first + batch_size])
            inputs = part.inputs()
            grids = self.image_grid(inputs) if watch else []
            with shared_image_features(self.model) if len(arms) > 1 else nullcontext():
                for name in arms:
                    with seeded(seed + first), work[name].on(part) as session:
                        tokens = session.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
                        answers[name] += self._answers(inputs, tokens, session, grids)
        if not allow_inactive:
            for one in work.values():
                one.check()
        return answers

    def score(
        self,
        images: _Images,
        questions: Sequence[str],
        answers: Sequence[str],
        *,
        methods: Intervention | Sequence[Intervention] = (),
        normalise: bool = False,
        batch_size: int = 8,
        template: bool = True,
        allow_inactive: bool = False,
    ) -> Float[Tensor, "samples answers"]:
        """Log probability of given answers, such as yes and no, each with the methods at work as if it were generated.

        An answer's end is no part of it: "no" is at least as likely as "no car".

        Args:
            images: as in `prepare`.
            questions: as in `prepare`.
            answers: the same for all questions.
            methods: as in `answer`.
            normalise: the probabilities of these answers beside each other, summing to 1, instead of logarithms.
            batch_size: prompts that are read together.
            template: as in `prepare`.
            allow_inactive: as in `answer`.

        Returns:
            One row for each question, on the CPU in float32.

        Raises:
            ValueError: no answers, or what `answer` raises.
            RuntimeError: a method did nothing, for all prompts.
        """
        options: dict[str, Any] = {"batch_size": batch_size, "template": template, "allow_inactive": allow_inactive}
        scores = self.read(images, questions, answers, methods=methods, **options).scores
        if not normalise:
            return scores
        return scores.softmax(dim=-1).nan_to_num(1 / len(answers))  # where a method rules all of them out

    def read(
        self,
        images: _Images,
        questions: Sequence[str],
        answers: Sequence[str],
        *,
        methods: Intervention | Sequence[Intervention] = (),
        batch_size: int = 8,
        template: bool = True,
        allow_inactive: bool = False,
    ) -> Scored:
        """Read given answers: their log probability as `score` gives it, their length, and whether they are likeliest.

        Arguments and errors are those of `score`.
        """
        if isinstance(answers, str) or not answers or batch_size < 1:
            raise ValueError(
                f"score takes a list of answers and a batch_size of at least 1; got {answers!r}, {batch_size}"
            )
        work = AtWork(self.model, methods)
        asked = self.asked(images, questions, template)
        scored = score_answers(asked, answers, work, self._followed_by, batch_size=batch_size)
        if not allow_inactive:
            work.check()
        return scored

    def asked(self, images: _Images, questions: Sequence[str], template: bool = True) -> Asked:
        """Prompts as they are asked, for what works on batches of them; arguments as in `prepare`."""
        if isinstance(questions, str) or not len(questions):
            raise ValueError(f"questions is a list of one question or more; got {questions!r}")
        sample_images = sorted_images(images, len(questions))
        asked = Asked(self.processor, questions, sample_images, template, self._placed)
        _ = asked.texts  # what is wrong with any prompt is said before anything runs
        return asked

    def _followed_by(self, inputs: dict[str, Tensor], answers: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        return followed_by(self.model.config.model_type, inputs, answers)

    def _placed(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
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
            end = next((place for place, token in enumerate(row) if token in ends), None)
            ids, views = row[:end], None
            if seen is not None:
                columns = seen[index, : len(ids), mask[index].cpu()]  # tokens image
                parts = columns.split([rows * across for rows, across in grids[index]], dim=-1)
                views = tuple(part.unflatten(-1, grid) for part, grid in zip(parts, grids[index], strict=True))
            answers.append(
                Answer(
                    text=self.tokenizer.decode(ids, skip_special_tokens=True).strip(),
                    tokens=token_texts(self.tokenizer, ids),
                    complete=end is not None,
                    activity=tuple(of_sample(one, index) for one in activity),
                    attention=views,
                )
            )
        return answers
