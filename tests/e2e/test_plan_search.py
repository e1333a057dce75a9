"""runahead plan search: cuts measured on a running cluster, kept, gone on with, and served by."""

import json
import re
import subprocess

import pytest

from cli import BINARY, NOT_BUILT, refused, runahead

pytestmark = NOT_BUILT


@pytest.fixture(scope="module")
def cluster():
    with subprocess.Popen([BINARY, "serve", "--workers", "2", "--http", "127.0.0.1:0", "-q", "-o", "json"],
                          stdout=subprocess.PIPE, text=True) as process:
        yield json.loads(process.stdout.readline())["http"]
        process.terminate()


def search(cluster, table, *more):
    return runahead("plan", "search", "--url", cluster, "--table", str(table), "--repetitions", "1", "-q", "-o", "json", *more)


def test_a_search_is_kept_and_served_by(cluster, tmp_path):
    table = tmp_path / "table.json"
    done = search(cluster, table, "--tokens", "256,512")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["entries"]
    assert [entry["tokens"] for entry in found] == [256, 512]
    kept = json.loads(table.read_text())
    assert [entry["cuts"] for entry in kept["entries"]] == [entry["cuts"] for entry in found]
    assert len(kept["measured"]) == sum(entry["measured"] for entry in found) >= 5

    # Broken off after three measurements: it goes on with them.
    kept["measured"], kept["entries"] = kept["measured"][:3], []
    table.write_text(json.dumps(kept))
    assert search(cluster, table, "--tokens", "256,512").returncode == 0
    again = json.loads(table.read_text())
    assert all(one in again["measured"] for one in kept["measured"])

    plan = json.loads(runahead("plan", "--tokens", "512", "--strategy", "searched", "--table", str(table), "-o", "json").stdout)
    assert plan["cuts"] == again["entries"][1]["cuts"]
    answer = runahead("run", "--raw", "-p", "word " * 400, "--max-tokens", "2", "--strategy", "predicted",
                      "--split-table", str(table), "-o", "json")
    assert answer.returncode == 0, answer.stderr
    report = json.loads(answer.stdout)
    assert report["plan"]["strategy"] == "predicted" and len(report["plan"]["cuts"]) == 1


def test_a_profile_teaches_the_cluster_its_speeds(cluster):
    done = runahead("plan", "profile", "--url", cluster, "--tokens", "512,1024", "--repetitions", "2", "-q", "-o", "json")
    assert done.returncode == 0, done.stderr
    learnt = json.loads(done.stdout)
    assert learnt["requests"] == 2 * 2 * 3, "two rounds of two lengths in three ways"
    assert all(worker["tokens_per_second"] > 0 for worker in learnt["workers"] if worker["role"] == "prefill")
    told = runahead("plan", "profile", "--url", cluster, "--tokens", "512", "--repetitions", "1")
    assert told.returncode == 0 and "computes" in told.stdout and "the coordinator keeps what it has learnt" in told.stdout
    assert "too few for 2 workers" in refused(2, "plan", "profile", "--url", cluster, "--tokens", "64", "-q")
    assert "there are plan search and plan profile" in refused(2, "plan", "find")


def test_what_it_cannot_do_it_says(cluster, tmp_path):
    table = tmp_path / "table.json"
    words = ["plan", "search", "--url", cluster, "--table", str(table), "-q"]
    assert "3 ranks need 3 prefill workers, 2 are ready" in refused(2, *words, "--ranks", "3")
    assert "too few for 2 ranks" in refused(2, *words, "--tokens", "64")
    table.write_text('{"identity": "another", "measured": [{"tokens": 512, "cuts": [64], "ttft_seconds": 1}]}')
    assert "another model" in refused(2, *words, "--tokens", "512")
    table.write_text("no table")
    assert "no JSON object" in refused(2, *words, "--tokens", "512")
    assert re.search("127.0.0.1:1", refused(4, "plan", "search", "--url", "127.0.0.1:1"))
