"""Builds pages from templates: markup, style, script, and data that enter the page as text only.

A content security policy allows only the script of this package to run (and, on a slide's page, files of the folder of
results), and nothing to load from elsewhere. Names are untrusted, so the data are JSON without any `<`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any

from ..run.page_policy import policy_hash
from ..run.strict_json import strict_json

__all__ = ["build_page"]


def build_page(name: str, data: Mapping[str, Any], **parts: str) -> str:
    """One HTML file in ASCII.

    Args:
        name: of the page: NAME.html, NAME.css and NAME.js of `page_parts`.
        data: JSON's types; the script finds it as DATA.
        parts: further markup that the page has a index for, by its name there.
    """
    folder = files(__package__) / "page_parts"
    style, elements, own = ((folder / file).read_text("utf-8") for file in (f"{name}.css", "elements.js", f"{name}.js"))
    script = f"(() => {{\n'use strict';\n{elements}{own}}})();\n"
    page = Template((folder / f"{name}.html").read_text("utf-8"))
    return page.substitute(
        parts,
        style=style,
        style_hash=policy_hash(style),
        script=script,
        script_hash=policy_hash(script),
        data=strict_json(data).replace("<", "\\u003c"),
    )
