"""Pages that are files of the repository: a line `<!-- file: NAME -->` becomes the content of that file."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: File of the repository -> its page here; links to them are turned.
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Put in the files that a page names."""
    here = posixpath.dirname(page.file.src_uri)

    def content(match: re.Match[str]) -> str:
        text = (ROOT / match[1]).read_text(encoding="utf-8")
        return re.sub(r"\]\(([^)#:]+)", lambda link: f"]({_turned(link[1], here)}", text)

    return re.sub(r"^<!-- file: (\S+) -->$", content, markdown, flags=re.MULTILINE)


def on_page_content(content: str, **_: Any) -> str:
    """Name source files from the root of the repository."""
    return content.replace("<code>.typing/regard/", "<code>")


def _turned(target: str, here: str) -> str:
    """A link of a file at the root, as a link of a page in `here`."""
    return posixpath.relpath(PAGES.get(target, target.removeprefix("docs/")), here or ".")
