"""The nouns of a description, and which words are alike, by a model of spaCy.

Source: junyangwang0410/AMBER@534babf inference.py, which takes nouns from NLTK and WordNet instead.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

__all__ = ["spacy_tools"]

_ALIKE = 0.8  # similarity above which words count as the same


@functools.lru_cache(maxsize=2)
def spacy_tools(model: str) -> tuple[Callable[[str], list[str]], Callable[[str, str], bool]]:
    """Functions that list the nouns of a text, singular and in lower case, and compare two words.

    Words without a vector are like no other. Results for words are kept.

    Args:
        model: of spaCy, e.g. "en_core_web_lg".

    Raises:
        ValueError: spaCy or the model is not installed.
    """
    try:
        import spacy

        pipeline = spacy.load(model)
    except (ImportError, OSError) as error:
        raise ValueError(
            f"AMBER's descriptions are to be read with {model!r} of spaCy, which is not here ({error}); pip install "
            f"spacy, then python -m spacy download {model}, or leave spacy_model empty"
        ) from error
    parsed = functools.lru_cache(maxsize=20_000)(pipeline)

    def nouns(text: str) -> list[str]:
        return [token.lemma_.lower() for token in pipeline(text) if token.tag_.startswith("NN")]

    @functools.lru_cache(maxsize=1_000_000)
    def alike(one: str, other: str) -> bool:
        first, second = parsed(one), parsed(other)
        return bool(first.vector_norm and second.vector_norm and first.similarity(second) > _ALIKE)

    return nouns, alike
