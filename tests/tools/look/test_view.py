"""`regard view`: what it hands out, and what not."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs import run

from regard.tools.look.view import find_file, serve

NAME = "é \"<b>\" #2 100% 'x'"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "pages" / NAME).mkdir(parents=True)
    (folder / "report.html").write_text("<p>report</p>")
    (folder / "pages" / NAME / "index.html").write_text("<p>page</p>")
    (folder / "weights.safetensors").write_bytes(b"\0" * 9)
    (folder / ".hidden").write_text("secret")
    (tmp_path / "secret.html").write_text("secret")
    (folder / "link.html").symlink_to(tmp_path / "secret.html")
    (folder / "elsewhere").symlink_to(tmp_path)
    (folder / "inside.html").symlink_to(folder / "report.html")
    return folder


@pytest.fixture
def port(folder: Path) -> Iterator[int]:
    server = serve(folder, 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def ask(port: int, address: str, method: str = "GET", host: str | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.putrequest(method, address, skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{port}")
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def test_files_come_with_their_type(port: int) -> None:
    status, headers, body = ask(port, "/report.html?x=1")
    assert (status, headers["Content-Type"], body) == (200, "text/html; charset=utf-8", b"<p>report</p>")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert ask(port, "/weights.safetensors")[1]["Content-Type"] == "application/octet-stream"
    status, headers, body = ask(port, "/report.html", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "13", b"")
    assert ask(port, "/inside.html")[0] == 200


def test_a_folder_leads_to_its_page(port: int) -> None:
    status, headers, _ = ask(port, "/")
    assert (status, headers["Location"]) == (302, "/report.html")
    encoded = "/pages/%C3%A9%20%22%3Cb%3E%22%20%232%20100%25%20%27x%27"
    status, headers, _ = ask(port, encoded + "/")
    assert (status, ask(port, headers["Location"])[2]) == (302, b"<p>page</p>")


@pytest.mark.parametrize(
    "address",
    [
        *("/../secret.html", "/%2e%2e/secret.html", "/..%2fsecret.html", "/pages/../../secret.html", "//secret.html"),
        *("/link.html", "/elsewhere/secret.html", "/elsewhere/", "/.hidden", "/none.html", "/pages/", "/a%00b"),
        *("/%ff", "/C:%5Csecret.html", "http://127.0.0.1/../secret.html", "/" + "x" * 5000),
    ],
)
def test_nothing_outside_the_folder_is_handed_out(port: int, folder: Path, address: str) -> None:
    status, _, body = ask(port, address)
    assert status in (404, 414)
    assert b"secret" not in body
    assert find_file(folder, address) is None


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example:80", "[::1]:80"])
def test_a_request_by_another_name_is_refused(port: int, host: str) -> None:
    assert ask(port, "/report.html", host=host)[0] == 403
    assert ask(port, "/report.html", host=f"localhost:{port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(port: int, method: str) -> None:
    assert ask(port, "/report.html", method)[0] == 501


def test_what_cannot_be_shown_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "report.html").touch()
        for words, message in (
            ((tmp_path / "none",), "there is no folder"),
            ((tmp_path / "file",), "is not a folder"),
            ((tmp_path,), "holds no report.html and no index.html"),
            ((tmp_path / "full", "--port", "70000"), "--port is 70000; give 0 to 65535"),
            ((tmp_path / "full", "--port", str(taken.getsockname()[1])), "give another --port, or 0 for a free one"),
        ):
            assert run("view", *words) == 2
            assert message in capsys.readouterr().err
