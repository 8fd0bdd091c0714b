"""The server: who is answered, with which headers, and how it ends."""

import gzip
import http.client
import signal
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from r1recipes.errors import RecipeError
from r1recipes.report.serve import server as serving
from tests.helpers import in_process
from tests.report.serve.conftest import RUN, command, settled


def ask(server, path="/", method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    body = headers.pop("body", None)
    connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def test_a_page_and_its_headers(server):
    response, content = ask(server)
    assert response.status == 200 and b"<h1>Runs" in content
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy
    assert "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in response.headers


def test_who_has_the_page_gets_304_until_it_changes(server, followed, runs_dir):
    settled(followed)
    for path in ("/", f"/run/{RUN}", "/compare?run=old/complete&run=old/stopped"):
        response, _ = ask(server, path)
        tag = response.headers["ETag"]
        again, content = ask(server, path, If_None_Match=tag)
        assert (again.status, content) == (304, b"") and again.headers["ETag"] == tag
        with open(runs_dir / RUN / "metrics.jsonl", "a") as file:
            file.write('{"step": 900, "reward": 1.0}\n')
        time.sleep(0.2)  # looks are not taken more often
        changed, content = ask(server, path, If_None_Match=tag)
        assert changed.status == 200 and changed.headers["ETag"] != tag and content


def test_a_page_is_compressed_for_who_understands_it(server, followed):
    settled(followed)
    _, plain = ask(server)
    response, content = ask(server, Accept_Encoding="gzip, br")
    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(content) == plain and len(content) < len(plain) / 2


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:9", "LOCALHOST"]
)
def test_this_machine_is_answered_by_any_port(server, host):
    assert ask(server, Host=host)[0].status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:6116", "localhost.evil.example", "10.0.0.1", "", "a:b:c"]
)
def test_another_name_for_this_machine_is_refused(server, host):
    response, content = ask(server, Host=host)
    assert response.status == 421 and b"<html" not in content


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_get_is_answered(server, method):
    response, content = ask(server, method=method, body=None if method == "HEAD" else "x=1")
    assert response.status == 405 and response.headers["Allow"] == "GET"
    assert b"<html" not in content


def raw(server, content: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
        connection.sendall(content)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET / HTTP/1.1\r\n\r\n", 421),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 421),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nGET ", 400),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", None),
        ("nonsense\r\n\r\n", None),
        ("BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
        ("GET /" + "a" * 70_000 + " HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        ("GET / HTTP/1.1\r\n" + "A: b\r\n" * 200 + "\r\n", 431),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_ends(server, request_text, status):
    answer = raw(server, request_text.encode())
    if status is None:  # of a version that is none: a line of text, as version 0.9 had
        assert answer in (b"HTTP Version Not Supported\n", b"Bad Request\n")
    else:
        assert f" {status} ".encode() in answer.split(b"\r\n")[0]
    assert b"<html" not in answer


def test_too_many_connections_are_closed(server, monkeypatch):
    idle = [
        socket.create_connection(("127.0.0.1", server.server_port))
        for _ in range(serving.MAX_CONNECTIONS)
    ]
    time.sleep(0.5)
    assert raw(server, b"") == b""
    for connection in idle:
        connection.close()
    time.sleep(0.5)
    assert ask(server)[0].status == 200


def test_the_next_port_is_taken_where_one_is_not_free(server, pages):
    other = serving.listen(server.server_port, pages)
    assert server.server_port < other.server_port <= server.server_port + serving.MAX_PORTS
    other.server_close()


def test_no_free_port_is_an_error(server, pages, monkeypatch):
    monkeypatch.setattr(serving, "MAX_PORTS", 1)
    with pytest.raises(RecipeError, match=f"no port from {server.server_port} to"):
        serving.listen(server.server_port, pages)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "9"], "go with --serve"),
        (["--open"], "go with --serve"),
        (["--serve", "--out", "a.html"], "--serve writes no file"),
        (["--serve", "--port", "70000"], "is not a port"),
        (["--serve", "no-such-run"], "no-such-run"),
    ],
)
def test_flags_that_do_not_go_together(flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = in_process("report", *flags)
    assert code == 2 and message in err


@pytest.mark.slow
@pytest.mark.parametrize("names", [[], ["."], ["old/complete", "old/stopped"]])
def test_ctrl_c_ends_the_command_at_once_with_0(runs_dir: Path, names):
    with command(runs_dir, *names) as (process, address):
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
        connection.request("GET", "/")
        assert b"old/complete" in connection.getresponse().read()  # and stays open, as in a browser
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 0 and err == "" and time.monotonic() - began < 1
