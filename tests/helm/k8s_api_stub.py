#!/usr/bin/env python3
"""A stand-in for the Kubernetes API server: discovery and create/read/update/delete, enough for `helm` and `kubectl`.

It lets a chart be installed, upgraded, rolled back and uninstalled where no cluster can run. It schedules nothing and
checks no schema: workloads report ready at once, pods report Succeeded. Validate the manifests with kubernetes-validate.

    python3 tests/helm/k8s_api_stub.py --port 18080 --kubeconfig kc --state cluster.json &
    export KUBECONFIG=$PWD/kc
    helm install t chart --wait; helm test t; helm upgrade t chart --set a=b; helm rollback t 1; helm uninstall t
    kubectl apply --server-side -f out.yaml; kubectl get statefulsets

Tried with Helm 3.17.3 and 4.3.1 and kubectl 1.37.1: install, upgrade (also --dry-run=server), test, history, rollback,
list, get notes, uninstall; apply, get, delete, rollout status.
Limits: patches are JSON merge patches (lists are replaced), no admission, no garbage collection but of replica sets, no events
or logs of pods, no authentication: it listens on loopback only. A hook pod succeeds without running: run its command.
Needs the standard library; PyYAML only for `kubectl apply --server-side`, which sends YAML.
"""
import argparse
import base64
import datetime
import json
import os
import re
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

VERSION = {"major": "1", "minor": "33", "gitVersion": "v1.33.0", "platform": "linux/amd64"}
CLUSTER_SCOPED = {"namespaces", "persistentvolumes", "clusterroles", "clusterrolebindings", "priorityclasses"}
RESOURCES = {                                                       # group/version -> plural: kind
    "v1": {"pods": "Pod", "services": "Service", "configmaps": "ConfigMap", "secrets": "Secret", "namespaces": "Namespace",
           "serviceaccounts": "ServiceAccount", "persistentvolumeclaims": "PersistentVolumeClaim", "events": "Event"},
    "apps/v1": {"statefulsets": "StatefulSet", "deployments": "Deployment", "replicasets": "ReplicaSet",
                "daemonsets": "DaemonSet"},
    "batch/v1": {"jobs": "Job", "cronjobs": "CronJob"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy", "ingresses": "Ingress"},
    "rbac.authorization.k8s.io/v1": {"roles": "Role", "rolebindings": "RoleBinding"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "monitoring.coreos.com/v1": {"servicemonitors": "ServiceMonitor", "podmonitors": "PodMonitor",
                                 "prometheusrules": "PrometheusRule"},
    "gateway.networking.k8s.io/v1": {"httproutes": "HTTPRoute"},
    "keda.sh/v1alpha1": {"scaledobjects": "ScaledObject"},
    "leaderworkerset.x-k8s.io/v1": {"leaderworkersets": "LeaderWorkerSet"},
}
WATCH_SECONDS = 30
SHORT = {"pods": ["po"], "services": ["svc"], "configmaps": ["cm"], "namespaces": ["ns"], "serviceaccounts": ["sa"],
         "statefulsets": ["sts"], "deployments": ["deploy"], "poddisruptionbudgets": ["pdb"], "networkpolicies": ["netpol"],
         "persistentvolumeclaims": ["pvc"],
         "horizontalpodautoscalers": ["hpa"], "leaderworkersets": ["lws"]}
VERBS = ["get", "list", "create", "update", "patch", "delete", "watch"]


# ------------------------------------------------------------------------------------------------------------ decoding
def protobuf_fields(data):
    """[(field number, value)] of one message: ints for varints, bytes for everything else."""
    at, fields = 0, []

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    while at < len(data):
        tag = varint()
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            fields.append((number, varint()))
            continue
        size = {1: 8, 5: 4}.get(wire) or varint()
        fields.append((number, data[at:at + size]))
        at += size
    return fields


def map_entry(data):
    entry = dict(protobuf_fields(data))
    return entry[1].decode(), entry.get(2, b"")


def from_protobuf(body):
    """client-go writes Secrets and ConfigMaps (Helm's releases) as protobuf behind the magic 'k8s\\0'."""
    envelope = dict(protobuf_fields(body[4:]))
    meta = dict(protobuf_fields(envelope[1]))
    kind = meta[2].decode()
    obj = {"apiVersion": meta[1].decode(), "kind": kind, "metadata": {}}
    for number, value in protobuf_fields(envelope[2]):
        if number == 1:
            for inner, text in protobuf_fields(value):
                if inner in (1, 3):
                    obj["metadata"]["name" if inner == 1 else "namespace"] = text.decode()
                elif inner == 11:
                    key, label = map_entry(text)
                    obj["metadata"].setdefault("labels", {})[key] = label.decode()
        elif number == 2 and kind in ("Secret", "ConfigMap"):
            key, data = map_entry(value)
            obj.setdefault("data", {})[key] = base64.b64encode(data).decode() if kind == "Secret" else data.decode()
        elif number == 3 and kind == "Secret":
            obj["type"] = value.decode()
    return obj


def decode(body):
    if body[:4] == b"k8s\0":
        return from_protobuf(body)
    if body[:1] in (b"{", b"["):
        return json.loads(body)
    import yaml
    return yaml.safe_load(body)


def merge(target, patch):
    """JSON merge patch; good enough for apply and strategic patches of charts."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = value
    return target


def selected(labels, selector):
    for term in filter(None, re.split(r",(?![^(]*\))", selector)):
        term = term.strip()
        inside = re.fullmatch(r"(\S+) (in|notin) \((.*)\)", term)
        if inside:
            values = [v.strip() for v in inside[3].split(",")]
            ok = (labels.get(inside[1]) in values) == (inside[2] == "in")
        elif "!=" in term:
            key, value = term.split("!=")
            ok = labels.get(key) != value
        elif "=" in term:
            key, value = re.split("==?", term)
            ok = labels.get(key) == value
        else:
            ok = (term[1:] not in labels) if term.startswith("!") else term in labels
        if not ok:
            return False
    return True


# --------------------------------------------------------------------------------------------------------------- store
class Store:
    """All objects by (group/version, plural, namespace, name); written to `path` after every change when one is given."""

    def __init__(self, path=None):
        self.path, self.version, self.objects, self.events = path, 0, {}, []
        self.lock = threading.Condition()
        if path and os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                saved = json.load(file)
            self.version = saved["version"]
            self.objects = {tuple(key): obj for key, obj in saved["objects"]}

    def save(self):
        if self.path:
            with open(self.path + ".new", "w", encoding="utf-8") as file:
                json.dump({"version": self.version, "objects": [[list(k), o] for k, o in self.objects.items()]}, file)
            os.replace(self.path + ".new", self.path)

    def record(self, event, key, obj):
        self.events.append((self.version, event, key, obj))
        self.lock.notify_all()
        self.save()

    def remove(self, key):
        obj = self.objects.pop(key, None)
        if obj:
            self.version += 1
            self.record("DELETED", key, obj)
            if obj["kind"] == "Deployment":
                self.remove((key[0], "replicasets", key[2], key[3] + "-set"))
        return obj

    def put(self, key, obj, dry_run=False):
        gv, plural, namespace, name = key
        self.version += 1
        obj.setdefault("apiVersion", gv)
        obj.setdefault("kind", RESOURCES[gv][plural])
        meta = obj.setdefault("metadata", {})
        meta["name"] = name
        if plural not in CLUSTER_SCOPED:
            meta.setdefault("namespace", namespace or "default")
        meta["resourceVersion"] = str(self.version)
        meta.setdefault("uid", str(uuid.uuid4()))
        meta.setdefault("creationTimestamp", datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"))
        if "stringData" in obj:
            data = {k: base64.b64encode(v.encode()).decode() for k, v in obj.pop("stringData").items()}
            obj.setdefault("data", {}).update(data)
        pretend_ready(obj)
        if not dry_run:
            event = "MODIFIED" if key in self.objects else "ADDED"
            self.objects[key] = obj
            self.record(event, key, obj)
            if obj["kind"] == "Deployment":
                self.put((gv, "replicasets", namespace, name + "-set"), replica_set(obj))
        return obj


def replica_set(deployment):
    """The controller's part, for helm 3 waits for it."""
    meta, spec = deployment["metadata"], deployment["spec"]
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": meta["name"], "uid": meta["uid"], "controller": True}
    return {"metadata": {"labels": spec["template"]["metadata"]["labels"], "ownerReferences": [owner]},
            "spec": {key: spec[key] for key in ("replicas", "selector", "template")}}


def pretend_ready(obj):
    kind, meta, spec = obj["kind"], obj["metadata"], obj.get("spec") or {}
    n = spec.get("replicas", 1)
    if kind == "Pod":
        obj["status"] = {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "True"}]}
    elif kind in ("StatefulSet", "Deployment", "ReplicaSet"):
        meta["generation"] = 1
        obj["status"] = {"observedGeneration": 1, "replicas": n, "readyReplicas": n, "availableReplicas": n, "updatedReplicas": n}
        if kind == "StatefulSet":
            spec.setdefault("updateStrategy", {"type": "RollingUpdate"})
            obj["status"].update(currentReplicas=n, currentRevision="a", updateRevision="a")
        if kind == "Deployment":
            obj["status"]["conditions"] = [{"type": "Available", "status": "True"},
                                           {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]
    elif kind == "Job":
        obj["status"] = {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}
    elif kind == "Service":
        spec.setdefault("clusterIP", "10.96.0.1")
    elif kind == "PersistentVolumeClaim":
        obj["status"] = {"phase": "Bound"}
    elif kind == "PodDisruptionBudget":
        meta["generation"] = 1
        obj["status"] = {"observedGeneration": 1, "currentHealthy": 4, "desiredHealthy": 3, "disruptionsAllowed": 1,
                         "expectedPods": 4}


# -------------------------------------------------------------------------------------------------------------- server
OBJECT = re.compile(r"(?:/api/(v1)|/apis/([^/]+/[^/]+))(?:/namespaces/([^/]+))?/([a-z]+)(?:/([^/]+))?(?:/(?:status|log|scale))?")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store = None

    def log_message(self, *_):
        pass

    def reply(self, code, obj, kind="application/json"):
        body = obj if isinstance(obj, bytes) else json.dumps(obj).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def fail(self, code, reason, message=""):
        self.reply(code, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason,
                          "message": message or reason, "code": code})

    def serve(self):
        url = urlparse(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = url.path.rstrip("/")
        if self.discovery(path):
            return
        match = OBJECT.fullmatch(path)
        gv, namespace, plural, name = (match[1] or match[2], match[3], match[4], match[5]) if match else (None,) * 4
        if plural not in RESOURCES.get(gv, {}):
            return self.fail(404, "NotFound", path)
        key = (gv, plural, namespace, name)
        if self.command == "GET" and query.get("watch") in ("true", "1"):
            return self.watch(key, query)
        with self.store.lock:
            if self.command == "GET":
                return self.get(key, query)
            if self.command == "DELETE":
                return self.delete(key)
            return self.write(key, decode(body), "dryRun" in query)

    def discovery(self, path):
        if path == "/version":
            self.reply(200, VERSION)
        elif path == "/openapi/v3":
            self.reply(200, {"paths": {}})
        elif path == "/openapi/v2":
            if "protobuf" in self.headers.get("Accept", ""):                # an empty document: clients then skip validation
                self.reply(200, b"", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf")
            else:
                self.reply(200, {"swagger": "2.0", "info": {"title": "stub", "version": "v1"}, "paths": {}, "definitions": {}})
        elif path == "/api":
            self.reply(200, {"kind": "APIVersions", "versions": ["v1"]})
        elif path == "/apis":
            groups = []
            for gv in RESOURCES:
                if "/" in gv:
                    entry = {"groupVersion": gv, "version": gv.split("/")[1]}
                    groups.append({"name": gv.split("/")[0], "versions": [entry], "preferredVersion": entry})
            self.reply(200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        else:
            gv = path[len("/api/"):] if path.startswith("/api/") else path[len("/apis/"):]
            if gv not in RESOURCES or path not in ("/api/" + gv, "/apis/" + gv):
                return False
            items = [{"name": plural, "singularName": kind.lower(), "namespaced": plural not in CLUSTER_SCOPED, "kind": kind,
                      "shortNames": SHORT.get(plural, []), "verbs": VERBS} for plural, kind in RESOURCES[gv].items()]
            self.reply(200, {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": gv, "resources": items})
        return True

    def chosen(self, key, query):
        """A filter for lists and watches of one plural."""
        gv, plural, namespace, name = key
        field = re.search(r"metadata\.name=([^,]+)", query.get("fieldSelector", ""))
        name = name or (field and field[1])

        def match(other, obj):
            return ((other[0], other[1]) == (gv, plural) and namespace in (None, other[2]) and name in (None, other[3])
                    and selected(obj["metadata"].get("labels", {}), query.get("labelSelector", "")))
        return match

    def get(self, key, query):
        gv, plural, _, name = key
        if name:
            found = self.store.objects.get(key)
            return self.reply(200, found) if found else self.fail(404, "NotFound", '%s "%s" not found' % (plural, name))
        match = self.chosen(key, query)
        self.reply(200, {"kind": RESOURCES[gv][plural] + "List", "apiVersion": gv,
                         "metadata": {"resourceVersion": str(self.store.version)},
                         "items": [obj for other, obj in self.store.objects.items() if match(other, obj)]})

    def watch(self, key, query):
        """Streams events until the client leaves or WATCH_SECONDS pass; starts with what exists unless a version is given."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        match, store, end = self.chosen(key, query), self.store, time.monotonic() + WATCH_SECONDS
        asked = query.get("resourceVersion", "")
        with store.lock:
            seen, out = store.version, []
            if query.get("sendInitialEvents") == "true" or asked in ("", "0"):
                out = [("ADDED", obj) for other, obj in store.objects.items() if match(other, obj)]
                if query.get("sendInitialEvents") == "true":
                    mark = {"resourceVersion": str(seen), "annotations": {"k8s.io/initial-events-end": "true"}}
                    out.append(("BOOKMARK", {"apiVersion": key[0], "kind": RESOURCES[key[0]][key[1]], "metadata": mark}))
            else:
                seen = int(asked)
        try:
            while True:
                for event, obj in out:
                    self.wfile.write(json.dumps({"type": event, "object": obj}).encode() + b"\n")
                self.wfile.flush()
                left = end - time.monotonic()
                if left <= 0:
                    return
                with store.lock:
                    store.lock.wait_for(lambda: store.version > seen, timeout=left)
                    out = [(event, obj) for version, event, other, obj in store.events if version > seen and match(other, obj)]
                    seen = store.version
        except (BrokenPipeError, ConnectionResetError):
            pass

    def delete(self, key):
        if self.store.remove(key) is None:
            return self.fail(404, "NotFound", '%s "%s" not found' % (key[1], key[3]))
        self.reply(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def write(self, key, obj, dry_run):
        gv, plural, namespace, name = key
        if self.command == "POST":
            meta = obj.setdefault("metadata", {})
            name = meta.get("name") or meta.get("generateName", "") + uuid.uuid4().hex[:5]
            key = (gv, plural, namespace, name)
            if key in self.store.objects:
                return self.fail(409, "AlreadyExists", '%s "%s" already exists' % (plural, name))
        old = self.store.objects.get(key)
        if self.command == "PATCH":
            if old:
                obj = merge(json.loads(json.dumps(old)), obj)
            elif "apply-patch" not in self.headers.get("Content-Type", ""):
                return self.fail(404, "NotFound", '%s "%s" not found' % (plural, name))
        self.reply(200 if old else 201, self.store.put(key, obj, dry_run))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve


KUBECONFIG = """apiVersion: v1
kind: Config
clusters: [{name: stub, cluster: {server: "http://127.0.0.1:%d"}}]
contexts: [{name: stub, context: {cluster: stub, user: stub, namespace: default}}]
current-context: stub
users: [{name: stub, user: {}}]
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="TCP port on 127.0.0.1; 0 picks a free one (default)")
    parser.add_argument("--state", metavar="FILE", help="JSON file to load objects from and save them to (default: memory only)")
    parser.add_argument("--kubeconfig", metavar="FILE", help="write a kubeconfig that points here")
    options = parser.parse_args()
    Handler.store = Store(options.state)
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    if options.kubeconfig:
        with open(options.kubeconfig, "w", encoding="utf-8") as file:
            file.write(KUBECONFIG % server.server_port)
    print("listening on http://127.0.0.1:%d" % server.server_port, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
