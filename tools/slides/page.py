"""Pages from their parts: markup, style, script, and data that reach the page as text only.

A policy at the head of each page lets nothing run but the script that is written here (and, on a slide's page, files
of the folder of results), and nothing load from elsewhere. Names come from strangers, so the data lie in the page as
JSON, without any `<`.
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
        parts: further markup that the page has a place for, by its name there.
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
