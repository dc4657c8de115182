"""Docstrings as mkdocstrings wants them: `Example:` of our style is its section `Examples:`."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object


class Sections(Extension):
    """Renames the section of examples."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rename it in the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
