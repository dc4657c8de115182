"""Weights from the web; the only server is one on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from regard.vision.downloads import fetch

CONTENT = b"tensors, let us say" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Answers(BaseHTTPRequestHandler):
    """Sends `CONTENT`, or what the path asks for instead."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        if self.path.startswith("/gone"):
            self.send_error(404)
            return
        if self.path.startswith("/away"):
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/weights.pth")
            self.end_headers()
            return
        page = self.path.startswith("/page")
        content = b"\n<!DOCTYPE html><title>Sign in</title>" if page else CONTENT
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        if not self.path.startswith("/unknown"):
            self.send_header("Content-Length", str(len(content) + 7 * self.path.startswith("/short")))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Answers.asked = 0
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def left(folder: Path) -> list[str]:
    return [path.name for path in (folder / "checkpoints").iterdir()]


def test_a_file_is_fetched_once(site: str, tmp_path: Path) -> None:
    first = fetch(f"{site}/a/model.pth")
    assert first.read_bytes() == CONTENT
    assert first.parent == tmp_path / "checkpoints"
    assert fetch(f"{site}/a/model.pth") == first
    assert Answers.asked == 1


def test_two_files_of_one_name_are_told_apart(site: str) -> None:
    assert fetch(f"{site}/a/content") != fetch(f"{site}/b/content")


def test_a_digest_in_the_name_keeps_the_name_and_counts(site: str, tmp_path: Path) -> None:
    assert fetch(f"{site}/model-{DIGEST[:8]}.pth").name == f"model-{DIGEST[:8]}.pth"
    with pytest.raises(ValueError, match=f"SHA-256 {DIGEST}, expected was deadbeef"):
        fetch(f"{site}/model-deadbeef.pth")
    assert left(tmp_path) == [f"model-{DIGEST[:8]}.pth"]
    assert fetch(f"{site}/model-20220501.pth").is_file()  # a date


def test_a_digest_that_is_given_counts(site: str, tmp_path: Path) -> None:
    assert fetch(f"{site}/model.pth", sha256=DIGEST.upper()).is_file()
    with pytest.raises(ValueError, match=r"expected was 0000000000.*damaged on its way"):
        fetch(f"{site}/other.pth", sha256="0" * 64)
    assert len(left(tmp_path)) == 1
    with pytest.raises(ValueError, match="'abc' is not a SHA-256"):
        fetch(f"{site}/third.pth", sha256="abc")


def test_a_damaged_file_in_the_cache_is_named(site: str) -> None:
    file = fetch(f"{site}/model-{DIGEST[:8]}.pth")
    file.write_bytes(CONTENT[:100])
    with pytest.raises(ValueError, match=f"{file} has the SHA-256 .*; delete it to fetch .* again"):
        fetch(f"{site}/model-{DIGEST[:8]}.pth")


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("short.pth", ValueError, "is incomplete: 19,000 of 19,007 bytes were received"),
        ("page.pth", ValueError, "answers with a web page.*download it with a browser and give the local file"),
        ("gone.pth", OSError, "cannot fetch http.*Not Found.*give the local file"),
        ("away.pth", OSError, "sends on to ftp"),
    ],
)
def test_what_goes_wrong_is_said_and_leaves_nothing(
    path: str, error: type[Exception], message: str, site: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        fetch(f"{site}/{path}")
    assert left(tmp_path) == []


def test_a_length_that_is_not_announced_is_fine(site: str) -> None:
    assert fetch(f"{site}/unknown.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/model.pth"])
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http and https URLs"):
        fetch(url)
