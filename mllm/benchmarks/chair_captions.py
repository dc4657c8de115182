"""The objects that a caption names, read with CHAIR's words.

Two readings. `official` does what the script does (LisaAnne/Hallucination@6e4d33c, utils/chair.py): "bus", "motor bike"
and "cheesecake" are never found, since they are lost on the way, and a "stove top oven" is two. `fixed` finds them, and
does not take the "baby" or "adult" of any animal for a person.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import singular, tokens
from .chair_words import vocabulary

__all__ = ["Mention", "Reading", "read_caption"]


@dataclass(frozen=True, kw_only=True)
class Mention:
    """An object that a caption names.

    Attributes:
        word: as the caption has it, singular.
        name: its class.
        index: of its first word among the words of the caption, before two are joined.
    """

    word: str
    name: str
    index: int


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A caption, read.

    Attributes:
        words: singular, some of them joined.
        mentions: the objects, in order.
    """

    words: tuple[str, ...]
    mentions: tuple[Mention, ...]


def read_caption(caption: str, mode: str = "official", synonyms: str = "") -> Reading:
    """The objects that a caption names.

    Args:
        caption: in English.
        mode: `official` or `fixed`.
        synonyms: as in `vocabulary`.

    Example:
        >>> [mention.name for mention in read_caption("A puppy and two women on a bus.").mentions]
        ['dog', 'person']
        >>> [mention.name for mention in read_caption("A puppy and two women on a bus.", "fixed").mentions]
        ['dog', 'person', 'bus']
    """
    known = vocabulary(mode, synonyms)
    make_singular = singular.official_singular if mode == "official" else singular.fixed_singular
    plain = [make_singular(word) for word in tokens.words(caption.lower())]
    lengths = (2,) if mode == "official" else (3, 2)
    words, starts, start = [], [], 0
    while start < len(plain):
        starts.append(start)
        for length in lengths:
            phrase = " ".join(plain[start : start + length])
            if phrase in known.joined:
                words.append(known.joined[phrase])
                start += length
                break
        else:
            words.append(plain[start])
            start += 1
    kept = list(zip(words, starts, strict=True))
    if "toilet" in words and "seat" in words:  # the seat of a toilet is not a chair
        left = [(word, position) for word, position in kept if word != "seat"]
        # The script drops the words but not their positions, so that later ones have the position of an earlier word.
        kept = left if mode == "fixed" else [(word, starts[n]) for n, (word, _) in enumerate(left)]
    mentions = tuple(
        Mention(word=word, name=known.classes[word], index=position) for word, position in kept if word in known.classes
    )
    return Reading(words=tuple(words), mentions=mentions)
