"""TLS between the processes of a cluster: files of `runahead certs`, real processes, strangers at every port."""
import json
import os
import shutil
import socket
import ssl
import stat
import subprocess
import threading

import pytest

from cli import NOT_BUILT, refused, runahead, wait_until
from test_machine import answers, await_ready, port_of, processes, request, pytestmark as needs_binary_and_model

pytestmark = [NOT_BUILT, *needs_binary_and_model]
ROLES = ("coordinator", "prefill", "decode")


@pytest.fixture
def certs(tmp_path):
    folder = tmp_path / "certs"
    assert runahead("certs", folder).returncode == 0
    return folder


def flags(folder, role, **other):
    files = {"cert": f"{role}.pem", "key": f"{role}.key", "ca": "ca.pem", **other}
    return [word for name, file in files.items() for word in (f"--tls-{name}", str(folder / file))]


def worker(start, role, coordinator, *tls, transport="tcp"):
    small = ["--threads", "1", "--kv-memory-mib", "64"]
    return start([], role, "--coordinator", coordinator, "--transport", transport, *small, *tls)


def cluster(start, folder, transport="tcp", more=(), **other):
    addresses = start([], "coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0",
                      *(flags(folder, "coordinator", **other) if folder else [])).announced()
    for role in ("prefill", "prefill", "decode"):
        worker(start, role, addresses["control"], *(flags(folder, role) if folder else []), *more, transport=transport)
    await_ready(port_of(addresses["http"]))
    return addresses


def said(process, words):
    """The process has written a line with these words."""
    return next(line for line in process.process.stderr if words in line)


@pytest.mark.parametrize("transport", ["tcp", "auto"])
def test_a_cluster_answers_as_without(certs, transport):
    with processes() as start:
        plain = answers(port_of(cluster(start, None)["http"]))
    with processes() as start:
        assert answers(port_of(cluster(start, certs, transport)["http"])) == plain


def test_a_cluster_that_authenticates_its_pages_answers_as_without(certs):
    with processes() as start:
        plain = answers(port_of(cluster(start, None)["http"]))
    with processes() as start:
        assert answers(port_of(cluster(start, certs, "ucx", more=["--authenticate-pages"])["http"])) == plain


def test_pages_are_authenticated_only_within_tls():
    assert "--authenticate-pages needs --tls-cert" in refused(3, "prefill", "--authenticate-pages")


def test_who_does_not_belong_here_gets_no_worker_in(certs, tmp_path):
    other = tmp_path / "other"
    assert runahead("certs", other).returncode == 0
    shutil.copy(certs / "prefill.pem", tmp_path / "lost.pem")
    shutil.copy(certs / "prefill.key", tmp_path / "lost.key")
    assert runahead("certs", certs, "--revoke", tmp_path / "lost.pem").returncode == 0
    assert runahead("certs", certs).returncode == 0
    with processes() as start:
        addresses = cluster(start, certs, revoked="revoked.pem")
        control, http = addresses["control"], port_of(addresses["http"])
        lost = flags(certs, "prefill", cert=tmp_path / "lost.pem", key=tmp_path / "lost.key")
        believes_us = flags(other, "prefill", ca=certs / "ca.pem")
        strangers = {"plain": [], "of another authority": flags(other, "prefill"), "that believes us": believes_us,
                     "revoked": lost}
        for name, tls in strangers.items():
            assert said(worker(start, "prefill", control, *tls), "no coordinator for"), name
        counted = refusals(http)
        assert all(counted[reason] > 0 for reason in ("no_tls", "unknown_authority", "revoked")), counted
        status, text = request("127.0.0.1", http, "GET", "/v1/cluster")
        assert status == 200 and len(json.loads(text)["workers"]) == 3, text
        assert answers(http)


class Tap:
    """One connection to `port`, through a port of our own; `sent`: the client's bytes."""

    def __init__(self, port):
        self.sent = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.relay, args=(port,), daemon=True).start()

    def relay(self, port):
        client, _ = self.listener.accept()
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            threading.Thread(target=self.pump, args=(server, client), daemon=True).start()
            self.pump(client, server, True)

    def pump(self, source, to, record=False):
        try:
            while data := source.recv(65536):
                self.sent += data if record else b""
                to.sendall(data)
        except OSError:
            pass  # an end is closed


def refusals(http):
    """{reason: peers}"""
    lines = request("127.0.0.1", http, "GET", "/metrics")[1].decode().splitlines()
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines if line.startswith("runahead_tls_refused_peers_total{")}


def test_a_join_that_was_heard_cannot_be_said_again(certs):
    with processes() as start:
        addresses = start([], "coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0",
                          *flags(certs, "coordinator")).announced()
        control, http = port_of(addresses["control"]), port_of(addresses["http"])
        tap = Tap(control)
        joined = worker(start, "prefill", tap.address, *flags(certs, "prefill"))

        def workers():
            return json.loads(request("127.0.0.1", http, "GET", "/v1/cluster")[1])["workers"]

        wait_until(lambda: len(workers()) == 1, what="the worker's join")
        joined.process.terminate()
        wait_until(lambda: not workers(), what="the worker's leave")
        with socket.create_connection(("127.0.0.1", control), timeout=10) as again:
            again.sendall(tap.sent)
            while heard := again.recv(65536):
                assert b"RNHD" not in heard
        assert not workers()
        assert sum(refusals(http).values()) >= 1, refusals(http)


def test_who_shows_no_certificate_hears_nothing(certs):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(certs / "ca.pem")
    with processes() as start:
        control = port_of(start([], "coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0",
                                *flags(certs, "coordinator")).announced()["control"])
        with socket.create_connection(("127.0.0.1", control), timeout=10) as raw, context.wrap_socket(raw) as tls:
            try:  # TLS 1.3 ends for a client before the server has looked at its certificate
                heard = tls.recv(8)
            except OSError as error:
                heard, why = b"", str(error)
                assert "certificate required" in why.lower(), why
            assert heard == b"", "not even a preamble"


def test_a_process_does_not_start_with_what_cannot_serve(certs):
    sentence = refused(3, "prefill", *flags(certs, "decode"))
    assert "its role is decode, and this process is prefill" in sentence
    assert "--tls-key is missing" in refused(3, "decode", "--tls-cert", certs / "decode.pem")
    (certs / "prefill.pem").write_text("half a file")
    assert "prefill.pem" in refused(3, "prefill", *flags(certs, "prefill"))


def test_certificates_are_renewed_while_the_cluster_runs(certs):
    def serial(port):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(certs / "ca.pem")
        context.load_cert_chain(certs / "prefill.pem", certs / "prefill.key")
        with socket.create_connection(("127.0.0.1", port), timeout=10) as raw, context.wrap_socket(raw) as tls:
            assert tls.version() == "TLSv1.3"
            return tls.getpeercert()["serialNumber"]

    with processes() as start:
        addresses = cluster(start, certs)
        control, http = port_of(addresses["control"]), port_of(addresses["http"])
        before, text = serial(control), answers(http)
        assert runahead("certs", certs).returncode == 0
        wait_until(lambda: serial(control) != before, 30)
        assert answers(http) == text, "K/V streams of the next request show the new ones to each other"
        worker(start, "prefill", addresses["control"], *flags(certs, "prefill")).announced()


def test_files_of_certs(certs):
    assert sorted(os.listdir(certs)) == sorted(f"{name}.{kind}" for name in ("ca", *ROLES) for kind in ("pem", "key"))
    for file in certs.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == (0o600 if file.suffix == ".key" else 0o644), file
    for role in ROLES:
        shown = ["openssl", "x509", "-in", certs / f"{role}.pem", "-noout", "-text"]
        text = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
        assert f"URI:spiffe://runahead/{role}" in text
        verified = ["openssl", "verify", "-CAfile", certs / "ca.pem", "-purpose", "sslclient", certs / f"{role}.pem"]
        subprocess.run(verified, check=True, capture_output=True)
    authority, prefill = (certs / "ca.pem").read_text(), (certs / "prefill.pem").read_text()
    done = runahead("certs", certs, "--role", "prefill", "-o", "json")
    assert json.loads(done.stdout)["files"] == [str(certs / "prefill.key"), str(certs / "prefill.pem")]
    assert (certs / "ca.pem").read_text() == authority and (certs / "prefill.pem").read_text() != prefill
    (certs / "ca.key").write_text((certs / "decode.key").read_text())
    refused(3, "certs", certs)


def test_listening_beyond_loopback_needs_tls_or_a_flag(certs):
    with processes() as start:
        start([], "coordinator", "--listen", "0.0.0.0:0", "--http", "127.0.0.1:0", *flags(certs, "coordinator")).announced()
    assert "--tls-cert" in refused(2, "coordinator", "--listen", "0.0.0.0:0", "--http", "127.0.0.1:0")
    everywhere = ["coordinator", "--listen", "127.0.0.1:0", "--http", "0.0.0.0:0"]
    assert "--insecure-http" in refused(2, *everywhere, *flags(certs, "coordinator"))
