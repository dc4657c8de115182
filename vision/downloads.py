"""Download weights files: once, completely, and verified.

Files land in torch.hub's cache folder. `torch.hub.download_url_to_file` is not used because it accepts truncated
downloads (it does not compare sizes), and because it names a cached file by the end of its URL alone, so that two
networks published as `.../content` or `.../model.safetensors` would be confused.
"""

from __future__ import annotations

import hashlib
import re
import sys
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener
from uuid import uuid4

import torch
from rich.console import Console
from rich.progress import Progress

__all__ = ["check_sha256", "fetch", "is_url", "looks_like_a_web_page", "sha256_of"]

_CHUNK_BYTES = 1 << 20

#: The digest in names such as `deit_tiny_patch16_224-a1311bcf.pth`, torch.hub's convention; eight digits are a date.
_DIGEST_IN_NAME = re.compile(r"-(?!20\d{6}\.)([0-9a-f]{8,64})\.[a-z.]+$")


def is_url(source: object) -> bool:
    """Whether `source` is a URL (of any scheme) rather than a file.

    Example:
        >>> is_url("https://example.org/van.pth"), is_url("weights/van.pth")
        (True, False)
    """
    return re.match(r"[A-Za-z][\w+.-]+://", str(source)) is not None


def looks_like_a_web_page(start: bytes) -> bool:
    """Whether the first bytes of a file are HTML.

    Example:
        >>> looks_like_a_web_page(b"<!DOCTYPE html><title>Sign in</title>")
        True
    """
    return start.lstrip(b"\xef\xbb\xbf \t\r\n")[:15].lower().startswith((b"<!doctype html", b"<html", b"<head"))


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def check_sha256(file: Path, expected: str, advice: str) -> None:
    """Compare a file with its SHA-256, or the beginning of it.

    Args:
        file: what to read.
        expected: hexadecimal digits.
        advice: the end of the message: what to do.

    Raises:
        ValueError: they differ, or `expected` is not a hexadecimal digest.
    """
    if not re.fullmatch(r"[0-9a-f]{8,64}", expected.lower()):
        raise ValueError(f"{expected!r} is not a SHA-256: give 64 hexadecimal digits, or at least the first 8")
    found = sha256_of(file)
    if not found.startswith(expected.lower()):
        raise ValueError(f"{file} has the SHA-256 {found}, expected was {expected}; {advice}")


def fetch(url: str, *, sha256: str | None = None) -> Path:
    """The file behind a URL, from the cache or the web.

    It is written under a temporary name, compared with the announced length and with its SHA-256 if one is known, and
    only then renamed in `torch.hub.get_dir()/checkpoints`, so that an interrupted download is never used.

    Args:
        url: of http or https.
        sha256: what the file must have. Without it, the digest in its name counts (`name-<8 or more digits>.pth`).

    Raises:
        ValueError: another scheme; the answer is a web page; or length or SHA-256 differ.
        OSError: the server cannot be reached or refuses.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{url}: weights come from http and https URLs and from local files, not by {parts.scheme}")
    name = re.sub(r"[^\w.-]", "_", Path(unquote(parts.path)).name).lstrip(".") or "weights"
    in_name = _DIGEST_IN_NAME.search(name)
    expected = sha256 or (in_name[1] if in_name else None)
    folder = Path(torch.hub.get_dir(), "checkpoints")
    cached = name if in_name else f"{hashlib.sha256(url.encode()).hexdigest()[:8]}_{name}"
    file = folder / cached
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{cached}.{uuid4().hex}.partial")
        try:
            _download(url, partial)
            if expected:
                check_sha256(partial, expected, f"what {url} sends is not that file, or was damaged on its way")
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    elif expected:
        check_sha256(file, expected, f"delete it to fetch {url} again")
    return file


class _WebOnly(HTTPRedirectHandler):
    """Follows a redirection within the web, and never from https to http."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """The request for `newurl`; urllib's, if it is allowed."""
        allowed = ("https",) if req.type == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in allowed:
            raise HTTPError(req.full_url, code, f"it sends on to {newurl}, which is less safe", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, partial: Path) -> None:
    """Write what the server sends; see `fetch`."""
    by_hand = "download it with a browser and give the local file"
    try:
        with (
            build_opener(_WebOnly).open(Request(url, headers={"User-Agent": "regard"}), timeout=60) as answer,
            partial.open("wb") as file,
            Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress,
        ):
            announced = answer.headers.get("Content-Length")
            task = progress.add_task(Path(urlsplit(url).path).name, total=int(announced) if announced else None)
            start = b""
            while chunk := answer.read(_CHUNK_BYTES):
                start = start or chunk
                file.write(chunk)
                progress.advance(task, len(chunk))
            found = file.tell()
            page = answer.headers.get_content_type() == "text/html" or looks_like_a_web_page(start)
    except (OSError, HTTPException, ValueError) as error:  # ValueError: a length that is not a number
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise OSError(f"cannot fetch {url}: {reason}. Try again, or {by_hand}") from error
    if page:
        raise ValueError(f"{url} answers with a web page, not with a file: the link needs a browser: {by_hand}")
    if announced is not None and found != int(announced):
        raise ValueError(
            f"{url} is incomplete: {found:,} of {int(announced):,} bytes were received. Try again, or {by_hand}"
        )
    if not found:
        raise ValueError(f"{url} sent an empty file; {by_hand}")
