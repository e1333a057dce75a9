"""Pages in a browser of this machine against a service without keys on loopback: what they may not ask, whoever sent them, and
what programs, the page of our own and those that a flag names may. Sent by hand, as browsers write it."""

import contextlib
import json
import os
import re
import socket
import subprocess

import pytest

from cli import NOT_BUILT, refused, wait_until
from conftest import STOP_SECONDS_MAX, binary

pytestmark = NOT_BUILT
BODY = b'{"prompt":"Hello"}'
EVIL = "http://evil.example"


class Listener:
    def __init__(self, address, host="localhost"):
        self.address, self.host = address.rsplit(":", 1), host

    def ask(self, method, path, *fields, host=None, body=b"", version="1.1"):
        """(status, error code); a Host of "" is left out."""
        host = self.host if host is None else host
        lines = [f"{method} {path} HTTP/{version}", *([f"Host: {host}"] if host else []), "Connection: close", *fields]
        if method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        with socket.create_connection((self.address[0], int(self.address[1])), timeout=60) as connection:
            connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            received = b""
            while chunk := connection.recv(1 << 16):
                received += chunk
        head, _, text = received.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        return status, json.loads(text)["error"] if status >= 400 and text else None


@contextlib.contextmanager
def coordinator(folder, *flags):
    log = folder / "log"
    reading, writing = os.pipe()
    with open(log, "wb") as stderr:
        process = subprocess.Popen([binary(), "coordinator", "--listen", "127.0.0.1:0", "--announce-fd", str(writing), *flags],
                                   pass_fds=[writing], stderr=stderr)
    os.close(writing)
    try:
        with os.fdopen(reading) as announced:
            said = json.loads(announced.readline())
        if said["event"] == "error":
            pytest.skip(said["message"])  # no model here; deploy/setup.sh fetches it
        yield said, log
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        finally:
            process.kill()
    assert process.returncode == 0


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with coordinator(tmp_path_factory.mktemp("plain"), "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0") as started:
        yield started


FOREIGN = [["Origin: https://evil.example"], ["Origin: null"], ["Origin: http://localhost:1"],
           ["Sec-Fetch-Site: cross-site"], ["Sec-Fetch-Site: same-site", "Origin: http://localhost:1"],
           ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Origin: https://evil.example"]]


@pytest.mark.parametrize("fields", FOREIGN, ids=" ".join)
def test_a_page_of_another_origin_is_refused(plain, fields):
    addresses, log = plain
    api = Listener(addresses["http"])
    for method, path, body in (("POST", "/tokenize", BODY), ("POST", "/v1/completions", BODY), ("GET", "/v1/models", b""),
                               ("DELETE", "/v1/requests/a", b""), ("GET", "/metrics", b""), ("GET", "/nothing", b"")):
        status, error = api.ask(method, path, *fields, "X-Request-Id: foreign-page", body=body)
        assert (status, error["code"], error["type"]) == (403, "foreign_origin", "permission_error"), (method, path)
        assert "--cors-origin" in error["message"]
        wait_until(lambda: re.search(rf"id=foreign-page .*method={method} path={path} status=403", log.read_text()), 10,
                   "a line in the access log")
    for path in ("/", "/page.css", "/page.js", "/livez"):
        assert api.ask("GET", path, *fields)[0] == 200, "a link leads to the page, a load balancer to the probe"
        assert api.ask("HEAD", path, *fields)[0] == 200
    assert api.ask("OPTIONS", "/v1/completions", *fields, "Access-Control-Request-Method: POST")[0] == 204, "leave to none"
    assert Listener(addresses["admin"]).ask("GET", "/metrics", *fields)[0] == 403


@pytest.mark.parametrize("fields", [[], ["Sec-Fetch-Site: same-origin"], ["Sec-Fetch-Site: none"],
                                    ["Sec-Fetch-Site: same-origin", "Origin: http://a.proxy"], ["Origin: http://{host}"]],
                         ids=" ".join)
def test_programs_and_the_page_of_our_own_are_served(plain, fields):
    addresses, _ = plain
    here = addresses["http"]
    for host in (here, here.replace("127.0.0.1", "localhost"), "chat.localhost", "[::1]:80", "127.9.9.9"):
        api = Listener(addresses["http"], host)
        own = [field.format(host=host) for field in fields]
        assert api.ask("POST", "/tokenize", *own, body=BODY)[0] == 200, "also without a Content-Type"
        assert api.ask("GET", "/v1/models", *own)[0] == 200


def test_refusals_are_counted(plain):
    api = Listener(plain[0]["http"])
    def count():
        with socket.create_connection(plain[0]["admin"].rsplit(":", 1)) as connection:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()
        return {reason: float(re.search(rf'rejections_total{{.*reason="{reason}"}} (\d+)', text)[1])
                for reason in ("foreign_origin", "unknown_host")}
    api.ask("POST", "/tokenize", "Origin: null", body=BODY)
    api.ask("POST", "/tokenize", host="evil.example", body=BODY)
    before = count()
    api.ask("POST", "/tokenize", "Origin: null", body=BODY)
    api.ask("POST", "/tokenize", host="evil.example", body=BODY)
    assert count() == {reason: value + 1 for reason, value in before.items()}


def test_a_name_that_was_rebound_to_loopback_is_refused(plain):
    addresses, _ = plain
    api, admin = Listener(addresses["http"]), Listener(addresses["admin"])
    for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "10.0.0.1", "127.0.0.1.evil.example"):
        for fields in ([], ["Sec-Fetch-Site: same-origin"], [f"Origin: http://{host}"]):
            for listener, path in ((api, "/v1/models"), (api, "/v1/cluster"), (api, "/metrics"), (admin, "/metrics"),
                                   (admin, "/version")):
                status, error = listener.ask("GET", path, *fields, host=host)
                assert (status, error["code"]) == (403, "unknown_host"), (host, path)
                assert "--http-hosts" in error["message"] and "localhost" in error["message"]
        assert api.ask("GET", "/livez", host=host)[0] == admin.ask("GET", "/livez", host=host)[0] == 200
    assert api.ask("GET", "/v1/models", host="", version="1.0")[0] == 200, "HTTP/1.0 names no Host"


def test_names_and_origins_of_flags_may_ask(tmp_path):
    flags = ["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--http-hosts", "llm.example,10.0.0.1", "--cors-origin", EVIL]
    with coordinator(tmp_path, *flags) as (addresses, _):
        api = Listener(addresses["http"])
        for host in ("llm.example", "LLM.example:8000", "10.0.0.1:8000", "localhost"):
            assert api.ask("GET", "/v1/models", host=host)[0] == 200
            assert Listener(addresses["admin"]).ask("GET", "/metrics", host=host)[0] == 200
        assert api.ask("GET", "/v1/models", host="evil.example")[0] == 403
        cross = "Sec-Fetch-Site: cross-site"
        assert api.ask("POST", "/tokenize", f"Origin: {EVIL}", cross, body=BODY)[0] == 200
        assert api.ask("POST", "/tokenize", "Origin: http://other.example", cross, body=BODY)[0] == 403
        assert api.ask("GET", "/v1/models", cross)[0] == 403, "an image of nobody knows which page"


@pytest.mark.parametrize("which", ["keys", "network"])
def test_with_keys_or_beyond_loopback_host_is_not_asked(tmp_path, which):
    (tmp_path / "keys").write_text("sk-a-key\n")
    flags = {"keys": ["--http", "127.0.0.1:0", "--api-keys", tmp_path / "keys"],
             "network": ["--http", "0.0.0.0:0", "--insecure-http"]}[which]
    with coordinator(tmp_path, *flags) as (addresses, _):
        api = Listener(addresses["http"].replace("0.0.0.0", "127.0.0.1"), "llm.example")
        key = ["Authorization: Bearer sk-a-key"] if which == "keys" else []
        assert api.ask("POST", "/tokenize", *key, body=BODY)[0] == 200
        assert api.ask("POST", "/tokenize", *key, "Origin: https://llm.example", body=BODY)[0] == 200
        assert api.ask("POST", "/tokenize", *key, "Origin: https://evil.example", body=BODY)[0] == 403
        if key:
            assert api.ask("POST", "/tokenize", "Origin: https://evil.example", body=BODY)[0] == 401


@pytest.mark.parametrize("name", ["http://llm.example", "llm.example:80", "a b", "a/b", ""])
def test_a_name_that_no_client_can_write_is_refused(name):
    assert "name of a host" in refused(2, "coordinator", "--http-hosts", name)
