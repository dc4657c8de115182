"""Questions and images as text and tensors of a transformers processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from .images import ImageInput, as_image

__all__ = ["answer_tokens", "images_per_question", "placeholder", "prompt_texts", "tokenised"]


def placeholder(processor: Any) -> str | None:
    """The placeholder of an image in a prompt; `None` if the processor itself puts the image first."""
    if hasattr(processor, "num_query_tokens"):
        return None
    token = getattr(processor, "image_token", None)
    return None if token is None else str(getattr(token, "content", token))


def images_per_question(
    images: Sequence[ImageInput | Sequence[ImageInput] | None] | np.ndarray | Tensor | None, questions: int
) -> list[list[Image.Image]]:
    """The images of every question, as PIL images.

    Args:
        images: for each question an image, several or none; `None` if no question has one.
        questions: number of questions.

    Raises:
        ValueError: not one entry per question, or an image that cannot be read.
    """
    if images is None:
        return [[] for _ in range(questions)]
    if isinstance(images, str | Image.Image) or not hasattr(images, "__len__"):
        raise ValueError(f"images must be a list with one entry per question; got {type(images).__name__}")
    if len(images) != questions:
        raise ValueError(
            f"{len(images)} images were given for {questions} questions; give one entry per question: an image, a "
            f"list, "
            "or None"
        )
    entries: list[Any] = [[] if one is None else one if isinstance(one, list | tuple) else [one] for one in images]
    return [[as_image(image) for image in entry] for entry in entries]


def prompt_texts(processor: Any, questions: Sequence[str], counts: Sequence[int], *, template: bool) -> list[str]:
    """The text of every prompt, with one placeholder per image.

    Args:
        processor: of the model.
        questions: one per prompt. Placeholders in a question give the positions of its images; without any, images come
            first.
        counts: number of images of each question.
        template: use the processor's chat template, if it has one.

    Raises:
        ValueError: an empty question, or not as many placeholders as images.
    """
    mark, texts = placeholder(processor), []
    for question, count in zip(questions, counts, strict=True):
        if not question.strip():
            raise ValueError("a question is empty; an example is 'describe the image in detail .'")
        if mark is None:
            if count != 1:
                raise ValueError(
                    f"{type(processor).__name__} accepts exactly one image with a prompt; {question!r} has {count}"
                )
            texts.append(question)
            continue
        placeholders = question.count(mark)
        if placeholders and count < placeholders:
            missing = "no image was given" if not count else f"{_number(count)} given"
            raise ValueError(f"the prompt {question!r} needs {_number(placeholders)} ({mark}), but {missing}")
        if count > placeholders and (placeholders or (count and not template)):
            raise ValueError(
                f"{_number(count)} given for {placeholders} placeholders in the prompt {question!r}; write {mark} at "
                f"the position of "
                "each" + ("" if template else ", or let template=True put them first")
            )
        if template and getattr(processor, "chat_template", None):
            texts.append(_chat(processor, question, mark, count))
        elif placeholders or not count:
            texts.append(question)
        else:
            texts.append(mark * count + ("" if "PaliGemma" in type(processor).__name__ else "\n") + question)
    return texts


def tokenised(
    processor: Any, texts: Sequence[str], sample_images: Sequence[Sequence[Image.Image]]
) -> dict[str, Tensor]:
    """The inputs of a model on the CPU; prompts are padded on the left."""
    given: Any = None
    if any(sample_images):
        flat = placeholder(processor) is None
        given = [image for some in sample_images for image in some] if flat else [list(some) for some in sample_images]
    made = processor(images=given, text=list(texts), padding=True, return_tensors="pt", **_special(processor, texts))
    inputs = {name: value for name, value in made.items() if isinstance(value, Tensor) and name != "labels"}
    # A processor that puts the image first also puts it before the padding.
    order = inputs["attention_mask"].argsort(dim=1, stable=True)
    for name in ("input_ids", "attention_mask"):
        inputs[name] = inputs[name].gather(1, order)
    return inputs


def answer_tokens(processor: Any, prompt: str, answer: str) -> list[int]:
    """The tokens of an answer after a prompt.

    Args:
        processor: of the model.
        prompt: text of the prompt, as from `prompt_texts`.
        answer: its text.

    Raises:
        ValueError: the answer has no tokens.
    """
    tokenizer, special = processor.tokenizer, _special(processor, [prompt])
    before = tokenizer(prompt, **special)["input_ids"]
    space = "" if prompt[-1:].isspace() or (before and before[-1] in tokenizer.all_special_ids) else " "
    both = tokenizer(prompt + space + answer.lstrip(), **special)["input_ids"]
    if both and both[-1] == tokenizer.eos_token_id != before[-1]:
        both = both[:-1]
    tokens = both[len(before) :]
    if both[: len(before)] != before:  # the tokenizer merges the end of the prompt with the answer
        tokens = tokenizer(answer, add_special_tokens=False)["input_ids"]
    if not tokens:
        raise ValueError(f"the answer {answer!r} has no tokens")
    return list(tokens)


def _chat(processor: Any, question: str, mark: str, count: int) -> str:
    texts = question.split(mark)
    between = 1 if len(texts) > 1 else count
    content: list[dict[str, str]] = [] if len(texts) > 1 else [{"type": "image"}] * between
    for index, text in enumerate(texts):
        content += [{"type": "image"}] if index else []
        content += [{"type": "text", "text": text.strip()}] if text.strip() else []
    message = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False))


def _special(processor: Any, texts: Sequence[str]) -> dict[str, bool]:
    """No second beginning-of-text token if the template already wrote one."""
    begin = processor.tokenizer.bos_token
    return {"add_special_tokens": False} if begin and all(text.startswith(begin) for text in texts) else {}


def _number(count: int) -> str:
    return "one image" if count == 1 else f"{count} images"
