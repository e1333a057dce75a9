"""Who may ask what: every route of /openapi.json, with no key, a wrong one and the right one, on the listener of the API and on
those for probes of every process. What is open is named here, with why; a route without a decision fails the test, and so do
tricks with a path, a method or a header that reach a protected route without a key."""

import base64
import json
import os
import re
import socket
import subprocess
from urllib.parse import quote

import pytest

from cli import wait_until
from conftest import STOP_SECONDS_MAX, binary, eventually
from own_cache import cache_of_its_own

KEY, WRONG = "sk-right-of-the-routes", "sk-wrong"
COMMENT = "sk-in-a-comment"
ORIGIN = "https://chat.example"
PROMPT = "The heron of the third lamp"  # what a stranger must not read
ROLES = ["coordinator", "prefill", "decode"]

# Answered without a key by the API's listener, and why.
OPEN = {
    "GET /": "the page itself, which holds no data; a browser cannot send a key before it has the page",
    "GET /page.css": "the same page",
    "GET /page.js": "the same page",
    "GET /livez": "a kubelet and a load balancer have no key; it says that the process lives",
    "GET /readyz": "the same; it says whether workers are there, and names none without a key",
    "GET /health": "the same, by the name that other servers have",
}
# Answered by --admin, which knows no keys: what a scraper reads, on an address for the cluster's own tools.
ADMIN = {"GET /livez", "GET /readyz", "GET /health", "GET /metrics", "GET /version"}
# Everything else needs a key. A new route goes here, or above with its reason.
PROTECTED = {
    "POST /v1/completions", "POST /v1/chat/completions", "POST /v1/messages", "POST /v1/messages/count_tokens",
    "GET /v1/models", "GET /v1/models/{id}", "POST /tokenize", "POST /detokenize", "POST /apply-template",
    "POST /v1/responses", "GET /v1/responses/{id}", "DELETE /v1/responses/{id}", "POST /v1/responses/{id}/cancel",
    "GET /v1/responses/{id}/input_items", "POST /v1/jobs", "GET /v1/jobs", "GET /v1/jobs/{id}", "DELETE /v1/jobs/{id}",
    "GET /v1/jobs/{id}/trace", "GET /v1/jobs/{id}/events", "POST /v1/files", "GET /v1/files", "GET /v1/files/{id}",
    "DELETE /v1/files/{id}", "GET /v1/files/{id}/content", "POST /v1/batches", "GET /v1/batches", "GET /v1/batches/{id}",
    "POST /v1/batches/{id}/cancel", "GET /v1/requests", "GET /v1/requests/{id}", "DELETE /v1/requests/{id}",
    "GET /v1/requests/{id}/trace", "GET /v1/cluster", "GET /version", "GET /metrics", "GET /openapi.json",
}


class Answer:
    def __init__(self, raw):
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *fields = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
        self.id = self.headers["x-request-id"]


class Listener:
    """One address. What is sent is what is written here: http.client would tidy the path."""

    def __init__(self, name, address, log):
        self.name, self.log = name, log
        self.host, port = address.rsplit(":", 1)
        self.port = int(port)

    def raw(self, request):
        with socket.create_connection((self.host, self.port), timeout=30) as connection:
            connection.sendall(request)
            received = b""
            while chunk := connection.recv(1 << 16):
                received += chunk
        return received

    def ask(self, method, target, *fields, body=b""):
        head = [f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close", *fields]
        if body or method == "POST":
            head += [f"Content-Length: {len(body)}"]
        return Answer(self.raw("\r\n".join(head).encode() + b"\r\n\r\n" + body))

    def logged(self, request_id):
        found = re.findall(rf"request id={re.escape(request_id)} .* status=(\d+)", self.log.read_text())
        return [int(status) for status in found]


def bearer(key):
    return f"Authorization: Bearer {key}"


class Cluster:
    def __init__(self, folder):
        self.processes, self.folder = [], folder
        (folder / "keys").write_text(f"# {COMMENT}\n{KEY}\n")
        self.environment = {**os.environ, "RUNAHEAD_CACHE_DIR": cache_of_its_own()}
        self.admins = []
        at = self.start("coordinator", "--http", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--api-keys", folder / "keys",
                        "--cors-origin", ORIGIN, "--job-store", folder / "jobs.sqlite")
        self.api = Listener("the API", at["http"], folder / "coordinator.log")
        for role in ROLES[1:]:
            self.start(role, "--coordinator", at["control"], "--transport", "tcp", "--name", f"secret-{role}")
        eventually(lambda: self.api.ask("GET", "/readyz").status == 200, 60, "/readyz")
        self.ids = self.things()
        # None of it may stand in what a stranger reads.
        self.secrets = [KEY, PROMPT, "secret-prefill", "secret-decode", "smollm2", "SmolLM2", "runahead_", '"openapi":',
                        "fingerprint", '"revision"', '"data"', *self.ids.values()]

    def start(self, role, *flags):
        reading, writing = os.pipe()
        with open(self.folder / f"{role}.log", "wb") as log:
            self.processes.append(subprocess.Popen(
                [binary(), role, "--admin", "127.0.0.1:0", "--announce-fd", str(writing), *flags], env=self.environment,
                pass_fds=[writing], stderr=log))
        os.close(writing)
        with os.fdopen(reading) as announced:
            addresses = json.loads(announced.readline())
        if addresses["event"] == "error":
            pytest.skip(addresses["message"])  # no model here; deploy/setup.sh fetches it
        self.admins.append(Listener(f"--admin of {role}", addresses["admin"], self.folder / f"{role}.log"))
        return addresses

    def things(self):
        """One of each, so that a route of one thing has something to give away: path -> its id."""
        def made(path, body, content="application/json"):
            answer = self.api.ask("POST", path, bearer(KEY), f"Content-Type: {content}", body=body)
            assert answer.status in (200, 201, 202), (path, answer.status, answer.body)
            return json.loads(answer.body)["id"]

        ask = {"model": "smollm2", "prompt": PROMPT, "max_tokens": 1}
        line = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": ask})
        form = "".join(f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n' for name, more, value in
                       [("purpose", "", "batch"), ("file", '; filename="f.jsonl"', line)]) + "--b--\r\n"
        file = made("/v1/files", form.encode(), "multipart/form-data; boundary=b")
        batch = {"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"}
        reply = {"model": "smollm2", "input": PROMPT, "max_output_tokens": 1, "store": True}
        return {
            "/v1/files": file,
            "/v1/jobs": made("/v1/jobs", json.dumps(ask).encode()),
            "/v1/responses": made("/v1/responses", json.dumps(reply).encode()),
            "/v1/batches": made("/v1/batches", json.dumps(batch).encode()),
            "/v1/requests": "request-of-nobody",
            "/v1/models": "smollm2-of-nobody",
        }

    def route(self, name):
        method, path = name.split(" ")
        if "{id}" in path:
            path = path.replace("{id}", self.ids[path[:path.index("/{id}")]])
        return method, path

    def stop(self):
        for process in reversed(self.processes):  # workers first: they say goodbye
            process.terminate()
        for process in self.processes:
            try:
                process.wait(STOP_SECONDS_MAX)
            finally:
                process.kill()
        return [process.returncode for process in self.processes]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if not binary().exists():
        pytest.skip(f"{binary()} is not built")
    folder = tmp_path_factory.mktemp("routes")
    running = Cluster.__new__(Cluster)
    try:
        running.__init__(folder)
        yield running
    finally:
        ended = running.stop()
    assert ended == [0] * len(ROLES)


@pytest.fixture(scope="module")
def described(cluster):
    document = json.loads(cluster.api.ask("GET", "/openapi.json", bearer(KEY)).body)
    return {f"{method.upper()} {path}": operation for path, operations in document["paths"].items()
            for method, operation in operations.items() if method != "parameters"}


def assert_refused(cluster, listener, answer, statuses, what):
    """The status, an error and nothing else, a line in the access log."""
    assert answer.status in statuses, (listener.name, what, answer.status, answer.body[:200])
    text = answer.body.decode()
    for secret in cluster.secrets:
        assert not (secret in text and secret not in what), (listener.name, what, text)
    if answer.body:
        sent = json.loads(text)
        assert set(sent) == {"error"} and set(sent["error"]) <= {"message", "type", "code", "param"}, (what, text)
    if answer.status == 401:
        assert answer.headers["www-authenticate"] == "Bearer" and "allow" not in answer.headers, what
    wait_until(lambda: listener.logged(answer.id) == [answer.status], 10, f"one line of {answer.status} for {what}")


def test_every_route_has_a_decision(described):
    assert not set(OPEN) & PROTECTED
    assert set(described) == set(OPEN) | PROTECTED, "say in this file whether a new route is open, and why"
    assert ADMIN <= set(described)
    assert {name for name, operation in described.items() if operation.get("security") == []} == set(OPEN), \
        "`security: []` in openapi.json says the same"


@pytest.mark.parametrize("fields", [[], [bearer(WRONG)], [f"X-Api-Key: {WRONG}"]], ids=["none", "wrong", "x-wrong"])
def test_without_the_right_key(cluster, fields):
    for name in sorted(set(OPEN) | PROTECTED):
        method, path = cluster.route(name)
        answer = cluster.api.ask(method, path, *fields, body=b"{}" if method == "POST" else b"")
        if name in OPEN:
            assert answer.status == 200, name
            assert not any(secret in answer.body.decode() for secret in cluster.secrets[:4]), name
        else:
            assert_refused(cluster, cluster.api, answer, {401}, name)
    verbose = cluster.api.ask("GET", "/readyz?verbose", *fields)
    assert verbose.status == 200 and b"secret-" not in verbose.body, "workers are named to holders of a key alone"


def test_with_the_right_key(cluster):
    """After all that was refused every thing is still there."""
    for name in sorted(set(OPEN) | PROTECTED, key=lambda name: (not name.startswith("GET"), name.startswith("DELETE"))):
        method, path = cluster.route(name)
        for field in (bearer(KEY), f"X-Api-Key: {KEY}") if method == "GET" else (bearer(KEY),):
            answer = cluster.api.ask(method, path, field, body=b"{}" if method == "POST" else b"")
            assert answer.status not in (401, 405), name
            there = method == "GET" and "of-nobody" not in path
            assert not there or answer.status == 200, (name, answer.status, answer.body)
            assert b"no such route" not in answer.body, name


def test_listeners_for_probes_have_five_routes_and_no_other(cluster):
    assert [listener.name for listener in cluster.admins] == [f"--admin of {role}" for role in ROLES]
    for listener in cluster.admins:
        for name in sorted(set(OPEN) | PROTECTED):
            method, path = cluster.route(name)
            for fields in ([], [bearer(WRONG)], [bearer(KEY)]):
                answer = listener.ask(method, path, *fields, body=b"{}" if method == "POST" else b"")
                if name in ADMIN:
                    assert answer.status == 200, (listener.name, name)
                    assert PROMPT.encode() not in answer.body and KEY.encode() not in answer.body
                else:
                    assert_refused(cluster, listener, answer, {404}, name)
        for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE"):
            assert_refused(cluster, listener, listener.ask(method, "/metrics"), {405}, method + " /metrics")


# What a path may look like on its way; the statuses that refuse it. A slash at the end, an escape of a letter and the absolute
# form are the same route; everything else is none, and who has no key is not told so.
def tricks(path):
    first, _, rest = path[1:].partition("/")
    escaped = "".join(f"%{ord(c):02x}" for c in first)
    yield from [(f"/{path}", {401}), (f"/{first}//{rest}", {401}), (f"/{first}/../{path[1:]}", {401}),
                (f"/livez/..{path}", {401}), (f"/v1/%2e%2e{path}", {401}), (f"/livez%2f..{path}", {401}),
                (f"/.{path}", {401}), (quote(path, safe="").lower(), {400}), (path.lstrip("/"), {400}),
                (f"/{quote(path[1:], safe='')}", {401}), (f"{path}/", {401}), (f"{path}//", {401}), (f"{path};x", {401}),
                (f"{path}/.", {401}), (f"{path}%00", {401}), (f"{path}%20", {401}), (f"{path}%3f", {401}),
                (f"{path}%", {401}), (f"{path}%zz", {401}), (path.upper(), {401}), (f"/{escaped}/{rest}", {401}),
                (f"{path}?key={KEY}", {401}), (f"{path}?api_key={KEY}&access_token={KEY}", {401}),
                (f"{path}?", {401}), (f"{path}#x", {401}), (f"\\{path[1:]}", {400}), (f"{path}\\..\\livez", {401}),
                (f"http://x{path}", {401}), (f"HTTPS://x{path}", {401}), (f"http://u:{KEY}@x{path}", {401}),
                (f"http://x/livez/..{path}", {401}), (f"ftp://x{path}", {400}), (f"http://x?{path}", {400, 401}),
                (f"*{path}", {400})]


@pytest.mark.parametrize("path", ["/metrics", "/v1/models", "/v1/cluster", "/openapi.json", "/version", "/v1/jobs/{id}",
                                  "/v1/files/{id}/content"])
def test_no_way_of_writing_a_path_is_a_way_in(cluster, path):
    _, path = cluster.route(f"GET {path}")
    for target, statuses in tricks(path):
        assert_refused(cluster, cluster.api, cluster.api.ask("GET", target), statuses, f"GET {target}")


def test_no_method_is_a_way_in(cluster):
    for name in sorted(PROTECTED):
        _, path = cluster.route(name)
        for method in ("HEAD", "GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "get", "OPTIONSX"):
            answer = cluster.api.ask(method, path)
            assert_refused(cluster, cluster.api, answer, {401}, f"{method} {path}")
            assert method != "HEAD" or answer.body == b""
    for name in sorted(OPEN):  # of an open path, too, only what is named is open
        for method in ("POST", "PUT", "DELETE", "TRACE", "get"):
            assert_refused(cluster, cluster.api, cluster.api.ask(method, name[4:]), {401}, f"{method} of {name}")
        assert cluster.api.ask("HEAD", name[4:]).status == 200
    for old in (b"GET /metrics\r\n\r\n", b"GET /metrics HTTP/0.9\r\n\r\n", b"GET /metrics HTTP/2.0\r\nHost: x\r\n\r\n"):
        assert_refused(cluster, cluster.api, Answer(cluster.api.raw(old)), {400}, repr(old))
    assert_refused(cluster, cluster.api, Answer(cluster.api.raw(b"GET /metrics HTTP/1.0\r\n\r\n")), {401}, "HTTP/1.0")


def test_options_says_methods_and_nothing_else(cluster):
    """A browser asks for leave without a key: which methods a route has is in the published description."""
    preflight = ["Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization"]
    for name in sorted(PROTECTED):
        _, path = cluster.route(name)
        for fields in ([], [f"Origin: {ORIGIN}", *preflight], ["Origin: https://evil.example", *preflight]):
            answer = cluster.api.ask("OPTIONS", path, *fields)
            assert answer.status == 204 and answer.body == b"", name
            allowed = {key for key in answer.headers if key.startswith("access-control-allow-")}
            origin = answer.headers.get("access-control-allow-origin")
            if fields[:1] == [f"Origin: {ORIGIN}"]:
                assert origin == ORIGIN and len(allowed) == 3, (name, answer.headers)
            else:
                assert not allowed, (name, answer.headers)
            assert "access-control-allow-credentials" not in answer.headers
            wait_until(lambda done=answer: cluster.api.logged(done.id) == [204], 10, f"the line of OPTIONS {path}")
    assert cluster.api.ask("OPTIONS", "*").status == 204
    for target in ("/v1/nothing", "//v1/models", "/metrics;x"):
        assert_refused(cluster, cluster.api, cluster.api.ask("OPTIONS", target), {401}, f"OPTIONS {target}")
    crossing = cluster.api.ask("GET", "/v1/models", f"Origin: {ORIGIN}")
    assert_refused(cluster, cluster.api, crossing, {401}, "GET from a page that may")


def test_a_key_is_the_whole_key_in_its_place(cluster):
    basic = base64.b64encode(f"u:{KEY}".encode()).decode()
    refused = [["Authorization: Bearer"], ["Authorization: Bearer "], [f"Authorization: {KEY}"],
               [f"Authorization: Basic {basic}"], [f"Authorization: Token {KEY}"], [f"Authorization: Bearer{KEY}"],
               [f"Authorization: Bearer\t{KEY}"],
               [bearer(KEY + "x")], [bearer(KEY[:-1])], [bearer(KEY.upper())], [bearer(f"{KEY} {KEY}")],
               [bearer(f"{WRONG},{KEY}")], [bearer(f'"{KEY}"')], [bearer(COMMENT)], [bearer(f"# {COMMENT}")],
               [bearer(quote("\n") + KEY)], ["X-Api-Key:"], [f"X-Api-Key: Bearer {KEY}"], [f"X-Api-Key: {COMMENT}"],
               [bearer(WRONG), f"X-Api-Key: {WRONG}"], [f"Cookie: key={KEY}"], [f"Proxy-Authorization: Bearer {KEY}"],
               [f"X-Authorization: Bearer {KEY}"], [f"Authorization : Bearer {KEY}"], [bearer("x" * 600)]]
    for fields in refused:
        answer = cluster.api.ask("GET", "/v1/models", *fields)
        assert_refused(cluster, cluster.api, answer, {400} if " :" in fields[0] else {401}, f"with {fields}")
    for fields in ([bearer(KEY)], [f"authorization: bearer  {KEY}"], [f"x-api-key: {KEY}"],
                   [bearer(KEY), f"X-Api-Key: {KEY}"], [bearer(WRONG), f"X-Api-Key: {KEY}"],
                   [bearer(KEY), f"X-Api-Key: {WRONG}"]):
        assert cluster.api.ask("GET", "/v1/models", *fields).status == 200, fields
    # Two of one field: proxies differ in which they look at, so neither counts.
    for field in ("Authorization: Bearer ", "X-Api-Key: "):
        for first, second in ((KEY, WRONG), (WRONG, KEY), (KEY, KEY)):
            answer = cluster.api.ask("GET", "/v1/models", field + first, field + second)
            assert_refused(cluster, cluster.api, answer, {400}, f"{field}twice: {first}, {second}")


def test_a_key_counts_for_its_request_and_not_for_the_connection(cluster):
    def request(*fields, end="keep-alive"):
        return "\r\n".join(["GET /v1/models HTTP/1.1", "Host: localhost", f"Connection: {end}", *fields]).encode() + b"\r\n\r\n"

    received = cluster.api.raw(request(bearer(KEY)) + request() + request(bearer(WRONG)) + request(bearer(KEY), end="close"))
    statuses = re.findall(rb"HTTP/1\.1 (\d+) ", received)
    assert statuses == [b"200", b"401", b"401", b"200"]
