"""AMBER's descriptions, read by a model of spaCy: here one with a few words."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from regard.mllm.benchmarks import Sample
from regard.mllm.benchmarks.amber import AMBER
from regard.mllm.benchmarks.amber_nouns import spacy_tools

RELATION = {"dog": ["puppy"], "cat": ["kitten", "tom"], "sky": [], "car": ["van"], "tree": []}
WORDS = [word for key, others in RELATION.items() for word in (key, *others)]


class Text:
    """What spaCy makes of a text: all words are nouns; those of one first letter are alike, and "sky" has no vector."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.vector_norm = float(text != "sky")

    def __iter__(self) -> Iterator[SimpleNamespace]:
        return (SimpleNamespace(lemma_=word.rstrip("s"), tag_="NNS") for word in self.text.split())

    def similarity(self, other: Text) -> float:
        return 0.9 if self.text[0] == other.text[0] else 0.8


@pytest.fixture
def small_spacy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = ModuleType("spacy")
    module.load = lambda model: Text  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spacy", module)
    spacy_tools.cache_clear()
    yield
    spacy_tools.cache_clear()


def published(nouns: list[str], truth: list[str], hallu: list[str], safe: set[str]) -> tuple[int, int, int, int]:
    """The counting of the published script, with lists in its order."""

    def alike(one: str, other: str) -> bool:
        return "sky" not in (one, other) and one[0] == other[0]

    kept = [noun for noun in nouns if noun in WORDS]
    good = [(word, key) for key in truth for word in RELATION[key]] + [(key, key) for key in truth]
    bad = [(word, key) for key in hallu for word in RELATION[key]] + [(key, key) for key in hallu]
    seen, thought, wrong = set(), set(), 0
    for noun in kept:
        if noun in safe:
            continue
        exact = [key for word, key in good if word == noun]
        if exact:
            seen.add(exact[0])
            continue
        thought |= {key for word, key in bad if word == noun}
        thought |= {key for _, key in [pair for pair in bad if alike(noun, pair[0])][:1]}
        near = [key for word, key in good if alike(noun, word)]
        seen |= set(near[:1])
        wrong += not near
    return len(kept), wrong, len(seen), len(thought)


@pytest.mark.parametrize("seed", range(20))
def test_nouns_are_judged_as_in_the_authors_script(small_spacy: None, seed: int) -> None:
    draw = random.Random(seed)
    nouns = draw.choices([*WORDS, "spoon"], k=8)
    keys = draw.sample(list(RELATION), 4)
    truth: dict[str, Any] = {"safe": ["tree"], "known": WORDS}
    truth |= {
        "truth": [[key, *RELATION[key]] for key in keys[:2]],
        "hallu": [[key, *RELATION[key]] for key in keys[2:]],
    }
    sample = Sample(id="1", image="1.jpg", question="Describe it.", truth=truth, part="generative")
    counted = AMBER(spacy_model="small").count(sample, " ".join(nouns))["amber"]
    found = tuple(int(counted.numbers[name]) for name in ("nouns", "invented", "covered", "trapped"))
    assert found == published(nouns, keys[:2], keys[2:], {"tree"})


def test_nouns_are_lemmas(small_spacy: None) -> None:
    assert spacy_tools("small")[0]("dogs van") == ["dog", "van"]


def test_without_spacy_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    spacy_tools.cache_clear()
    with pytest.raises(ValueError, match="python -m spacy download en_core_web_lg, or leave spacy_model empty"):
        spacy_tools("en_core_web_lg")
