"""As operators see it: where the time goes, what a disconnect frees, what a dead worker changes, metrics, jobs."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest

from cli import runahead
from conftest import LONG_TEXT, eventually


def greedy(service, prompt=LONG_TEXT, max_tokens=16, **fields):
    answer = service.post("/v1/completions", {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, **fields})
    assert answer.status == 200, answer.body
    return answer.json


def test_stages_sum_to_the_time_to_first_token(service):
    for fields in [{}, {"runahead": {"strategy": "single"}}, {"runahead": {"strategy": "even"}}]:
        report = greedy(service, **fields)["usage"]["runahead"]
        assert sum(report["stages"].values()) == pytest.approx(report["ttft_seconds"], rel=0.01)
        assert report["ttft_seconds"] > 0


def test_the_chain_covers_the_prompt_and_gives_the_same_logits_however_it_is_cut(service):
    seen = []
    for options in [
        {"strategy": "single"},
        {"strategy": "even"},
        {"cuts": [128]},
        {"cuts": [320]},
        {"strategy": "auto"},
    ]:
        body = greedy(service, runahead=options, logprobs=0)
        report = body["usage"]["runahead"]
        chunks = [(worker["begin"], worker["end"]) for worker in report["workers"]]
        assert chunks[0][0] == body["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert chunks[-1][1] == body["usage"]["prompt_tokens"]
        assert all(left[1] == right[0] for left, right in zip(chunks, chunks[1:]))
        seen.append(
            (
                report["first_logits_sha256"],
                body["choices"][0]["text"],
                body["choices"][0]["logprobs"]["token_logprobs"],
            )
        )
        if "cuts" in options:
            assert report["plan"]["cuts"] == options["cuts"] and len(chunks) == 2
    assert all(each == seen[0] for each in seen), "no cut changes a bit"


def test_a_second_question_about_a_document_begins_behind_the_first(service):
    document = LONG_TEXT * 3
    cached_before = service.metric("runahead_cached_prompt_tokens_total")

    def ask(question, salt):
        return greedy(service, document + question, max_tokens=6, cache_salt=salt)

    first = ask(" Who keeps the light?", "one tenant")
    warm = ask(" When does the ship come?", "one tenant")
    cold = ask(" When does the ship come?", "another tenant")
    of_first, of_warm = first["usage"]["prompt_tokens_details"], warm["usage"]["prompt_tokens_details"]
    assert of_first == {"cached_tokens": 0, "cache_write_tokens": first["usage"]["prompt_tokens"] // 64 * 64}
    assert of_warm["cached_tokens"] % 64 == 0 and of_warm["cached_tokens"] >= first["usage"]["prompt_tokens"] - 2 * 64
    assert cold["usage"]["prompt_tokens_details"]["cached_tokens"] == 0, "no tenant sees another's pages"
    assert warm["choices"][0]["text"] == cold["choices"][0]["text"]
    assert warm["usage"]["runahead"]["first_logits_sha256"] == cold["usage"]["runahead"]["first_logits_sha256"]
    assert warm["usage"]["runahead"]["ttft_seconds"] < cold["usage"]["runahead"]["ttft_seconds"] / 2
    assert service.metric("runahead_cached_prompt_tokens_total") == cached_before + of_warm["cached_tokens"]
    refused = service.post("/v1/completions", {"prompt": "a", "cache_salt": "s" * 257})
    assert refused.status == 400 and refused.json["error"]["param"] == "cache_salt"


def test_the_next_turn_begins_behind_the_answer(service):
    document, question = LONG_TEXT, " And what does the keeper do when the storm is over?"

    def ask(prompt, salt, tokens):
        return greedy(service, prompt, max_tokens=tokens, cache_salt=salt)

    first = ask(document, "a conversation", 150)
    eventually(lambda: not any(worker["running"] for worker in service.get("/v1/cluster").json["workers"]),
               what="the decode worker's word of what it keeps")
    turn = document + first["choices"][0]["text"] + question
    warm, cold = ask(turn, "a conversation", 6), ask(turn, "another one", 6)
    prompt = first["usage"]["prompt_tokens"]
    assert warm["usage"]["prompt_tokens_details"]["cached_tokens"] >= prompt + 128 - 64, "two pages of the answer and more"
    assert cold["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert warm["choices"][0]["text"] == cold["choices"][0]["text"]
    assert warm["usage"]["runahead"]["first_logits_sha256"] == cold["usage"]["runahead"]["first_logits_sha256"]


def test_cuts_off_the_page_are_refused(service):
    answer = service.post("/v1/completions", {"prompt": LONG_TEXT, "runahead": {"cuts": [100]}})
    assert answer.status == 400 and "64" in answer.json["error"]["message"]


def test_server_timing_header(service):
    answer = service.post("/v1/completions", {"prompt": "a", "max_tokens": 1}, headers={"X-Request-Id": "trace-me"})
    assert "prefill_compute;dur=" in answer.headers["server-timing"]
    assert answer.headers["x-request-id"] == "trace-me"


def test_concurrent_requests_get_the_same_answers_as_alone(service):
    from concurrent.futures import ThreadPoolExecutor

    prompts = [LONG_TEXT, "The sea is", LONG_TEXT[:900], "Two plus two is"]
    alone = [greedy(service, prompt)["choices"][0]["text"] for prompt in prompts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda p: greedy(service, p)["choices"][0]["text"], prompts * 2))
    assert together == alone * 2


def test_disconnect_frees_every_page(service):
    eventually(service.at_rest, what="rest before the test")
    cancelled = service.metric("runahead_requests_total", endpoint="completions", status="cancelled")
    connection = service.connection()
    body = {"prompt": LONG_TEXT, "max_tokens": 1000, "stream": True, "ignore_eos": True}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    while not response.readline().startswith(b"data: "):
        pass
    response.close()
    connection.close()
    eventually(service.at_rest, what="all pages free")
    assert service.metric("runahead_requests_total", endpoint="completions", status="cancelled") == cancelled + 1


def test_disconnect_during_prefill_frees_every_page(service):
    eventually(service.at_rest)
    connection = service.connection()
    body = {"prompt": LONG_TEXT * 4, "max_tokens": 8, "stream": True}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.readline() == b": ping\n", "the first comment comes before the first token"
    response.close()
    connection.close()
    eventually(service.at_rest, what="all pages free")


def test_metrics_pass_promtool_and_count(service):
    before = service.metric("runahead_time_to_first_token_seconds_count")
    greedy(service)
    eventually(lambda: service.metric("runahead_time_to_first_token_seconds_count") == before + 1)
    stages = service.metric("runahead_ttft_stage_seconds_sum")
    assert stages == pytest.approx(service.metric("runahead_time_to_first_token_seconds_sum"), rel=0.01)
    for role, count in [("prefill", 2), ("decode", 1)]:
        assert service.metric("runahead_worker_up", role=role) >= count
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=service.get("/metrics").body, capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_doctor_looks_at_a_cluster(service):
    greedy(service)
    done = runahead("doctor", "--url", service.address, "-o", "json")
    findings = json.loads(done.stdout)["findings"]
    assert done.returncode == 0 and [finding["what"] for finding in findings].count("worker") == 3, done.stdout
    workers = [worker["name"] for worker in service.cluster()["workers"] if worker["role"] == "prefill"]
    for name in workers:
        assert any(finding["detail"].startswith(name + " computes ") for finding in findings), findings
    nobody = runahead("doctor", "--url", "127.0.0.1:1", "-o", "json")
    assert nobody.returncode != 0 and "127.0.0.1:1" in json.loads(nobody.stdout)["findings"][-1]["detail"]


def test_openapi_page_is_valid(service):
    validator = pytest.importorskip("openapi_spec_validator")
    spec = service.get("/openapi.json").json
    validator.validate(spec)
    for path, methods in spec["paths"].items():
        if "{" in path or "get" not in methods or path == "/metrics":
            continue
        assert service.get(path).status == 200, path


def test_malformed_requests_leave_the_service_alive(service):
    for body in [b"", b"{", b"[]", b"\xff\xfe", b'{"prompt": "\\ud800"}', b'{"prompt": ["a", 1]}', b"[" * 100_000]:
        answer = service.post("/v1/completions", body)
        assert answer.status == 400 and answer.json["error"]["message"], body[:20]
    assert service.get("/nothing").json["error"]["code"] == "not_found"
    assert service.request("DELETE", "/v1/models").status == 405
    assert greedy(service, "still", 2)["choices"]


def read_events(service, job, headers=None):
    """(name, id, data) of every event until the stream ends."""
    connection = service.connection()
    connection.request("GET", f"/v1/jobs/{job}/events", headers=headers or {})
    response = connection.getresponse()
    assert response.status == 200
    events = []
    for block in response.read().decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            events.append((fields.get("event"), fields.get("id"), json.loads(fields["data"])))
    return events


def wait_for(service, job, status):
    eventually(lambda: service.get(f"/v1/jobs/{job}").json["status"] == status, 60, f"{job} {status}")
    return service.get(f"/v1/jobs/{job}").json


def test_job_gives_the_same_answer_as_a_request(service):
    body = {"prompt": LONG_TEXT, "max_tokens": 16, "temperature": 0, "seed": 1}
    submitted = service.post("/v1/jobs", body)
    assert submitted.status == 202 and submitted.headers["location"] == "/v1/jobs/" + submitted.json["id"]
    job = wait_for(service, submitted.json["id"], "succeeded")
    expected = greedy(service)
    assert job["result"]["choices"] == expected["choices"]
    assert job["result"]["usage"]["completion_tokens"] == expected["usage"]["completion_tokens"]
    assert (
        job["result"]["usage"]["runahead"]["first_logits_sha256"]
        == expected["usage"]["runahead"]["first_logits_sha256"]
    )
    assert job["id"] in [each["id"] for each in service.get("/v1/jobs").json["data"]]


def test_job_events_go_on_behind_the_last_one_seen(service):
    job = service.post(
        "/v1/jobs",
        {"messages": [{"role": "user", "content": "Tell me about ships."}], "max_tokens": 24, "temperature": 0},
    ).json["id"]
    events = read_events(service, job)
    assert events[-1][0] == "finished"
    text = "".join(data["text"] for name, _, data in events if name == "tokens")
    ids = [token for name, _, data in events if name == "tokens" for token in data["tokens"]]
    result = wait_for(service, job, "succeeded")["result"]
    assert result["choices"][0]["message"]["content"].startswith(text)
    middle = len(ids) // 2
    again = read_events(service, job, {"Last-Event-ID": str(middle)})
    assert [token for name, _, data in again if name == "tokens" for token in data["tokens"]] == ids[middle:]


def test_job_with_the_same_key_is_the_same_job(service):
    body, key = {"prompt": "a", "max_tokens": 2}, {"Idempotency-Key": f"key-{time.time()}"}
    first = service.post("/v1/jobs", body, headers=key)
    second = service.post("/v1/jobs", body, headers=key)
    assert first.json["id"] == second.json["id"]


def test_job_can_be_cancelled_and_leaves_no_page(service):
    job = service.post("/v1/jobs", {"prompt": LONG_TEXT, "max_tokens": 1000, "ignore_eos": True}).json["id"]
    wait_for(service, job, "running")
    assert service.request("DELETE", f"/v1/jobs/{job}").status == 200
    assert wait_for(service, job, "cancelled")["result"] is None
    eventually(service.at_rest)
    assert service.request("DELETE", "/v1/jobs/job-none").status == 404


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_killed_worker_changes_no_token(service, role):
    eventually(service.at_rest, 30)
    expected = greedy(service, LONG_TEXT * 3, 60, ignore_eos=True)["choices"][0]["text"]
    pid = service.worker_pid(role)
    connection = service.connection()
    body = {
        "prompt": LONG_TEXT * 3,
        "max_tokens": 60,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if role == "decode":  # in the middle of the answer; a prefill worker dies before the first token
        while not response.readline().startswith(b"data: "):
            pass
    else:
        eventually(lambda: service.cluster()["running"] > 0)
    os.kill(pid, signal.SIGKILL)
    rest = response.read().decode()
    chunks = [json.loads(line[6:]) for line in rest.splitlines() if line.startswith("data: {")]
    assert "data: [DONE]" in rest, rest[-500:]
    text = "".join(c["choices"][0]["text"] for c in chunks if c["choices"])
    assert expected.endswith(text) and (role == "decode" or text == expected)
    assert chunks[-1]["usage"]["completion_tokens"] == 60
    eventually(service.ready, 60, "the worker came back")
    eventually(lambda: len(service.cluster()["workers"]) >= 3, 60, "three workers")
    eventually(service.at_rest, 30)
    assert greedy(service, LONG_TEXT * 3, 60, ignore_eos=True)["choices"][0]["text"] == expected
