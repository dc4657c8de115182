"""Settings of `regard view`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from .types import Checked, ExistingFolder, Within

__all__ = ["ViewSettings"]


@dataclass(frozen=True, kw_only=True)
class ViewSettings(Checked):
    """Show a folder of results in the browser, to this machine only.

    Attributes:
        folder: the --out of `regard slide`, or of another task that writes a report.
        port: port of this machine, 1-65535; 0 picks a free one.
    """

    folder: ExistingFolder = field(metadata={"positional": True})
    port: Annotated[int, Within(0, 65535)] = 8800
