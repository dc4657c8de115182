"""The requests of lmms-eval: options of an answer, images, and their placeholders in the question.

Source: EvolvingLMMs-Lab/lmms-eval 0.7.3, what its tasks pass to its own models.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

__all__ = ["MARK", "Options", "Question", "batched", "images_of", "with_marks"]

#: Placeholder of an image in the questions of tasks.
MARK = "<image>"
#: Options without effect here: image tiling of other models, and options of lmms-eval itself.
_MEANT_FOR_OTHERS = frozenset(("image_aspect_ratio", "max_agentic_steps"))
_IMAGE_FILES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_Item = TypeVar("_Item")


class Options(NamedTuple):
    """How an answer is generated.

    Attributes:
        max_new_tokens: maximum length of an answer.
        temperature: 0 selects the most likely token.
        top_p: as in `LVLM.answer`.
        beams: width of the beam search.
        until: texts before which an answer ends. An empty line is ignored: lmms-eval adds it to every task without
            `until`, and its own models ignore it.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    beams: int
    until: tuple[str, ...]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> tuple[Options, list[str]]:
        """Options from those of a task, and the names of ignored options.

        Answers are sampled if the temperature is above 0, unless the task has `do_sample: false`.

        Example:
            >>> Options.of({"max_new_tokens": 16, "do_sample": False, "temperature": 0.7, "until": "."})[0]
            Options(max_new_tokens=16, temperature=0.0, top_p=1.0, beams=1, until=('.',))
        """
        left = {name: value for name, value in given.items() if value is not None and name not in _MEANT_FOR_OTHERS}
        until = left.pop("until", ())
        draws = left.pop("do_sample", None)
        temperature = float(left.pop("temperature", 1.0 if draws else 0.0))
        top_p = float(left.pop("top_p", 1.0))
        drawn = temperature > 0 and top_p > 0 and draws is not False
        options = cls(
            max_new_tokens=int(left.pop("max_new_tokens", 1024)),
            temperature=temperature if drawn else 0.0,
            top_p=top_p if drawn else 1.0,
            beams=int(left.pop("num_beams", 1)),
            until=tuple(text for text in ([until] if isinstance(until, str) else until) if text not in ("", "\n\n")),
        )
        return options, sorted(left)

    def cut(self, text: str) -> str:
        """The text before the first of `until`."""
        return text[: min((text.find(end) for end in self.until if end in text), default=len(text))].rstrip()


class Question(NamedTuple):
    """A question.

    Attributes:
        text: of the question.
        load_images: loads its images when they are needed.
        options: of the answer.
        given: the options of the task.
    """

    text: str
    load_images: Callable[[], Any]
    options: Options
    given: Mapping[str, Any]


def images_of(shown: Any) -> list[Any]:
    """The images of a question, however they are nested.

    Raises:
        ValueError: an entry is not an image, such as a video or sound.

    Example:
        >>> images_of(["a.png", ["b.jpg"]]), images_of(None)
        (['a.png', 'b.jpg'], [])
    """
    if shown is None:
        return []
    if isinstance(shown, list | tuple):
        return [image for one in shown for image in images_of(one)]
    if isinstance(shown, dict) or (isinstance(shown, str) and not shown.lower().endswith(_IMAGE_FILES)):
        what = repr(shown) if isinstance(shown, str) else f"something with {', '.join(map(str, shown))}"
        raise ValueError(
            f"the task has {what:.200}, but the model regard supports images only, neither video nor sound; "
            "choose a task about images, or one of lmms-eval's own models"
        )
    return [shown]


def with_marks(question: str, images: int, own: str | None) -> str:
    """A question with the model's own placeholders where it has one for each image; otherwise without any.

    Args:
        question: with `MARK` for every image, or for none.
        images: how many there are.
        own: the placeholder of the model, if it has one.

    Example:
        >>> with_marks("Is <image> like <image>?", 2, "<pad>"), with_marks("<image>Is it red?", 2, "<pad>")
        ('Is <pad> like <pad>?', 'Is it red?')
    """
    return question.replace(MARK, own if own and question.count(MARK) == images else "")


def batched(items: Iterable[_Item], kind: Callable[[_Item], Hashable], size: int) -> Iterator[list[_Item]]:
    """Batches of at most `size` items of the same kind.

    Example:
        >>> list(batched([1, 2, 3, 4, 5], lambda number: number % 2, 2))
        [[1, 3], [5], [2, 4]]
    """
    groups: dict[Hashable, list[_Item]] = {}
    for item in items:
        groups.setdefault(kind(item), []).append(item)
    for group in groups.values():
        yield from (group[first : first + size] for first in range(0, len(group), size))
