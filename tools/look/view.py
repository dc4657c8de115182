"""`regard view`: a folder of results in the browser, read only, and for this machine only.

The server listens on 127.0.0.1, and answers no request that came by another name (so that no page elsewhere can read
it by a name of its own that points here). It hands out files of the folder, never one outside it, by whatever link.
"""

from __future__ import annotations

import shutil
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ..settings import ViewSettings

__all__ = ["find_file", "run", "serve"]

_HOST = "127.0.0.1"
#: Suffix -> type; what is not here is handed out as bytes to be saved.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".geojson": "application/geo+json",
    ".html": "text/html; charset=utf-8",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".txt": "text/plain; charset=utf-8",
    ".yaml": "text/plain; charset=utf-8",
}
#: Pages that a folder may be seen by, the first that is there.
_STARTS = ("report.html", "index.html")


def run(settings: ViewSettings) -> int:
    """Serve until somebody presses Ctrl+C; the exit code is 0.

    Raises:
        ValueError: the folder does not exist or holds no page, or the port is invalid or in use.
    """
    folder = Path(settings.folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is {'a file' if folder.exists() else 'not there'}; give a folder of results")
    if find_file(folder, "/") is None:
        raise ValueError(f"{folder} holds no {' and no '.join(_STARTS)}; give the --out of a job that has written one")
    with serve(folder, settings.port) as server:
        sys.stdout.write(f"http://{_HOST}:{server.server_port}/\n")
        sys.stdout.flush()
        sys.stderr.write(f"showing {folder} to this machine; Ctrl+C ends it\n")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.stderr.write("\n")
    return 0


def serve(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of a folder; `serve_forever()` starts it.

    Args:
        folder: whose files are handed out.
        port: of this machine, 1-65535; 0 chooses a free one.

    Raises:
        ValueError: the port is invalid, in use or not permitted.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"there is no port {port}; give one of 1-65535, or 0 for a free one")

    class Handler(_Handler):
        root = folder.resolve()

    try:
        return ThreadingHTTPServer((_HOST, port), Handler)
    except OSError as error:
        raise ValueError(
            f"port {port} cannot be used ({error.strerror}); give another --port, or 0 for a free one"
        ) from error


def find_file(folder: Path, address: str) -> Path | None:
    """The file of a folder that an address names; None if there is none, or if it lies elsewhere.

    Args:
        folder: whose files may be had.
        address: path of a URL, percent-encoded, with or without a query.

    Example:
        >>> Path("report.html").touch()
        >>> find_file(Path(), "/report.html?a=b").name
        'report.html'
        >>> find_file(Path(), "/../../etc/passwd") is None
        True
    """
    try:
        names = [unquote(name, errors="strict") for name in _path_of(address).split("/")]
        names = [name for name in names if name not in ("", ".")]
        if any(name == ".." or name.startswith(".") or set(name) & set("/\\\0") for name in names):
            return None
        root = folder.resolve()
        path = root.joinpath(*names).resolve()
        if not path.is_relative_to(root):
            return None
        if path.is_dir():
            path = next((path / name for name in _STARTS if (path / name).is_file()), path)
        path = path.resolve()
        return path if path.is_file() and path.is_relative_to(root) else None
    except (OSError, ValueError, RuntimeError):
        return None


def _path_of(address: str) -> str:
    return address.partition("#")[0].partition("?")[0]


class _Handler(BaseHTTPRequestHandler):
    root: Path
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "regard", ""
    timeout = 60

    def do_GET(self) -> None:  # the base class calls it so
        self._answer(whole=True)

    def do_HEAD(self) -> None:
        self._answer(whole=False)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: a page asks for hundreds of tiles."""

    def _answer(self, whole: bool) -> None:
        name = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host")
        if name not in (_HOST, "localhost"):
            return self._refuse(HTTPStatus.FORBIDDEN)
        path = find_file(self.root, self.path)
        if path is None:
            return self._refuse(HTTPStatus.NOT_FOUND)
        if path.name in _STARTS and not _path_of(self.path).endswith(".html"):  # a page's links start from its address
            below = "/".join(quote(part) for part in path.relative_to(self.root).parts)
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", f"/{below}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        try:
            file = path.open("rb")
        except OSError:
            return self._refuse(HTTPStatus.NOT_FOUND)
        with file:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", _TYPES.get(path.suffix.lower(), "application/octet-stream"))
            self.send_header("Content-Length", str(path.stat().st_size))
            self._guard()
            self.end_headers()
            if whole:
                try:
                    shutil.copyfileobj(file, self.wfile)
                except ConnectionError:  # the page was left before it had all its tiles
                    self.close_connection = True
        return None

    def _refuse(self, status: HTTPStatus) -> None:
        words = f"{status.value} {status.phrase}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(words)))
        self._guard()
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(words)

    def _guard(self) -> None:
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Cache-Control", "no-cache")
