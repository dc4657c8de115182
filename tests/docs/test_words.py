"""Words that the glossary of CONTRIBUTING.md has replaced do not come back."""

from __future__ import annotations

import re
import subprocess

import pytest
from doc_pages import ROOT

#: Word -> what is written instead.
RETIRED = {
    r"pictures?": "image, plot",
    r"foretold|foretells?": "predicted",
    r"spoilt|spoils?": "low-quality, degraded",
    r"by chance": "at random",
    r"com(?:es|e) along": "is bundled",
    r"parted": "separated",
    r"go(?:es)? on (?:where|from)": "resumes",
    r"lattices?": "raster, grid",
    r"heat": "score map, heatmap, mean_attention",
    r"ledgers?": "stage cache, activity record",
    r"tally|tallies": "aggregate",
    r"instruments?": "models",
    r"otherwise_\w+": "fallback_...",
    r"least_[a-z]\w*": "min_...",
    r"doubts?": "caveat",
    r"one's own": "your own, custom",
    r"anew": "again",
}
#: Quotations: file -> what it may have, since it is data or names something of others or of old.
QUOTED = {
    "CHANGELOG.md": "what names were before",
    "datasets/slides/writing.py": "an element of OME-XML",
    "mllm/benchmarks/yes_no.py": "words of answers",
    "tests/docs/test_words.py": "this list",
    "tests/mllm/benchmarks/test_amber.py": "words of answers",
    "tests/mllm/benchmarks/test_yes_no.py": "words of answers",
}
_ENDINGS = (".py", ".pyi", ".yaml", ".yml", ".md", ".js", ".css", ".html", ".toml", ".cff")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the list of files needs a checkout of git")
@pytest.mark.parametrize("word", RETIRED)
def test_a_retired_word_is_nowhere(word: str) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = []
    for name in listed.splitlines():
        if name.endswith(_ENDINGS) and name not in QUOTED:
            lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
            found += [
                f"{name}:{number}: {line.strip()[:90]}"
                for number, line in enumerate(lines, 1)
                if re.search(rf"\b(?:{word})\b", line, flags=re.IGNORECASE)
            ]
    assert not found, f"write {RETIRED[word]}:\n" + "\n".join(found)
