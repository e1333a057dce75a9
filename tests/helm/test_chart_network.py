"""Who reaches whom: the chart's network policies, evaluated as a cluster would, for every pair of pods and every port."""
import pytest
import yaml
from chart import component, of_kind, pod_spec, template, workloads


def matches(selector, labels):
    """A label selector with matchLabels and In expressions, which are all that the chart uses."""
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "In" for expression in expressions)
    return selector.get("matchLabels", {}).items() <= labels.items() and \
        all(labels.get(expression["key"]) in expression["values"] for expression in expressions)


def rules(documents, direction, labels):
    """The rules of that direction that hold for a pod with these labels; None if no policy chooses it."""
    policies = [policy["spec"] for policy in of_kind(documents, "NetworkPolicy")
                if matches(policy["spec"]["podSelector"], labels) and direction in policy["spec"]["policyTypes"]]
    return [rule for policy in policies for rule in policy.get(direction.lower(), [])] if policies else None


def peer_allowed(rule, key, labels):
    peers = rule.get(key)
    return not peers or any("namespaceSelector" not in peer and matches(peer["podSelector"], labels) for peer in peers)


def allowed(documents, source, target, port):
    """May a pod with labels `source` reach `port` (name, number) of one with labels `target` in the same namespace?"""
    leaving, entering = rules(documents, "Egress", source), rules(documents, "Ingress", target)
    leaves = leaving is None or any(
        peer_allowed(rule, "to", target) and any(p["port"] in port for p in rule["ports"]) for rule in leaving)
    enters = entering is None or any(
        peer_allowed(rule, "from", source) and any(p["port"] in port for p in rule["ports"]) for rule in entering)
    return leaves and enters


REACHES = {("stranger", "coordinator", "http"), ("prefill", "coordinator", "control"),
           ("decode", "coordinator", "control"), ("prefill", "prefill", "data"), ("prefill", "decode", "data"),
           ("decode", "prefill", "data"), ("decode", "decode", "data")}


@pytest.mark.parametrize("name", ["default", "pvc", "image"])
def test_the_network_policy_allows_the_edges_of_the_design_and_no_other(rendered, name):
    documents = rendered(name)
    pods = {component(w): w["spec"]["template"]["metadata"]["labels"] for w in workloads(documents)}
    ports = {component(w): [(port["name"], port["containerPort"]) for port in pod_spec(w)["containers"][0]["ports"]]
             for w in workloads(documents)}
    pods["stranger"] = {"app": "another"}
    found = {(source, target, port[0]) for source in pods for target in ports for port in ports[target]
             if allowed(documents, pods[source], pods[target], port)}
    assert found == REACHES


def test_workers_may_ask_for_names_wherever_the_cluster_answers(rendered, helm):
    """Pods of any label, a cache on the node's link-local address, OpenShift's port: no peer is named by default."""
    prefill = next(w for w in workloads(rendered("default")) if component(w) == "prefill")
    labels = prefill["spec"]["template"]["metadata"]["labels"]
    dns = [rule for rule in rules(rendered("default"), "Egress", labels) if {"port": 53, "protocol": "UDP"} in rule["ports"]]
    assert len(dns) == 1 and not dns[0].get("to")
    assert {(port["port"], port["protocol"]) for port in dns[0]["ports"]} == {
        (53, "UDP"), (53, "TCP"), (5353, "UDP"), (5353, "TCP")}
    done = template(helm, ["networkPolicy.dnsTo[0].ipBlock.cidr=10.96.0.10/32", "networkPolicy.dnsPorts={53}"])
    narrow = [document for document in yaml.safe_load_all(done.stdout) if document]
    dns = [rule for rule in rules(narrow, "Egress", labels) if {"port": 53, "protocol": "UDP"} in rule["ports"]]
    assert dns[0]["to"] == [{"ipBlock": {"cidr": "10.96.0.10/32"}}] and len(dns[0]["ports"]) == 2


def test_metrics_are_scraped_only_by_those_who_are_named(rendered):
    documents = rendered("large")
    prefill = next(w for w in workloads(documents) if component(w) == "prefill")
    labels = prefill["spec"]["template"]["metadata"]["labels"]
    peers = [rule["from"] for rule in rules(documents, "Ingress", labels) if {"port": "admin"} in rule["ports"]]
    assert peers == [[{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]]


def test_a_narrow_api_lets_the_pod_of_helm_test_in(rendered):
    documents = rendered("reached")
    coordinator = next(w for w in workloads(documents) if component(w) == "coordinator")
    labels = coordinator["spec"]["template"]["metadata"]["labels"]
    (pod,) = of_kind(documents, "Pod")
    assert allowed(documents, pod["metadata"]["labels"], labels, ("http", 8000))
    assert not allowed(documents, {"app": "another"}, labels, ("http", 8000))
    assert not allowed(documents, pod["metadata"]["labels"], labels, ("control", 7070))


def test_without_policy_everyone_reaches_everything(rendered):
    assert not of_kind(rendered("open"), "NetworkPolicy", "PodDisruptionBudget")
