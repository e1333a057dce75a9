"""What we export: names from services/metrics, labels from the tables of docs/operations.md. Standard library.

    exported() -> {"runahead_requests_total": Metric("counter", {"endpoint", "status", "model_name"}), ...}
    metric_of("runahead_kv_handoff_seconds_sum", exported()) -> "runahead_kv_handoff_seconds"
tests/helm/test_chart_runs.py holds the labels against those of a cluster that runs.
"""
import re
from collections import namedtuple
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
Metric = namedtuple("Metric", "kind labels")
REGISTERED = re.compile(r'registry\s*\.\s*(counters|gauges|histograms)\s*\(\s*"(runahead_\w+)"')
NO_MODEL_NAME = {"worker", "role", "strategy", "reason", "src"}  # the documents say so in words
INFO_LABELS = {"runahead_build_info": {"version", "revision", "role"},
               "runahead_model_info": {"model_name", "dtype", "context_length"}}
TARGET_LABELS = {"job", "instance", "namespace", "pod"}  # of a scrape, not ours


def registered():
    """name -> kind, as the sources say."""
    texts = [path.read_text() for path in sorted((ROOT / "services/metrics").glob("*.cc"))]
    return {name: kind[:-1] for text in texts for kind, name in REGISTERED.findall(text)}


def documented():
    """name -> labels, as docs/operations.md says."""
    text = (ROOT / "docs/operations.md").read_text()
    text = text[text.index("\n## Metrics"):]
    found, of_coordinator = {}, True
    for names, labels in re.findall(r"^\| (.*?) \|(.*?)\|", text[:text.index("\n## ", 1)], re.MULTILINE):
        if labels.strip() == "labels":
            of_coordinator = names == "coordinator"
        words = set(re.findall(r"\w+", labels))
        if of_coordinator and not words & NO_MODEL_NAME:
            words.add("model_name")
        for name in re.findall(r"`(runahead_\w+)`", names):
            found[name] = INFO_LABELS.get(name, words)
    return found


def exported():
    labels = documented()
    return {name: Metric(kind, labels.get(name, set())) for name, kind in registered().items()}


def metric_of(series, metrics):
    """The metric that a series belongs to; None if we export no such series: a histogram's have _bucket, _sum, _count."""
    if series in metrics:
        return None if metrics[series].kind == "histogram" else series
    name = re.sub(r"_(bucket|sum|count)$", "", series)
    return name if name != series and name in metrics and metrics[name].kind == "histogram" else None
