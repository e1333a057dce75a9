"""A cluster of ours for a benchmark: asked over its API, or started on this machine. Only the standard library is used."""
import http.client
import json
import subprocess

REQUEST_SECONDS = 1200  # no answer of a benchmark takes as long


def call(url, method, path, body=None):
    host, port = url.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=REQUEST_SECONDS)
    try:
        connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path} answered {answer.status}: {text.decode(errors='replace')[:500]}")
        return json.loads(text)
    except OSError as error:
        raise SystemExit(f"{url} does not answer: {error}") from None
    finally:
        connection.close()


class Cluster:
    """`runahead serve` with these arguments, on free ports of this machine, to the end of a `with`."""

    def __init__(self, binary, *arguments):
        command = [binary, "serve", "-q", "-o", "json", "--http", "127.0.0.1:0", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        ready = self.process.stdout.readline()
        if not ready:
            raise SystemExit(f"{binary} did not start: run it by hand to see why")
        self.url = json.loads(ready)["http"]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.terminate()
        self.process.wait()

    def call(self, method, path, body=None):
        return call(self.url, method, path, body)
