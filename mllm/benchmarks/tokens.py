"""Words of a text as the Penn Treebank counts them: what CHAIR's `nltk.word_tokenize` gives, without its downloads.

Rules: R. MacIntyre's tokeniser of the Penn Treebank as NLTK extends it (nltk/tokenize/destructive.py), for text in
lower case. Sentences: Kiss & Strunk 2006 (Punkt) without trained abbreviations. NLTK's English model knows some ("mr.",
"u.s.") and ends no sentence behind them; that only decides whether the full stop is a token of its own.
"""

from __future__ import annotations

import re

__all__ = ["sentences", "words"]

#: What may end a sentence: a mark before a closing or opening one, or before blanks and more text.
_CANDIDATE = re.compile(r"[.?!](?=[?!)\";}\]*:@'({\[]|\s+\S)")
_BLANKS = re.compile(r"\s*")
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
    pieces, start = [], 0
    for match in _CANDIDATE.finditer(text):
        end = match.end()
        following = _BLANKS.match(text, end).end()  # type: ignore[union-attr]  # matches anywhere
        if match.group() == "." and _goes_on(text[max(start, end - 60) : end - 1], text[following]):
            continue
        pieces.append(text[start:end])
        start = following
    pieces.append(text[start:].rstrip())
    for place in range(1, len(pieces)):
        closing = _CLOSING.match(pieces[place])
        if closing:
            pieces[place - 1] += closing.group().strip()
            pieces[place] = pieces[place][closing.end() :]
    return [piece for piece in pieces if piece]


def _goes_on(before: str, following: str) -> bool:
    """Whether a full stop belongs to an ellipsis, an initial or a number inside a sentence."""
    if before.endswith("."):
        return True
    last = _LAST_WORD.search(before)
    initial = bool(last and _INITIAL_OR_NUMBER.match(last.group()))
    return initial and (following.islower() or following in ";:,.!?")


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
