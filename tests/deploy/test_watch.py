"""Dashboard and rules (deploy/grafana, deploy/prometheus): every expression is over series and labels that we export, promtool
takes them, every alert fires in a test, and what to do then is written down.

No Grafana runs here: Debian 12 and PyPI have none. What is checked of the dashboard is its JSON.
"""
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from exported_metrics import TARGET_LABELS, documented, exported, metric_of, registered  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/rules.yaml"
RULES_TEST = ROOT / "tests/deploy/rules_test.yaml"
BOARD = json.loads((ROOT / "deploy/grafana/runahead.json").read_text())
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
RECORDS = {rule["record"]: rule["expr"] for group in GROUPS for rule in group["rules"] if "record" in rule}
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
METRICS = exported()
ROWS = ["Time to first token", "Where the time to the first token goes", "Chain and links", "Workers and K/V memory",
        "Requests, jobs and errors"]


def promtool(*arguments):
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def panels(kind=None):
    return [panel for panel in BOARD["panels"] if (panel["type"] != "row" if kind is None else panel["type"] == kind)]


def targets():
    return [(panel["title"], target) for panel in panels() for target in panel["targets"]]


def plain(expression):
    """Grafana's variables replaced by what stands for all."""
    return re.sub(r"\$(?!__)\w+", ".*", expression.replace("$__rate_interval", "5m"))


def faults(expression):
    """Series that we do not export, and labels that theirs do not have."""
    found, labels = [], {"le"} | TARGET_LABELS
    for series, matchers in re.findall(r"\b(runahead[\w:]+)(?:\{([^}]*)\})?", expression):
        if series in RECORDS:
            continue
        metric = metric_of(series, METRICS)
        if metric is None:
            found.append(f"no series {series}")
            continue
        own = METRICS[metric].labels | TARGET_LABELS
        labels |= own
        found += [f"no label {label} on {series}" for label in re.findall(r"(\w+)\s*[=!]~?\s*\"", matchers)
                  if label not in own | ({"le"} if series.endswith("_bucket") else set())]
    for grouped in re.findall(r"\b(?:by|without|ignoring|on)\s*\(([^)]*)\)", expression):
        found += [f"no label {label} to group by" for label in re.findall(r"\w+", grouped) if label not in labels]
    return found


# ---------------------------------------------------------------------------------------------------------- what we export
def test_the_documents_list_the_metrics_of_the_sources():
    assert set(documented()) == set(registered()) and len(registered()) > 30


@pytest.mark.parametrize("name, expression", [
    *[(f"{title}, {target['refId']}", target["expr"]) for title, target in targets()],
    *RECORDS.items(), *[(name, rule["expr"]) for name, rule in ALERTS.items()]])
def test_every_expression_is_over_what_we_export(name, expression):
    assert "runahead" in expression or "vector" in expression
    assert faults(expression) == []


@pytest.mark.parametrize("expression, fault", [
    ("sum(rate(runahead_requests[5m]))", "no series runahead_requests"),
    ("rate(runahead_kv_handoff_seconds[5m])", "no series runahead_kv_handoff_seconds"),
    ("runahead_requests_running_sum", "no series runahead_requests_running_sum"),
    ('runahead_plans_total{model_name="m"}', "no label model_name on runahead_plans_total"),
    ("sum by (rank) (runahead_worker_up)", "no label rank to group by"),
    ("runahead:ttft_seconds:p95_1h", "no series runahead:ttft_seconds:p95_1h"),
])
def test_a_series_or_label_that_we_do_not_export_is_found(expression, fault):
    assert faults(expression) == [fault]


# --------------------------------------------------------------------------------------------------------------- dashboard
def test_the_dashboard_has_its_five_rows_and_no_panel_covers_another():
    assert [panel["title"] for panel in panels("row")] == ROWS
    covered = {}
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in covered, f"{panel['title']} covers {covered[x, y]}"
                covered[x, y] = panel["title"]
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids) and BOARD["uid"] == "runahead"


def test_every_panel_says_what_to_look_for_and_in_which_unit():
    for panel in panels():
        assert panel["description"].endswith(".") and panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"] and panel["datasource"]["uid"] == "${datasource}", panel["title"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}", panel["title"]


def test_every_variable_is_there_and_is_used():
    declared = {variable["name"] for variable in BOARD["templating"]["list"]}
    text = json.dumps(panels())
    assert declared == set(re.findall(r"\$\{?(?!__)([a-z]+)", text))
    for variable in BOARD["templating"]["list"]:
        if variable["type"] == "query":
            series, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
            assert label in METRICS[metric_of(series, METRICS)].labels | TARGET_LABELS


def test_every_legend_names_labels_that_the_expression_keeps():
    for title, target in targets():
        kept = set(re.findall(r"\w+", " ".join(re.findall(r"\bby\s*\(([^)]*)\)", target["expr"]))))
        if "by (" not in target["expr"]:
            kept = METRICS.get(target["expr"].split("{")[0], METRICS["runahead_build_info"]).labels | TARGET_LABELS
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept, title


def test_promtool_takes_every_expression_of_the_dashboard(tmp_path):
    rules = [{"record": f"panel:target:{i}", "expr": plain(target["expr"])} for i, (_, target) in enumerate(targets())]
    assert len(rules) > 40 and "$" not in json.dumps(rules)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", tmp_path / "rules.yaml")


# ------------------------------------------------------------------------------------------------------------------- rules
def test_promtool_takes_rules_and_configuration():
    promtool("check", "config", ROOT / "deploy/prometheus/prometheus.yaml")
    assert f"{len(RECORDS) + len(ALERTS)} rules found" in promtool("check", "rules", RULES)


def test_every_rule_gives_what_its_test_says():
    promtool("test", "rules", RULES_TEST)


def test_each_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not():
    fires, rests = set(), set()
    for group in yaml.safe_load(RULES_TEST.read_text())["tests"]:
        for test in group.get("alert_rule_test", []):
            (fires if test.get("exp_alerts") else rests).add(test["alertname"])
    assert fires == rests == set(ALERTS)


def anchor(heading):
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_says_what_to_do_and_where_it_is_written(name):
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("warning", "critical") and rule["for"]
    assert len(rule["annotations"]["summary"].split(". ")) + rule["annotations"]["summary"].count(": ") >= 2
    document, section = rule["annotations"]["runbook_url"].split("#")
    headings = re.findall(r"^#+ (.*)$", (ROOT / document).read_text(), re.MULTILINE)
    assert section in map(anchor, headings) and section == anchor(name)


def test_the_files_have_one_home():
    """The chart can read only what lies in it, so its files are the originals."""
    chart = ROOT / "helm/runahead/files"
    assert RULES.resolve() == chart / "rules.yaml"
    assert (ROOT / "deploy/grafana/runahead.json").resolve() == chart / "dashboard.json"
