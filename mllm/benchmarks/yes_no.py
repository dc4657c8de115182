r"""Parsers of answers to yes-or-no questions, by name.

The same answers give other scores under another parser, so a score is worth nothing without the parser's name. Those of
others do exactly what the published scripts do, mistakes included:

- `official`: AoiDragon/POPE@08d957b, evaluate.py. Only the first sentence counts; "NO", "Nope", "no\n", "" and
  "I cannot see it. No." are yes.
- `vcd`: DAMO-NLP-SG/VCD@d6568ff, experiments/eval/eval_pope.py. Searches for the *label* anywhere in the text, so that
  "unknown" and "cannot" are right wherever the label is no.
- `pai`: LALBJ/PAI, eval/pope. As the official one on the whole text, with "NO" and words that end in "n't".
- `lmms_eval`: EvolvingLMMs-Lab/lmms-eval@75571cf, tasks/pope. Nothing but "yes" or "no"; "Yes." is unknown.
- `vlmevalkit`: open-compass/VLMEvalKit@e8e78f0. The words yes and no; both or none is unknown.
- `mme`: the tool of MME (Fu et al. 2023, arXiv:2306.13394) as lmms-eval has it. Looks at the first four characters.
- `words`: ours. Reads sentences; what can be neither is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

__all__ = ["PARSERS", "Verdict", "check_parser"]

#: Parsed answers.
Verdict = Literal["yes", "no", "unknown"]


def official(text: str, label: str) -> Verdict:
    """The POPE repository's: no if one of No, not, no is among the words before the first full stop, otherwise yes."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def vcd(text: str, label: str) -> Verdict:
    """VCD's: the label if it is anywhere in the text, even inside a word, otherwise the opposite of the label."""
    opposite: Verdict = "no" if label == "yes" else "yes"
    return _said(label) if label in text.lower() else opposite


def pai(text: str, label: str) -> Verdict:
    """PAI's: no if any word of the whole text is No, not, no, NO or ends in n't, otherwise yes."""
    words = text.replace(".", "").replace(",", "").split(" ")
    return "no" if {"No", "not", "no", "NO"} & set(words) or any(word.endswith("n't") for word in words) else "yes"


def lmms_eval(text: str, label: str) -> Verdict:
    """Of lmms-eval: the whole text is yes or no, apart from case and surrounding whitespace."""
    return _said(text.lower().strip())


def vlmevalkit(text: str, label: str) -> Verdict:
    """Of VLMEvalKit without its judge: one of the two words, and not the other, once punctuation is taken away."""
    lower = text.lower()
    cleaned = lower
    crowded = re.search(r"\d,\d", lower) is not None
    for mark in ';/[]"{}()=+\\_-><@`,?!':
        beside_blank = f"{mark} " in lower or f" {mark}" in lower
        cleaned = cleaned.replace(mark, "" if beside_blank or crowded else " ")
    words = re.sub(r"\.(?!\d)", "", cleaned, count=32).split()  # 32 is a flag that the original passes as a count
    return _one_of("yes" in words, "no" in words)


def mme(text: str, label: str) -> Verdict:
    """Of MME: the text without full stops is yes, no, y or n; or else its first four characters have yes, or no."""
    cleaned = text.lower().strip().replace(".", "")
    if cleaned in ("y", "n"):
        return "yes" if cleaned == "y" else "no"
    start = cleaned[:4]
    return "yes" if "yes" in start else "no" if "no" in start else "unknown"


_YES = {"yes", "yeah", "yep", "yup"}
_NO = {"no", "nope", "nah"}
_NEITHER = re.compile(
    r"\byes (?:or|and|/) no\b|\byes ?/ ?no\b|\bno doubt\b|\bno problem\b|\bnot only\b"  # say nothing about the question
)
_UNSURE = re.compile(
    r"\b(?:not|n't|hard|difficult|impossible) (?:\w+ ){0,2}"
    r"(?:sure|certain|clear|say|tell|determine|know|confirm|possible)\b|"
    r"\b(?:cannot|can not|unable to|could not) (?:\w+ ){0,2}(?:say|tell|determine|know|confirm|answer)\b|"
    r"\b(?:unclear|uncertain|unknown|unsure|maybe|perhaps|sorry)\b"
)
_DENIES = re.compile(r"\b(?:not|n't|cannot|never|none|nothing|nobody|neither|without|absent|lacks?|false)\b")
_AFFIRMS = re.compile(
    r"\bthere(?: (?:is|are|was|were)|'s|'re)\b|\b(?:image|picture|photo|it) (?:\w+ )?(?:shows?|contains?|has|does|is|"
    r"features?|includes?|depicts?)\b|\bi (?:can |do )?(?:also )?see\b|\b(?:visible|present|correct|true|indeed|sure)\b"
)


def words(text: str, label: str) -> Verdict:
    """Ours: a leading yes or no decides; then one of them anywhere; then what the sentences deny, doubt or affirm.

    Both words, or doubt ("I am not sure", "it is hard to tell") without either word, is unknown; so is an empty answer
    and one that says nothing that can be understood.
    """
    plain = re.sub(r"[^a-z0-9'/ ]+", " ", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    plain = _NEITHER.sub(" ", re.sub(r"(?<=\w)n't\b", " n't", plain).replace("ca n't", "cannot"))
    tokens = re.findall(r"[a-z0-9']+", plain)
    if not tokens:
        return "unknown"
    plain = " ".join(tokens).replace(" 't", " n't")
    if tokens[0] in _YES | _NO:
        if tokens[0] in _NO and "yes" in tokens:
            return "unknown"
        return "yes" if tokens[0] in _YES else "no"
    one = _one_of(bool(_YES & set(tokens)), bool(_NO & set(tokens)))
    if one != "unknown" or (_YES & set(tokens)):
        return one
    if _UNSURE.search(plain):
        return "unknown"
    if _DENIES.search(plain) or re.search(r"(?:^| )n't(?: |$)", plain):
        return "no"
    return "yes" if _AFFIRMS.search(plain) else "unknown"


def _said(word: str) -> Verdict:
    return "yes" if word == "yes" else "no" if word == "no" else "unknown"


def _one_of(yes: bool, no: bool) -> Verdict:
    return "unknown" if yes == no else "yes" if yes else "no"


#: Name -> parser of an answer and the label of its question, "yes" or "no"; only VCD's uses the label.
PARSERS: Mapping[str, Callable[[str, str], Verdict]] = {
    "official": official,
    "vcd": vcd,
    "pai": pai,
    "lmms_eval": lmms_eval,
    "vlmevalkit": vlmevalkit,
    "mme": mme,
    "words": words,
}


def check_parser(name: str) -> str:
    """The name, if a parser has it.

    Raises:
        ValueError: no parser has it.

    Example:
        >>> PARSERS[check_parser("official")]("Nope", "no")
        'yes'
    """
    if name not in PARSERS:
        raise ValueError(f"no parser of yes and no is called {name!r}; known: {', '.join(PARSERS)}")
    return name
