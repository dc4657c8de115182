"""Words of a text as the Penn Treebank counts them: what CHAIR's `nltk.word_tokenize` gives, without its downloads.

Rules: R. MacIntyre's tokeniser of the Penn Treebank as NLTK extends it (nltk/tokenize/destructive.py), for text in
lower case. Sentences: Kiss & Strunk 2006 (Punkt) without trained abbreviations. NLTK's English model knows some ("mr.",
"u.s.") and ends no sentence behind them; that only decides whether the full stop is a token of its own.
"""

from __future__ import annotations

import re
from itertools import pairwise

__all__ = ["sentences", "words"]

#: What may end a sentence: a mark before a closing or opening one, or before blanks and more text.
_CANDIDATE = re.compile(r"[.?!](?=[?!)\";}\]*:@'({\[]|\s+\S)")
_BLANKS = re.compile(r"\s*")
_CHUNK = re.compile(r"\S+")
_ENDS_INSIDE = re.compile(r"[?!]\S|[^.]\.[?!)\";}\]*:@'({\[,]")
_CLOSING = re.compile(r"[\"')\]}]+?(?:\s+|(?=--)|$)")
_INITIAL_OR_NUMBER = re.compile(r"(?:[^\W\d]|-?[.,]?\d[\d,.-]*)\Z")
_LAST_WORD = re.compile(r"[^\s(\"`{\[:;&#*@)}\]?!]*\Z")

_OPENING = (
    (r"([«“\u2018„]|`+)", r" \1 "),
    (r"^\"", "``"),
    (r"``", " `` "),
    (r"([ (\[{<])(?:\"|'')", r"\1 `` "),
    (r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", "' "),
)
_MARKS = (
    (r"([^.])\.([\])}>\"'»”\u2019 ]*)\s*$", r"\1 . \2 "),  # only the last full stop of a sentence
    (r"([:,])(\D)", r" \1 \2"),
    (r"([:,])$", r" \1 "),
    (r"\.{2,}", r" \g<0> "),
    (r"[;@#$%&?!*\u2012-\u2015]", r" \g<0> "),
    (r"([^'])' ", r"\1 ' "),
    (r"[\][(){}<>]", r" \g<0> "),
    (r"--", " -- "),
)
_ENDING = (
    (r"[»”\u2019]", r" \g<0> "),
    (r"''|\"", " '' "),
    (r"\s+", " "),
    (r"([^' ])('[smd]|') ", r"\1 \2 "),
    (r"([^' ])('ll|'re|'ve|n't) ", r"\1 \2 "),
)
_JOINED = (
    (r"\b(can)(not)\b", r" \1 \2 "),
    (r"\b(d)('ye)\b", r" \1 \2 "),
    (r"\b(gim|lem)(me)\b", r" \1 \2 "),
    (r"\b(gon)(na)\b", r" \1 \2 "),
    (r"\b(got)(ta)\b", r" \1 \2 "),
    (r"\b(more)('n)\b", r" \1 \2 "),
    (r"\b(wan)(na)(?=\s)", r" \1 \2 "),
    (r" ('t)(is|was)\b", r" \1 \2 "),
)
_BEFORE = tuple((re.compile(pattern), put) for pattern, put in _OPENING + _MARKS)
_AFTER = tuple((re.compile(pattern), put) for pattern, put in _ENDING + _JOINED)


def sentences(text: str) -> list[str]:
    """The sentences of a text.

    A full stop ends none behind a single letter or a number that goes on in lower case ("plan b. is"), nor as the end
    of an ellipsis.

    Example:
        >>> sentences('a dog. it says "no." no. 2 is a cat... so what')
        ['a dog.', 'it says "no."', 'no.', '2 is a cat... so what']
    """
    spans, start = [], 0
    for match in _CANDIDATE.finditer(text):
        end = match.end()
        following = _BLANKS.match(text, end).end()  # type: ignore[union-attr]  # matches anywhere
        chunk = _CHUNK.match(text, following).group()  # type: ignore[union-attr]  # a candidate has one
        if match.group() == "." and _goes_on(text[max(start, end - 60) : end - 1], chunk):
            continue
        spans.append([start, end])
        start = following
    spans.append([start, len(text.rstrip())])
    for first, second in pairwise(spans):
        closing = _CLOSING.match(text, second[0], max(second))
        if closing:
            first[1] = second[0] + len(closing.group().rstrip())
            second[0] = closing.end()
    return [text[start:end] for start, end in spans if start < end]


def _goes_on(before: str, chunk: str) -> bool:
    """Whether a full stop belongs to an ellipsis, an initial or a number inside a sentence.

    Args:
        before: what is before it.
        chunk: what follows it, up to a blank. Where that ends a sentence inside itself, the search ends this one too.
    """
    if before.endswith("."):
        return True
    last = _LAST_WORD.search(before.rpartition("..")[2])
    if not (last and _INITIAL_OR_NUMBER.match(last.group())) or _ENDS_INSIDE.search(chunk):
        return False
    return chunk[0].islower() or chunk[0] in ";:,.!?"


def words(text: str) -> list[str]:
    """The words and marks of a text in lower case.

    Example:
        >>> words("The dog's ball isn't red. Really?".lower())
        ['the', 'dog', "'s", 'ball', 'is', "n't", 'red', '.', 'really', '?']
    """
    found = []
    for sentence in sentences(text):
        for pattern, put in _BEFORE:
            sentence = pattern.sub(put, sentence)
        sentence = f" {sentence} "
        for pattern, put in _AFTER:
            sentence = pattern.sub(put, sentence)
        found += sentence.split()
    return found
