"""What a page may run: named by its hash, and nothing else."""

from __future__ import annotations

import base64
import hashlib

__all__ = ["policy_hash"]


def policy_hash(text: str) -> str:
    """As a Content-Security-Policy names a style or script that may stand in the page.

    Args:
        text: of the style or script.

    Example:
        >>> policy_hash("")
        "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    """
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
