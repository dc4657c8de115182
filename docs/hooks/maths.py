"""Maths without a script: LaTeX between dollars becomes MathML when the site is built."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_ARITHMATEX = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', flags=re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Replace what pymdownx.arithmatex marked as maths."""
    return _ARITHMATEX.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    tag, bracket, latex = match.groups()
    display = "inline" if bracket == "(" else "block"
    return f'<{tag} class="maths">{convert(html.unescape(latex).strip(), display=display)}</{tag}>'
