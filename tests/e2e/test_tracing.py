"""Where a request's time goes, as others ask for it: traceparent, /trace for Perfetto, spans at a collector, Prometheus' sums."""

import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cli import runahead
from conftest import LONG_TEXT, eventually, start_service

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STAGES = ["receive", "tokenize", "queue", "plan", "prefill", "respond", "answer"]


def traceparent(sampled=True, trace=TRACE):
    return {"traceparent": f"00-{trace}-{CALLER}-0{int(sampled)}"}


class Collector:
    """Takes OTLP/HTTP as JSON. `status` is what it answers; `pause` what it waits before."""

    def __init__(self):
        self.bodies, self.status, self.pause = [], 200, 0
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(collector.pause)
                if collector.status == 200:
                    collector.bodies.append((self.path, self.headers["Content-Type"], json.loads(body)))
                self.send_response(collector.status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def spans(self, trace):
        return [span for _, _, body in list(self.bodies) for of in body["resourceSpans"] for scope in of["scopeSpans"]
                for span in scope["spans"] if span["traceId"] == trace]


@pytest.fixture(scope="module")
def collector():
    running = Collector()
    yield running
    running.server.shutdown()


@pytest.fixture(scope="module")
def service(collector, tmp_path_factory):
    """One with everything that this file is about switched on."""
    running = start_service("--otlp-endpoint", collector.url, "--metrics-compat", "vllm", "--ready-canary", "60",
                            "--transport", "tcp", "--job-store", str(tmp_path_factory.mktemp("jobs") / "jobs.sqlite"))
    yield running
    running.stop()


def complete(service, headers=None, **fields):
    answer = service.post("/v1/completions", {"prompt": LONG_TEXT, "max_tokens": 3, "temperature": 0, **fields}, headers=headers)
    assert answer.status == 200, answer.body
    return answer


def check_trace(trace):
    """Spans of a lane nest, arrows are paired and go forward, all is within the request. Gives the spans by name."""
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    whole, lanes, slack = spans[0], {}, 0.01
    for span in spans:
        begin, end = span["ts"], span["ts"] + span["dur"]
        assert 0 <= begin <= end <= whole["dur"] + slack, span
        lane = lanes.setdefault((span["pid"], span["tid"]), [])
        for other_begin, other_end in lane:
            within = begin >= other_begin - slack and end <= other_end + slack
            assert within or begin >= other_end - slack or end <= other_begin + slack, span
        lane.append((begin, end))
    named = {event["pid"] for event in trace["traceEvents"] if event["ph"] == "M" and event["name"] == "process_name"}
    assert {event["pid"] for event in trace["traceEvents"]} == named
    ends = {}
    for event in trace["traceEvents"]:
        if event["ph"] in "sf":
            ends.setdefault(event["id"], {})[event["ph"]] = event
            assert any(begin - slack <= event["ts"] <= end + slack for begin, end in lanes[event["pid"], event["tid"]])
    assert all(pair["s"]["ts"] <= pair["f"]["ts"] and pair["s"]["pid"] < pair["f"]["pid"] for pair in ends.values())
    assert {event["ph"] for event in trace["traceEvents"]} <= set("MXsf")
    return spans, ends


def test_the_trace_of_a_request_has_its_stages_ranks_and_hops(service):
    answer = complete(service, traceparent(), runahead={"strategy": "even"}, cache_salt="trace of a chain")
    report = answer.json["usage"]["runahead"]
    answered = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01", answer.headers["traceparent"])
    assert answered[1] == TRACE and answered[2] != CALLER
    row = service.get("/v1/requests/" + answer.json["id"]).json
    assert row["trace_id"] == TRACE
    trace = service.get(f"/v1/requests/{answer.json['id']}/trace").json
    spans, arrows = check_trace(trace)
    assert trace["otherData"]["trace_id"] == TRACE
    assert [span["name"] for span in spans if span["pid"] == 1] == ["completions", *STAGES]
    responded = next(span for span in spans if span["name"] == "respond")
    assert (responded["ts"] + responded["dur"]) / 1e6 == pytest.approx(report["ttft_seconds"], rel=0.001)
    for worker in report["workers"]:
        of_rank = [span for span in spans if span["pid"] == 2 + worker["rank"]]
        assert of_rank[0]["args"]["runahead.worker"] == worker["worker"]
        computed = next(span for span in of_rank if span["name"] == "prefill_compute")
        assert computed["args"]["runahead.sum_seconds"] == worker["compute_seconds"]
    assert [pair["s"]["args"]["bytes"] for pair in arrows.values()] == [w["kv_sent_bytes"] for w in report["workers"]]
    assert len(arrows) == 2, "one to the next rank, one to the decode worker"


def test_a_job_keeps_its_trace_and_the_command_writes_it(service, tmp_path):
    job = service.post("/v1/jobs", {"prompt": LONG_TEXT, "max_tokens": 4}, headers=traceparent()).json["id"]
    eventually(lambda: service.get(f"/v1/jobs/{job}").json["status"] == "succeeded", 60, "the job")
    assert service.get(f"/v1/jobs/{job}").json["trace_id"] == TRACE
    file = tmp_path / "job.json"
    done = runahead("trace", job, "--url", service.address, "--file", str(file))
    assert done.returncode == 0, done.stderr
    spans, _ = check_trace(json.loads(file.read_text()))
    assert spans[0]["name"] == "completions" and spans[0]["args"]["runahead.request.id"] == job
    assert json.loads(runahead("trace", job, "--url", service.address).stdout) == service.get(f"/v1/jobs/{job}/trace").json
    for arguments, code in [(["job-none"], 3), (["cmpl-none"], 3), (["a/b"], 2), ([job, "--file", "/no/such/folder/x"], 3)]:
        assert runahead("trace", *arguments, "--url", service.address).returncode == code, arguments


def test_what_is_in_work_and_what_was_cancelled_have_a_trace_too(service):
    connection = service.connection()
    body = {"prompt": LONG_TEXT * 3, "max_tokens": 1000, "stream": True, "ignore_eos": True}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    while not response.readline().startswith(b"data: "):
        pass
    request = service.get("/v1/requests").json["data"][0]["id"]
    check_trace(service.get(f"/v1/requests/{request}/trace").json)
    response.close()
    connection.close()
    eventually(lambda: service.get("/v1/requests/" + request).json["status"] == "cancelled")
    spans, _ = check_trace(service.get(f"/v1/requests/{request}/trace").json)
    assert spans[0]["args"]["runahead.error"] == "cancelled"


def test_a_collector_gets_the_tree_of_each_sampled_request(service, collector):
    trace, unsampled = "a" * 32, "b" * 32
    answer = complete(service, traceparent(trace=trace), runahead={"strategy": "even"}, cache_salt="otlp")
    assert complete(service, traceparent(False, unsampled)).headers["traceparent"].endswith("-00")
    begun = complete(service).headers["traceparent"]
    assert begun.endswith("-01"), "with a collector a trace that begins here is recorded"
    eventually(lambda: collector.spans(trace) and collector.spans(begun.split("-")[1]), what="spans at the collector")
    path, kind, body = collector.bodies[0]
    assert path == "/v1/traces" and kind == "application/json"
    resource = {entry["key"]: entry["value"]["stringValue"] for entry in body["resourceSpans"][0]["resource"]["attributes"]}
    assert resource["service.name"] == "runahead"
    spans = collector.spans(trace)
    by_id = {span["spanId"]: span for span in spans}
    assert len(by_id) == len(spans)
    roots = [span for span in spans if span.get("parentSpanId") == CALLER]
    assert len(roots) == 1 and roots[0]["kind"] == 2
    assert roots[0]["spanId"] == answer.headers["traceparent"].split("-")[2]
    attributes = {entry["key"]: entry["value"] for entry in roots[0]["attributes"]}
    assert attributes["gen_ai.operation.name"]["stringValue"] == "text_completion"
    assert attributes["gen_ai.usage.input_tokens"]["intValue"] == str(answer.json["usage"]["prompt_tokens"])
    assert attributes["gen_ai.usage.output_tokens"]["intValue"] == "3"
    assert attributes["gen_ai.response.id"]["stringValue"] == answer.json["id"]
    names = [span["name"] for span in spans]
    assert set(STAGES) | {"rank 0", "rank 1", "kv_send", "prefill_compute", "decode"} <= set(names)
    for span in spans:
        if span is roots[0]:
            continue
        parent = by_id[span["parentSpanId"]]
        assert int(parent["startTimeUnixNano"]) <= int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])
        assert int(span["endTimeUnixNano"]) <= int(parent["endTimeUnixNano"])
    assert abs(int(roots[0]["endTimeUnixNano"]) / 1e9 - time.time()) < 60
    eventually(lambda: service.metric("runahead_otlp_spans_total") >= len(spans))
    assert not collector.spans(unsampled)


def test_a_collector_that_refuses_or_hangs_costs_no_request_anything(service, collector):
    dropped = service.metric("runahead_otlp_dropped_requests_total")
    collector.status, collector.pause = 400, 2
    begin = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: complete(service, prompt=f"{i}", max_tokens=1), range(8)))
    assert time.monotonic() - begin < 5
    eventually(lambda: service.metric("runahead_otlp_dropped_requests_total") >= dropped + 8, 20, "counted drops")
    collector.status, collector.pause = 200, 0


def test_every_sum_holds_over_a_hundred_mixed_requests(service):
    """Stages sum to the TTFT, requests to what was accepted, at any time; vLLM's names say the same."""
    ttft, stage = "runahead_time_to_first_token_seconds", "runahead_ttft_stage_seconds"
    eventually(service.at_rest, 30)
    before = {name: service.metric(name) for name in [ttft + "_sum", ttft + "_count", stage + "_sum"]}
    seen, stop = [], threading.Event()

    def balance():
        text = service.get("/metrics").body.decode()
        value = lambda name: sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name + "{"))
        return value("runahead_requests_accepted_total"), sum(map(value, [
            "runahead_requests_ended_total", "runahead_requests_running", "runahead_requests_waiting"]))

    def watch():
        while not stop.is_set():
            seen.append(balance())
            time.sleep(0.05)

    def ask(i):
        body = {"prompt": f"{i} " + LONG_TEXT[: 200 + 37 * (i % 20)], "max_tokens": 1 + i % 4, "stream": i % 3 == 0}
        if i % 10 == 1:
            body["prompt"] = LONG_TEXT * 2  # long, and kept from the second on
        if i % 10 != 7:
            return complete(service, **body) if not body["stream"] else service.post("/v1/completions", body)
        connection = service.connection()
        connection.request("POST", "/v1/completions", json.dumps({**body, "max_tokens": 500, "stream": True, "ignore_eos": True}),
                           {"Content-Type": "application/json"})
        response = connection.getresponse()
        if i % 20 == 7:  # half of them leave before their first token
            while not response.readline().startswith(b"data: "):
                pass
        response.close()
        connection.close()

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(ask, range(100)))
    eventually(service.at_rest, 30)
    stop.set()
    watcher.join()
    assert len(seen) > 20 and max(accepted for accepted, _ in seen) - min(accepted for accepted, _ in seen) > 50
    assert all(accepted == whole for accepted, whole in seen), [pair for pair in seen if pair[0] != pair[1]]
    assert service.metric("runahead_requests_ended_total", outcome="cancelled") >= 10
    took = {name: service.metric(name) - was for name, was in before.items()}
    assert took[ttft + "_count"] >= 90
    assert took[stage + "_sum"] == pytest.approx(took[ttft + "_sum"], rel=0.01)
    rows = [row["runahead"] for row in service.get("/v1/requests").json["data"] if row["runahead"]]
    assert len(rows) > 50
    for report in rows:
        assert sum(report["stages"].values()) == pytest.approx(report["ttft_seconds"], rel=0.01)
    for name, ours in [("vllm:time_to_first_token_seconds_sum", ttft + "_sum"),
                       ("vllm:time_to_first_token_seconds_count", ttft + "_count"),
                       ("vllm:prompt_tokens_total", "runahead_prompt_tokens_total"),
                       ("vllm:num_requests_running", "runahead_requests_running"),
                       ("vllm:prefix_cache_hits_total", "runahead_cached_prompt_tokens_total")]:
        assert service.metric(name) == service.metric(ours), name
    assert service.metric("vllm:prefix_cache_hits_total") > 0
    aborted = service.metric("vllm:request_success_total", finished_reason="abort")
    assert aborted == service.metric("runahead_requests_ended_total", outcome="cancelled") > 0
    workers = {worker["name"] for worker in service.cluster()["workers"]}
    trips = [dict(re.findall(r'(\w+)="([^"]*)"', line)) | {"value": float(line.rsplit(" ", 1)[1])}
             for line in service.get("/metrics").body.decode().splitlines() if line.startswith("runahead_link_rtt_seconds{")]
    assert trips and all(0 < trip["value"] < 1 and trip["transport"] == "tcp" for trip in trips), trips
    assert all(trip["src"] in workers and trip["dst"] in workers and trip["src"] != trip["dst"] for trip in trips), trips
    assert service.metric("runahead_ttft_critical_rank_total") > 90
    assert service.metric("runahead_first_decode_seconds_count") > 50


def test_readiness_rests_on_a_completion_of_which_the_metrics_tell(service):
    assert service.metric("runahead_canary_completions_total", result="passed") >= 1
    assert service.metric("runahead_canary_completions_total", result="failed") == 0
    assert service.metric("runahead_canary_seconds") > 0
    late = start_service("--ready-canary", "60", workers=1)
    try:
        assert late.metric("runahead_canary_completions_total", result="passed") == 1, "ready was said behind it"
    finally:
        late.stop()
