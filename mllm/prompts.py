"""Prompts: questions and images in the form in which a model of transformers reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .answers import with_answers
from .images import ImageInput, as_image

__all__ = ["answer_tokens", "followed_by", "placeholder", "prompt_texts", "sorted_images", "tokenised"]


def placeholder(processor: Any) -> str | None:
    """What stands for an image in a prompt; `None` where the processor puts the image in front by itself."""
    if hasattr(processor, "num_query_tokens"):
        return None
    token = getattr(processor, "image_token", None)
    return None if token is None else str(getattr(token, "content", token))


def sorted_images(
    images: Sequence[ImageInput | Sequence[ImageInput] | None] | np.ndarray | Tensor | None, questions: int
) -> list[list[Image.Image]]:
    """The images of every question.

    Args:
        images: for each question an image, several or none; `None` for none at all.
        questions: how many there are.

    Raises:
        ValueError: not one entry for each question, or an image that cannot be read.
    """
    if images is None:
        return [[] for _ in range(questions)]
    if isinstance(images, str | Image.Image) or not hasattr(images, "__len__"):
        raise ValueError(f"images is a list with one entry for each question; got {type(images).__name__}")
    if len(images) != questions:
        raise ValueError(
            f"{len(images)} images were given for {questions} questions; give one entry for each question: an image, "
            "a list of several, or None"
        )
    entries: list[Any] = [[] if one is None else one if isinstance(one, list | tuple) else [one] for one in images]
    return [[as_image(image) for image in entry] for entry in entries]


def prompt_texts(processor: Any, questions: Sequence[str], counts: Sequence[int], *, template: bool) -> list[str]:
    """The text of every prompt, with a placeholder for every image.

    Args:
        processor: of the model.
        questions: what is asked. Placeholders in a question say where its images belong; without any they come first.
        counts: images of each question.
        template: use the processor's chat template, if it has one.

    Raises:
        ValueError: an empty question, or placeholders that are more or fewer than the images.
    """
    mark, texts = placeholder(processor), []
    for question, count in zip(questions, counts, strict=True):
        if not question.strip():
            raise ValueError("a question is empty; ask something, such as 'describe the image in detail .'")
        if mark is None:
            if count != 1:
                raise ValueError(
                    f"{type(processor).__name__} takes exactly one image with a prompt; {question!r} has {count}"
                )
            texts.append(question)
            continue
        places = question.count(mark)
        if places and count < places:
            missing = "no image was given" if not count else f"{_number(count)} given"
            raise ValueError(f"the prompt {question!r} needs {_number(places)} ({mark}), but {missing}")
        if count > places and (places or (count and not template)):
            raise ValueError(
                f"{_number(count)} given for {places} placeholders in the prompt {question!r}; write {mark} where each "
                "belongs" + ("" if template else ", or let template=True put them first")
            )
        if template and getattr(processor, "chat_template", None):
            texts.append(_chat(processor, question, mark, count))
        elif places or not count:
            texts.append(question)
        else:
            texts.append(mark * count + ("" if "PaliGemma" in type(processor).__name__ else "\n") + question)
    return texts


def tokenised(
    processor: Any, texts: Sequence[str], sample_images: Sequence[Sequence[Image.Image]]
) -> dict[str, Tensor]:
    """The inputs of a model on the CPU; prompts of different length are padded on the left."""
    given: Any = None
    if any(sample_images):
        flat = placeholder(processor) is None
        given = [image for some in sample_images for image in some] if flat else [list(some) for some in sample_images]
    made = processor(images=given, text=list(texts), padding=True, return_tensors="pt", **_special(processor, texts))
    inputs = {name: value for name, value in made.items() if isinstance(value, Tensor) and name != "labels"}
    # A processor that puts the image in front puts it before the padding, too.
    order = inputs["attention_mask"].argsort(dim=1, stable=True)
    for name in ("input_ids", "attention_mask"):
        inputs[name] = inputs[name].gather(1, order)
    return inputs


def answer_tokens(processor: Any, prompt: str, answer: str) -> list[int]:
    """The tokens of an answer as they follow a prompt.

    Args:
        processor: of the model.
        prompt: text of the prompt, as `prompt_texts` makes it.
        answer: what follows.

    Raises:
        ValueError: the answer has no tokens.
    """
    tokenizer, special = processor.tokenizer, _special(processor, [prompt])
    before = tokenizer(prompt, **special)["input_ids"]
    blank = "" if prompt[-1:].isspace() or (before and before[-1] in tokenizer.all_special_ids) else " "
    both = tokenizer(prompt + blank + answer.lstrip(), **special)["input_ids"]
    if both and both[-1] == tokenizer.eos_token_id != before[-1]:
        both = both[:-1]
    tokens = both[len(before) :]
    if both[: len(before)] != before:  # the tokenizer joins the end of the prompt with the answer
        tokens = tokenizer(answer, add_special_tokens=False)["input_ids"]
    if not tokens:
        raise ValueError(f"the answer {answer!r} has no tokens")
    return list(tokens)


def followed_by(model_type: str, inputs: Mapping[str, Tensor], answers: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Inputs whose prompts are followed by answers of different length, padded on the right.

    Args:
        model_type: of the model's configuration.
        inputs: of the prompts, padded on the left.
        answers: tokens of each.

    Example:
        >>> prompts = {"input_ids": torch.tensor([[5, 6], [5, 7]]), "attention_mask": torch.ones(2, 2).long()}
        >>> followed_by("llava", prompts, [[8], [8, 9]])["attention_mask"].tolist()
        [[1, 1, 1, 0], [1, 1, 1, 1]]
    """
    longest, ids = max(map(len, answers)), inputs["input_ids"]
    padded = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens in answers], dtype=ids.dtype)
    longer = with_answers(model_type, inputs, padded.view(len(ids), longest).to(ids.device))
    for mask, tokens in zip(longer["attention_mask"], answers, strict=True):
        mask[ids.shape[1] + len(tokens) :] = 0
    return longer


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
    """No second token for the beginning where the template wrote one."""
    begin = processor.tokenizer.bos_token
    return {"add_special_tokens": False} if begin and all(text.startswith(begin) for text in texts) else {}


def _number(count: int) -> str:
    return "one image" if count == 1 else f"{count} images"
