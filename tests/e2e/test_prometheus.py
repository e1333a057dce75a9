"""A real Prometheus scrapes a real cluster: our rules record what the answers said, and the dashboard's panels have data."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import LONG_TEXT, Service, eventually, start_service

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "deploy"))
from exported_metrics import exported, metric_of  # noqa: E402

REQUESTS = 4


class Prometheus(Service):
    def value(self, expression):
        """The samples of an instant query: [(labels, value)]."""
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = self.post("/api/v1/query", "query=" + "".join(f"%{byte:02x}" for byte in expression.encode()), headers=form)
        assert answer.status == 200, f"{expression}: {answer.body}"
        return [(found["metric"], float(found["value"][1])) for found in answer.json["data"]["result"]]

    def one(self, expression):
        values = self.value(expression)
        return values[0][1] if len(values) == 1 else None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def service():
    """Its counters begin at 0: Prometheus extrapolates rate() to no less, so that what other tests asked would count."""
    if "RUNAHEAD_URL" in os.environ:
        pytest.skip("the counters of RUNAHEAD_URL have begun before")
    started = start_service()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def model(service):
    return service.get("/v1/models").json["data"][0]["id"]


@pytest.fixture(scope="module")
def prometheus(service, tmp_path_factory):
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian package prometheus)")
    folder, address = tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{free_port()}"
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(ROOT / "deploy/prometheus" / name) for name in config["rule_files"]]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [service.address]}]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    command = ["prometheus", "--config.file", folder / "prometheus.yaml", "--storage.tsdb.path", folder / "data",
               "--web.listen-address", address, "--log.level", "error"]
    running = Prometheus(address, subprocess.Popen(list(map(str, command))))

    def scraped():
        try:
            return running.get("/-/ready").status == 200 and running.one('up{job="runahead"}') == 1
        except OSError:
            return False

    try:
        eventually(scraped, 60, "the first scrape")
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def asked(service, prometheus, model):
    """The TTFT of each request, as its answer said; they have all been scraped."""
    count = 'runahead_time_to_first_token_seconds_count'
    eventually(lambda: prometheus.one(count) == service.metric(count), what="a scrape before the first request")
    body = {"model": model, "max_tokens": 2, "temperature": 0, "runahead": {"strategy": "even"}}
    seconds = []
    for i in range(REQUESTS):
        answer = service.post("/v1/completions", {**body, "prompt": f"{i} {LONG_TEXT}"})
        assert answer.status == 200, answer.body
        seconds.append(answer.json["usage"]["runahead"]["ttft_seconds"])
    eventually(lambda: prometheus.one(count) == service.metric(count), what="a scrape behind the last request")
    return seconds


def test_what_is_recorded_is_what_the_answers_said(prometheus, asked):
    ttft = "runahead_time_to_first_token_seconds"
    mean = prometheus.one(f"sum(rate({ttft}_sum[5m])) / sum(rate({ttft}_count[5m]))")
    assert mean == pytest.approx(sum(asked) / len(asked), rel=0.02)
    bounds = [0, *sorted(float(labels["le"]) for labels, _ in prometheus.value(f"{ttft}_bucket"))]
    low, high = max(b for b in bounds if b < min(asked)), min(b for b in bounds if b >= max(asked))
    eventually(lambda: low <= (prometheus.one("runahead:ttft_seconds:p95_5m") or -1) <= high, what="the recorded p95")
    stages = prometheus.one(f"sum(rate(runahead_ttft_stage_seconds_sum[5m])) / sum(rate({ttft}_sum[5m]))")
    assert stages == pytest.approx(1, rel=0.01)
    eventually(lambda: sum(share for _, share in prometheus.value("runahead:ttft_stage:share_5m")) == pytest.approx(1))
    assert len(prometheus.value("runahead:ttft_stage:share_5m")) == 9
    assert prometheus.one("runahead:ttft_target_seconds") == 30


def test_every_panel_of_the_dashboard_has_data_where_its_series_are_there(service, prometheus, asked):
    metrics, exposed = exported(), service.get("/metrics").body.decode()
    board, expressions = json.loads((ROOT / "deploy/grafana/runahead.json").read_text()), {}
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            expression = re.sub(r"\$(?!__)\w+", ".*", target["expr"].replace("$__rate_interval", "5m"))
            series = re.findall(r"\brunahead_\w+", expression)
            if all(f"# HELP {metric_of(name, metrics)} " in exposed for name in series):
                expressions[f"{panel['title']}: {expression}"] = expression
    assert len(expressions) > 40

    # A series that came with the last request has a rate when it has been scraped twice.
    empty, end = list(expressions), time.monotonic() + 15
    while empty and time.monotonic() < end:
        empty = [name for name in empty if not prometheus.value(expressions[name])]
        time.sleep(0.1)
    assert not empty, empty


def test_no_alert_fires_of_a_cluster_that_is_well(prometheus, asked):
    firing = [labels["alertname"] for labels, _ in prometheus.value('ALERTS{alertstate="firing"}')]
    assert not firing, firing


def first_token_seconds(service, body):
    """As a client sees it: from the request's first byte to the first event with data."""
    connection = service.connection()
    connection.connect()
    begin = time.monotonic()
    connection.request("POST", "/v1/completions", json.dumps({**body, "stream": True}), {"Content-Type": "application/json"})
    response = connection.getresponse()
    while not response.readline().startswith(b"data: "):
        pass
    took = time.monotonic() - begin
    response.read()
    connection.close()
    return took


def test_quantiles_are_those_that_clients_measure(service, prometheus, asked, model):
    ttft = "runahead_time_to_first_token_seconds"

    def buckets():
        return {float(labels["le"]): value for labels, value in prometheus.value(ttft + "_bucket")}

    def caught_up():
        return prometheus.one(ttft + "_count") == service.metric(ttft + "_count")

    eventually(caught_up, what="a scrape of all before")
    before, total = buckets(), service.metric(ttft + "_sum")
    lengths = [200, 400, 700, 1000, 1400, 1800, 2100]
    body = {"model": model, "max_tokens": 2, "temperature": 0, "cache_salt": "quantiles"}
    seen = sorted(first_token_seconds(service, {**body, "prompt": f"{n}: " + LONG_TEXT[:n]}) for n in lengths)
    assert (service.metric(ttft + "_sum") - total) == pytest.approx(sum(seen), rel=0.1, abs=0.02)
    eventually(caught_up, what="a scrape of all behind")
    grown = {bound: count - before[bound] for bound, count in buckets().items()}
    for quantile in (0.5, 0.95):
        rank = quantile * len(seen)
        high = min(bound for bound, count in grown.items() if count >= rank)
        low = max([0, *(bound for bound in grown if bound < high)])
        measured = seen[min(len(seen) - 1, int(rank))]
        assert low - 0.02 <= measured <= high + 0.02, (quantile, seen, grown)
