"""runahead status, submit, jobs and cancel against a running cluster."""

import json

from cli import NOT_BUILT, refused, runahead, wait_until

pytestmark = NOT_BUILT


def told(service, *arguments, **options):
    done = runahead(*arguments, "--url", service.address, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_status_shows_every_worker(service):
    text = told(service, "status")
    assert text.splitlines()[0].startswith("0 running") and text.count("prefill") >= 2 and "decode" in text
    cluster = json.loads(told(service, "status", "-o", "json"))
    assert len(cluster["workers"]) == 3
    assert refused(4, "status", "--url", "127.0.0.1:1")
    assert refused(2, "status", "--url", "nowhere")


def test_a_job_is_submitted_waited_for_and_found_again(service):
    chat = service.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Name a colour."}],
                                                 "max_tokens": 8, "temperature": 0}).json
    words = ["-p", "Name a colour.", "--max-tokens", "8", "--temperature", "0"]
    assert told(service, "submit", *words, "--wait") == chat["choices"][0]["message"]["content"] + "\n"
    job = told(service, "submit", *words).strip()
    wait_until(lambda: json.loads(told(service, "jobs", job, "-o", "json"))["status"] == "succeeded", what="the job's end")
    assert told(service, "jobs", job) == chat["choices"][0]["message"]["content"] + "\n"
    assert job in told(service, "jobs", "--limit", "5")
    assert "not" in refused(3, "jobs", "job-that-is-not-there", "--url", service.address)
    assert "no id" in refused(2, "jobs", "../v1/cluster", "--url", service.address)


def test_a_job_is_cancelled(service):
    job = told(service, "submit", "--raw", "-p", "Once upon a time " * 300, "--max-tokens", "2000").strip()
    assert told(service, "cancel", job).split()[0] == job
    wait_until(lambda: json.loads(told(service, "jobs", job, "-o", "json"))["status"] == "cancelled", what="the job's end")
    wait_until(service.at_rest, what="all pages free")


def test_a_key_is_sent_where_one_is_given(tmp_path):
    from conftest import start_service

    keys = tmp_path / "keys"
    keys.write_text("secret\n")
    service = start_service("--api-keys", str(keys), workers=1)
    try:
        assert "key" in refused(1, "status", "--url", service.address)
        assert runahead("status", "--url", service.address, "--api-key", "secret").returncode == 0
    finally:
        service.stop()
