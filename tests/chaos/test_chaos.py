"""The smoke of chaos for CI: a cluster under one fault of each sort, and the harness itself. Long runs: tests/chaos/run.py."""

import os
import random
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import cluster
import seed_run
from faults import BOUNDARIES, WEIGHTS, Planned, draw_plan, link_fault
from frames import ControlUnits, PageUnits, message_name
from load import Asked
from proxy import Fault, Proxy

WORKERS = ["p1", "p2", "d1"]
# One after the other, each with a few requests in work.
SMOKE = [
    Planned(0.3, "kill_prefill", "p1", 0.4),
    Planned(0.2, "failpoint", "d1", 5, {"role": "decode", "message": "token_batch", "when": "after", "action": "kill", "nth": 2}),
    Planned(0.2, "flip_page", "data-p1", 4, {"count": 2}),
    Planned(0.2, "cut_data", "data-p2", 0.4, {"way": "both"}),
    Planned(0.2, "double_frame", "control-d1", 2, {"count": 3, "way": "up"}),
    Planned(0.2, "stop_decode", "d1", 2.5),
    Planned(0.2, "term_prefill", "p2", 0.4),
    Planned(0.2, "hole_data", "data-p1", 1, {"way": "down"}),
    Planned(0.2, "kill_coordinator", "coordinator", 0.4),
]

needs_cluster = pytest.mark.skipif(bool(cluster.missing()), reason=cluster.missing())


@needs_cluster
def test_every_request_survives_one_fault_of_each_sort(tmp_path):
    outcome = seed_run.SeedRun("smoke", tmp_path, plan=SMOKE, size=(2, 1)).run()
    timeline = (tmp_path / "timeline.txt").read_text()
    print(timeline)
    assert not outcome.void, outcome.void
    assert not outcome.failures, "\n".join(outcome.failures) + "\n" + timeline
    assert outcome.finished == outcome.identical > 15
    assert sum(outcome.faults.values()) == len(SMOKE)
    assert outcome.damaged > 0 and outcome.detected > 0, "no damaged page has met a receiver"
    assert not outcome.untested


@needs_cluster
@pytest.mark.parametrize("role", ["coordinator", "prefill", "decode"])
def test_a_failpoint_that_is_none_is_refused(role, tmp_path):
    environment = {**os.environ, "RUNAHEAD_FAILPOINT": f"{role}.hello.sometimes=kill"}
    flags = ["--http", "127.0.0.1:0", "--listen", "127.0.0.1:0"] if role == "coordinator" else ["--coordinator", "127.0.0.1:1"]
    done = subprocess.run([cluster.binary(), role, *flags], capture_output=True, text=True, env=environment, timeout=60,
                          check=False)
    assert done.returncode == 3, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("runahead: ")]
    assert len(said) == 1 and "neither before nor after" in said[0], done.stderr


class Unhurt:
    """What the checks look at, of a run in which all was well."""

    def __init__(self, tmp_path):
        self.run = seed_run.SeedRun("unhurt", tmp_path, size=(2, 1))
        self.run.clients = type("Clients", (), {"asked": []})()
        self.run.nemesis = type("Nemesis", (), {"done": []})()
        self.run.reference, self.run.calm_until = {"short": "all of it"}, 0
        tokens = seed_run.PROMPTS["short"][1]
        for kind in ("stream", "whole", "job"):
            self.run.clients.asked.append(Asked(kind, "short", 1.0, accepted=True, outcome="finished", text="all of it",
                                                tokens=tokens, ids=list(range(tokens)), ended=2.0))
        self.stream, self.whole, self.job = self.run.clients.asked

    def failures(self):
        self.run._judge_answers()
        self.run._judge_times()
        return self.run.outcome.failures


def test_the_checks_find_nothing_where_nothing_is(tmp_path):
    assert Unhurt(tmp_path).failures() == []


@pytest.mark.parametrize("lie, promise", [
    (lambda its: setattr(its.stream, "text", "all of"), "P1"),
    (lambda its: setattr(its.stream, "tokens", 3), "P1"),
    (lambda its: its.job.ids.pop(4), "P1"),
    (lambda its: its.job.ids.insert(4, 4), "P1"),
    (lambda its: setattr(its.whole, "outcome", "failed"), "P1"),
    (lambda its: setattr(its.whole, "outcome", "broken"), "P1"),
    (lambda its: its.whole.cut_off.append(1.5), "P1"),
    (lambda its: setattr(its.stream, "ended", 70.0), "P7"),
    (lambda its: setattr(its.stream, "silence", 40.0), "P7"),
])
def test_the_checks_find_what_is_wrong(lie, promise, tmp_path):
    its = Unhurt(tmp_path)
    lie(its)
    failures = its.failures()
    assert len(failures) == 1 and failures[0].startswith(promise), failures


def test_a_seed_is_the_same_faults_again():
    assert draw_plan(7, 60, WORKERS) == draw_plan(7, 60, WORKERS) != draw_plan(8, 60, WORKERS)


def test_every_fault_can_be_drawn_and_made():
    drawn = [planned for seed in range(200) for planned in draw_plan(seed, 20, WORKERS)]
    assert {planned.kind for planned in drawn} == {kind for kind, weight in WEIGHTS.items() if weight}
    failpoints = [planned.detail for planned in drawn if planned.kind == "failpoint"]
    assert {(detail["role"], detail["message"]) for detail in failpoints} == set(BOUNDARIES)
    for planned in drawn:
        if "-" in planned.target and not planned.kind.startswith("cut"):
            link_fault(planned)


def pieces(data, rng):
    while data:
        size = rng.randint(1, 300)
        yield data[:size]
        data = data[size:]


def test_streams_of_bytes_are_cut_into_frames_and_pages():
    frames = [struct.pack("<I", len(body)) + body for body in (b"\x08\x01\x6a\x00", b"\x08\x01\x10\x05\xc2\x01\x00" + b"x" * 500)]
    units = ControlUnits("up")
    found = [unit for piece in pieces(b"RNHDC\0\3\0" + b"".join(frames), random.Random(1)) for unit in units.feed(piece)]
    assert found == [(None, b"RNHDC\0\3\0"), ("heartbeat", frames[0]), ("rank_done", frames[1])]
    assert message_name(b"") == "unknown"
    header = bytearray(80)
    header[72:76] = struct.pack("<I", 1000)
    page = bytes(header) + b"p" * 1000
    units = PageUnits("down")
    found = [unit for piece in pieces(b"preamble" + b"\0\0\0\0" + page * 2, random.Random(2)) for unit in units.feed(piece)]
    assert found == [(None, b"preamble"), (None, b"\0\0\0\0"), ("page", page), ("page", page)]


class Far:
    """A server that sends `data` to whoever connects, then echoes."""

    def __init__(self, data):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.data = self.listener.getsockname()[1], data
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.sendall(self.data)
            threading.Thread(target=self.echo, args=(connection,), daemon=True).start()

    @staticmethod
    def echo(connection):
        try:
            while data := connection.recv(4096):
                connection.sendall(data)
            connection.close()
        except OSError:
            pass


def read(sock, size):
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            break
        data += more
    return data


@pytest.fixture
def linked():
    """A connection through a link to a server that sends two frames: (link, socket, the frames)."""
    frames = [struct.pack("<I", 6) + b"\x6a\x00" + bytes([65 + i]) * 4 for i in range(2)]  # heartbeats are left alone
    frames = [frame[:4] + b"\xc2\x01" + frame[6:] for frame in frames]
    far, proxy = Far(b"preamble" + b"".join(frames)), Proxy()
    link = proxy.link("control-x", far.port, ControlUnits, seed=1)
    opened = []

    def connect(fault=None):
        if fault:
            link.set(fault)
        opened.append(socket.create_connection(("127.0.0.1", link.port), timeout=5))
        return opened[-1]

    yield link, connect, frames
    for sock in opened:
        sock.close()
    far.listener.close()
    proxy.stop()


@pytest.mark.parametrize("what, order", [("drop", [1]), ("double", [0, 0, 1]), ("swap", [1, 0])])
def test_whole_frames_are_dropped_doubled_and_swapped(linked, what, order):
    link, connect, frames = linked
    expected = b"preamble" + b"".join(frames[i] for i in order)
    assert read(connect(Fault(units={what: 1})), len(expected)) == expected
    assert link.take_damage() == [f"{what} rank_done"]


def test_bytes_come_through_split_late_and_cut(linked):
    link, connect, frames = linked
    whole = b"preamble" + b"".join(frames)
    assert read(connect(Fault(pieces=3)), len(whole)) == whole
    assert read(connect(Fault(delay=0.05)), len(whole)) == whole
    sock = connect(Fault(stopped=("down",)))
    sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    link.heal()
    sock.settimeout(5)
    assert read(sock, len(whole)) == whole
    link.cut()
    with pytest.raises(ConnectionResetError):
        sock.recv(1)


def test_a_black_hole_says_nothing_and_ends_with_what_follows(linked):
    link, connect, frames = linked
    sock = connect(Fault(black_hole=("down",)))
    sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    link.heal()
    sock.settimeout(5)
    sock.sendall(struct.pack("<I", 2) + b"\x6a\x00" + b"more bytes than the frame")
    try:
        assert read(sock, 1) == b""
    except ConnectionResetError:
        pass
