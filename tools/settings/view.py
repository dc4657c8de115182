"""Settings of `regard view`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

__all__ = ["ViewSettings"]


@dataclass(frozen=True)
class ViewSettings:
    """Show a folder of results in the browser, to this machine only.

    Attributes:
        folder: of results: the `--out` of `regard slide`, or of another job that writes a report.
        port: of this machine, 1-65535; 0 takes a free one.
    """

    folder: str
    _: KW_ONLY
    port: int = 8800
