"""/v1/files and /v1/batches with OpenAI's own client: every line gives one result, also when the coordinator is killed in the
middle, and the results are those of direct requests. Bad input is refused as OpenAI does."""

import json
import os
import signal
import time

import openai
import pytest

from conftest import START_SECONDS_MAX, eventually, start_service

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
END_SECONDS = 60


def api(service, key="unused"):
    return openai.OpenAI(base_url=service.url + "/v1", api_key=key, max_retries=0, timeout=60)


def chat_line(custom_id, question, **more):
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 8, **more}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


def upload(client, lines):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return client.files.create(file=("lines.jsonl", text.encode()), purpose="batch")


def begin(client, lines, endpoint=CHAT):
    return client.batches.create(input_file_id=upload(client, lines).id, endpoint=endpoint, completion_window="24h")


def ended(client, batch, seconds=END_SECONDS):
    end = time.monotonic() + seconds
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        assert time.monotonic() < end, batch
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    return batch


def lines_of(client, file_id):
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()] if file_id else []


def test_a_file_comes_back_as_it_was_sent(client, service):
    content = b'{"a": 1}\r\n--not a boundary\r\n\r\n' + bytes(range(256)) * 500
    file = client.files.create(file=("caf\u00e9 \"1\".jsonl", content), purpose="batch")
    assert (file.bytes, file.purpose, file.status) == (len(content), "batch", "processed")
    assert client.files.content(file.id).content == content
    assert client.files.retrieve(file.id) == file
    assert file.id in [f.id for f in client.files.list(purpose="batch")]
    assert client.files.delete(file.id).deleted
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            call(file.id)


def test_lists_come_in_pages(client):
    ids = [client.files.create(file=(f"{i}", b"x"), purpose="batch").id for i in range(5)]
    first = client.files.list(limit=2, order="asc", after=ids[0])
    assert [f.id for f in first.data] == ids[1:3] and first.has_more
    assert [f.id for f in client.files.list(limit=2, order="asc", after=ids[0])][:4] == ids[1:]
    for file_id in ids:
        client.files.delete(file_id)


@pytest.mark.parametrize("form, status, param", [
    ({"purpose": "batch"}, 400, "file"),
    ({"purpose": "fine-tune", "file": b"x"}, 400, "purpose"),
    ({"purpose": "batch", "file": b""}, 400, "file"),
    ({"purpose": "batch", "file": b"x", "expires_after[seconds]": "3600"}, 400, "expires_after[seconds]"),
    ({"purpose": "batch", "file": b"x", "colour": "red"}, 400, "colour"),
])
def test_bad_uploads_are_refused_by_name(service, form, status, param):
    boundary = "0123456789"
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'.encode()
        + (b'; filename="x.jsonl"\r\n\r\n' + value if name == "file" else b"\r\n\r\n" + value.encode()) + b"\r\n"
        for name, value in form.items())
    answer = service.post("/v1/files", body + f"--{boundary}--\r\n".encode(),
                          headers={"Content-Type": f"multipart/form-data; boundary={boundary}"})
    assert (answer.status, answer.json["error"]["param"]) == (status, param), answer.body


def test_what_is_no_form_is_refused(service):
    assert service.post("/v1/files", {"purpose": "batch"}).status == 415
    for content_type in ("multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary="a b"'):
        answer = service.post("/v1/files", b"--a\r\n", headers={"Content-Type": content_type})
        assert answer.status == 400, answer.body
    for path in ("/v1/files/..%2f..%2fjobs.sqlite", "/v1/files/file-0", "/v1/files/.lock/content", "/v1/batches/x"):
        assert service.get(path).status == 404, path


def test_results_are_those_of_direct_requests(client, service, model):
    questions = [f"What is {a} plus {b}?" for a in range(4) for b in range(3)]
    # An unsupported parameter is the error of its line; the others go on.
    lines = [chat_line(f"q-{i}", q, model=model) for i, q in enumerate(questions)]
    lines += [chat_line("bad", "hi", audio={"voice": "x"}), chat_line("two", "hi", n=2)]
    batch = ended(client, begin(client, lines))
    counts = batch.request_counts
    assert (batch.status, counts.total, counts.completed, counts.failed) == ("completed", 14, 12, 2), batch
    results = {line["custom_id"]: line for line in lines_of(client, batch.output_file_id)}
    assert sorted(results) == sorted(line["custom_id"] for line in lines[:12])
    for line in lines[:12]:
        direct = service.post(CHAT, line["body"]).json
        response = results[line["custom_id"]]["response"]
        assert response["status_code"] == 200 and results[line["custom_id"]]["error"] is None
        assert response["body"]["choices"] == direct["choices"]
        assert response["body"]["object"] == "chat.completion"
    errors = {line["custom_id"]: line["response"] for line in lines_of(client, batch.error_file_id)}
    assert {key: (r["status_code"], r["body"]["error"]["param"]) for key, r in errors.items()} == {
        "bad": (400, "audio"), "two": (400, "n")}
    assert client.files.retrieve(batch.output_file_id).purpose == "batch_output"


def test_completions_and_a_last_line_without_an_end(client, service):
    line = {"custom_id": "1", "method": "POST", "url": COMPLETIONS,
            "body": {"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0}}
    batch = ended(client, begin(client, ["", json.dumps(line)], COMPLETIONS))
    (result,) = lines_of(client, batch.output_file_id)
    assert result["response"]["body"]["choices"][0]["text"] == service.post(COMPLETIONS, line["body"]).json["choices"][0]["text"]


@pytest.mark.parametrize("lines, code, line, param", [
    (['{"custom_id": "1"'], "invalid_json_line", 1, None),
    ([chat_line("1", "a"), chat_line("2", "b"), chat_line("1", "c")], "duplicate_custom_id", 3, "custom_id"),
    ([{**chat_line("1", "a"), "url": COMPLETIONS}], "mismatched_url", 1, "url"),
    ([{**chat_line("1", "a"), "method": "GET"}], "invalid_method", 1, "method"),
    (["", {"custom_id": "1", "method": "POST", "url": CHAT}], "invalid_line", 2, "body"),
    ([{**chat_line("1", "a"), "colour": "red"}], "invalid_line", 1, "colour"),
    ([chat_line("1", "a", model="gpt-9")], "model_not_found", 1, "body.model"),
    (["  ", ""], "empty_file", None, "input_file_id"),
])
def test_bad_lines_fail_the_batch_and_are_named(client, lines, code, line, param):
    batch = ended(client, begin(client, lines))
    assert batch.status == "failed" and batch.request_counts.total == 0 and batch.output_file_id is None
    (error,) = batch.errors.data
    assert (error.code, error.line, error.param) == (code, line, param), error


def test_bad_batches_are_refused_by_name(client, service):
    file = upload(client, [chat_line("1", "a")])
    good = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    for changed, status, param in (
        ({"input_file_id": "file-none"}, 404, "input_file_id"),
        ({"endpoint": "/v1/embeddings"}, 400, "endpoint"),
        ({"completion_window": "1h"}, 400, "completion_window"),
        ({"metadata": {"a": 1}}, 400, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3600}}, 400, "output_expires_after"),
        ({"colour": "red"}, 400, "colour"),
        ({"input_file_id": None}, 400, "input_file_id"),
    ):
        answer = service.post("/v1/batches", {**good, **changed})
        assert (answer.status, answer.json["error"]["param"]) == (status, param), answer.body
    with pytest.raises(openai.NotFoundError):
        client.batches.cancel("batch_none")


def test_cancel_keeps_what_is_done_and_says_so_of_the_rest(client, service):
    lines = [chat_line(f"{i}", "Tell me a long story about the sea.", max_tokens=200, ignore_eos=True) for i in range(40)]
    batch = begin(client, lines)
    with pytest.raises(openai.ConflictError):
        client.files.delete(batch.input_file_id)
    eventually(lambda: client.batches.retrieve(batch.id).status == "in_progress", 15, "the batch runs")
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    batch = ended(client, batch, 15)
    assert batch.status == "cancelled" and batch.cancelled_at
    results = lines_of(client, batch.output_file_id) + lines_of(client, batch.error_file_id)
    assert sorted(r["custom_id"] for r in results) == sorted(line["custom_id"] for line in lines), "each once"
    assert {r["error"]["code"] for r in results if r["error"]} == {"batch_cancelled"}
    eventually(service.at_rest, 15, "nothing of the batch runs")
    assert client.batches.cancel(batch.id).status == "cancelled", "the same again is nothing"


def test_a_killed_coordinator_loses_no_line_and_runs_none_twice(tmp_path):
    store = ("--job-store", str(tmp_path / "jobs.sqlite"))
    lines = [chat_line(f"q-{i}", f"Count from {i} on.", max_tokens=24, ignore_eos=True) for i in range(24)]
    service = start_service(*store)
    try:
        client = api(service)
        batch = begin(client, lines)
        for done in (3, 10):
            eventually(lambda: client.batches.retrieve(batch.id).request_counts.completed >= done, 30, f"{done} lines")
            os.kill(service.worker_pid("coordinator"), signal.SIGKILL)
            eventually(lambda: not service.ready(), START_SECONDS_MAX, "its end")
            eventually(service.ready, START_SECONDS_MAX, "another one")
        whole = ended(client, batch)
        assert whole.status == "completed" and whole.request_counts.completed == len(lines), whole
        results = lines_of(client, whole.output_file_id)
        assert sorted(r["custom_id"] for r in results) == sorted(line["custom_id"] for line in lines), "each once"
        assert len({r["response"]["request_id"] for r in results}) == len(lines), "each is a job of its own"
        for result in results[::6]:
            line = next(line for line in lines if line["custom_id"] == result["custom_id"])
            assert result["response"]["body"]["choices"] == service.post(CHAT, line["body"]).json["choices"]
        left = sorted(path.suffix for path in (tmp_path / "jobs.sqlite-files").iterdir() if path.name != ".lock")
        assert left == [".data"] * 2 + [".json"] * 3, "input and output, and the batch"
        jobs = service.get("/v1/jobs?limit=1000").json["data"]
        assert len(jobs) == len(lines), "no line ran as two jobs"
    finally:
        service.stop()


def test_another_key_sees_nothing(tmp_path):
    (tmp_path / "keys").write_text("one\ntwo\n")
    service = start_service("--api-keys", str(tmp_path / "keys"), "--job-store", str(tmp_path / "jobs.sqlite"),
                            "--files-max", "3", workers=1)
    try:
        one, two = api(service, "one"), api(service, "two")
        batch = ended(one, begin(one, [chat_line("1", "Hello")]))
        assert batch.status == "completed"
        for file_id in (batch.input_file_id, batch.output_file_id):
            for call in (two.files.retrieve, two.files.content, two.files.delete):
                with pytest.raises(openai.NotFoundError):
                    call(file_id)
            assert one.files.retrieve(file_id)
        for call in (two.batches.retrieve, two.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                call(batch.id)
        with pytest.raises(openai.NotFoundError):
            two.batches.create(input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h")
        assert not list(two.files.list()) and not list(two.batches.list())
        assert [b.id for b in one.batches.list()] == [batch.id] and len(list(one.files.list())) == 2
        upload(two, ["x"])
        with pytest.raises(openai.RateLimitError):
            upload(two, ["x"])
    finally:
        service.stop()


def test_without_a_job_store_the_routes_say_what_to_do():
    service = start_service(workers=1)
    try:
        with pytest.raises(openai.BadRequestError, match="--job-store"):
            api(service).files.create(file=("x", b"x"), purpose="batch")
        with pytest.raises(openai.BadRequestError, match="--job-store"):
            api(service).batches.list()
    finally:
        service.stop()
