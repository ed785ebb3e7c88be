"""The server of the page: what it answers, what it refuses, how it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
from pagevisits import serving
from waiting import PATIENCE

from beatmeter.errors import ConfigError
from beatmeter.serving.page.build import TYPES, write_page
from beatmeter.serving.page.server import CONNECTIONS, POLICY, PageServer


def ask(
    server: PageServer, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": f"localhost:{server.port}", **headers}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


def test_it_serves_every_file_of_the_page_and_says_what_the_page_may(
    server: PageServer, files: dict[str, bytes]
) -> None:
    for path, data in {"": files["index.html"], **files}.items():
        status, headers, body = ask(server, f"/{path}")
        assert (status, body) == (200, data)
        assert headers["content-type"] == TYPES[Path(path).suffix or ".html"]
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe-inline" not in policy
        assert "'unsafe-eval'" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    status, headers, body = ask(server, "/app.js", "HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(files["app.js"])), b"")


def test_the_policy_in_the_page_is_that_of_the_server_and_no_script_is_inline(
    files: dict[str, bytes],
) -> None:
    html = files["index.html"].decode()
    assert f'content="{POLICY}"' in html
    assert html.count("<script") == 1
    assert "style=" not in html
    assert " on" not in "".join(part.split(">")[0] for part in html.split("<"))
    assert not [
        path for path, data in files.items() if path.endswith((".js", ".css")) and b"https://" in data
    ]


@pytest.mark.parametrize(
    "path",
    ["/../pyproject.toml", "/%2e%2e/index.html", "/model", "/model/", "/runtime/../app.js",
     "/etc/passwd", "/app.js/", "/APP.JS", "app.js", "http://localhost/app.js"],
)  # fmt: skip
def test_paths_outside_its_table_are_not_there(server: PageServer, path: str) -> None:
    assert ask(server, path)[0] == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost", "localhost:1", "localhost.evil.example:{}", ""]
)
def test_a_foreign_host_is_refused(server: PageServer, host: str) -> None:
    assert ask(server, "/", Host=host.format(server.port))[0] == 421


def test_two_hosts_are_refused(server: PageServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        name = f"localhost:{server.port}"
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nHost: evil.example\r\n\r\n".encode())
        assert connection.recv(100).split()[1] == b"421"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost", "https://localhost:{}"]
)
def test_a_foreign_origin_is_refused(server: PageServer, origin: str) -> None:
    assert ask(server, "/model/model.json", Origin=origin.format(server.port))[0] == 403
    assert ask(server, "/model/model.json", Origin=f"http://localhost:{server.port}")[0] == 200


def test_it_takes_nothing(server: PageServer) -> None:
    assert ask(server, "/", "POST", b"x", **{"Content-Length": "1"})[0] == 405
    assert ask(server, "/", "DELETE")[0] == 405
    assert ask(server, "/", "GET", b"x" * 10, **{"Content-Length": "10"})[0] == 413
    assert ask(server, "/", "GET", **{"Transfer-Encoding": "chunked"})[0] == 413
    assert ask(server, "/" + "x" * 70_000)[0] == 414
    assert ask(server, "/", **{f"X-{i}": "y" for i in range(200)})[0] == 431


@contextmanager
def silent_connections(server: PageServer, count: int) -> Iterator[list[socket.socket]]:
    opened = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(count)]
    try:
        yield opened
    finally:
        for connection in opened:
            connection.close()


def test_more_connections_than_it_holds_are_turned_away_at_once(files: dict[str, bytes]) -> None:
    with serving(files) as server, silent_connections(server, CONNECTIONS + 3) as opened:
        for connection in opened[CONNECTIONS:]:
            assert connection.recv(100).split()[1] == b"503"
        first = opened[0]
        first.sendall(f"GET /icon.svg HTTP/1.0\r\nHost: localhost:{server.port}\r\n\r\n".encode())
        assert first.recv(100).split()[1] == b"200"


def test_a_port_that_is_taken_is_said_in_one_line(server: PageServer, files: dict[str, bytes]) -> None:
    with pytest.raises(ConfigError, match=f"cannot listen on port {server.port}: Address already in use"):
        PageServer(files, server.port)


@pytest.mark.parametrize(
    ("number", "status", "words"),
    [(signal.SIGINT, 130, "stopped"), (signal.SIGTERM, 143, "stopped by SIGTERM")],
)
def test_it_ends_in_one_line(
    files: dict[str, bytes], tmp_path: Path, number: signal.Signals, status: int, words: str
) -> None:
    write_page(files, tmp_path / "site")
    code = (  # what a background job starts ignores SIGINT
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from beatmeter.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "serve", str(tmp_path / "site"), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("open http://localhost:")
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err.strip()) == (status, "", words)


def test_the_description_of_the_model_reaches_the_page(server: PageServer) -> None:
    assert json.loads(ask(server, "/model/model.json")[2])["model"] == "loudness"
