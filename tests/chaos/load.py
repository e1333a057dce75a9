"""Clients with a memory: what they asked, what they were told and when. Their history is what the checks judge."""

import http.client
import json
import random
import threading
import time
from dataclasses import dataclass, field

# Words without a story, so that greedy answers are long; several pages each, so that every rank of a chain has some.
WORDS = "lamp tower storm keeper harbour ship rope signal wave stone gull anchor night glass oil stair wind chart".split()
REQUEST_SECONDS_MAX = 60  # the deadline of the clients: nothing may take longer
PAUSE = 0.2


def make_prompts(rng):
    """{name: (prompt, max_tokens)}"""
    prompts = {}
    for name, sentences, tokens in [("short", 4, 12), ("page", 9, 16), ("two", 14, 12), ("long", 26, 10), ("talk", 6, 40)]:
        text = " ".join(f"The {rng.choice(WORDS)} and the {rng.choice(WORDS)} meet the {rng.choice(WORDS)} number "
                        f"{rng.randint(1, 99)}." for _ in range(sentences))
        prompts[name] = (text + " Then", tokens)
    return prompts


@dataclass
class Asked:
    kind: str  # stream, whole, job, abort
    prompt: str
    began: float
    key: str = ""
    job: str = ""
    accepted: bool = False
    refused: int = 0  # answers of 429 and 503, and connections that were not taken, before it was accepted
    cut_off: list = field(default_factory=list)  # when a connection ended before its answer began
    text: str = ""
    ids: list = field(default_factory=list)  # of a job's events: token indices
    tokens: int = -1
    outcome: str = "running"  # finished, failed, cancelled, broken: the connection ended before the answer did
    error: str = ""
    ended: float = 0
    silence: float = 0  # the longest, of a stream
    plan: str = ""

    @property
    def seconds(self):
        return self.ended - self.began


class Clients:
    """`count` threads, each asking one thing after the other until stop()."""

    def __init__(self, cluster, prompts, seed, count=4, aborts=0.1):
        self.cluster, self.prompts, self.aborts = cluster, prompts, aborts
        self.asked, self.lock, self.stopping = [], threading.Lock(), threading.Event()
        self.salt = f"{seed}-{time.time_ns()}"
        self.threads = [threading.Thread(target=self._run, args=(random.Random(f"{seed} client {i}"),), daemon=True)
                        for i in range(count)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self, seconds):
        """Nothing new; False if something has not ended in time."""
        self.stopping.set()
        end = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self.threads)

    def _run(self, rng):
        while not self.stopping.is_set():
            kind = "abort" if rng.random() < self.aborts else rng.choice(["stream", "stream", "whole", "job"])
            self.one(rng, kind, rng.choice(list(self.prompts)))

    def one(self, rng, kind, prompt):
        asked = Asked(kind, prompt, time.monotonic())
        with self.lock:
            self.asked.append(asked)
            asked.key = f"{self.salt}-{len(self.asked)}"
        body = self._body(rng, asked)
        try:
            if kind == "job":
                self._job(asked, body)
            elif kind == "whole":
                self._whole(asked, body)
            else:
                self._stream(asked, body, rng.uniform(0.05, 1.5) if kind == "abort" else None)
        except (OSError, http.client.HTTPException, ValueError) as error:
            asked.outcome, asked.error = "broken", f"{type(error).__name__}: {error}"
        asked.ended = time.monotonic()
        return asked

    def _body(self, rng, asked):
        text, tokens = self.prompts[asked.prompt]
        body = {"prompt": text, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        if rng.random() < 0.8:
            body["cache_salt"] = asked.key  # nothing is kept for it: a whole chain computes it
        asked.plan = rng.choice(["even", "even", "auto"])
        body["runahead"] = {"strategy": asked.plan}
        return body

    def _post(self, asked, path, body, headers=None):
        """An accepted answer, asked for again while nobody takes it. Which answers have not been accepted is the contract's:
        refused ones, and connections on which no byte has come."""
        while True:
            left = REQUEST_SECONDS_MAX - (time.monotonic() - asked.began)
            connection = http.client.HTTPConnection("127.0.0.1", self.cluster.http_port, timeout=max(left, 0.1))
            try:
                connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **(headers or {})})
                response = connection.getresponse()
            except (OSError, http.client.HTTPException):
                connection.close()
                asked.cut_off.append(time.monotonic())
                if left <= 0:
                    raise
            else:
                if response.status not in (429, 503):
                    return connection, response
                said = response.read()
                connection.close()
                if b"worker_lost" in said:  # it had been taken
                    raise ValueError(f"{response.status}: {said[:300].decode(errors='replace')}")
                if left <= 0:
                    raise OSError(f"refused for {REQUEST_SECONDS_MAX} s: {response.status}")
            asked.refused += 1
            time.sleep(PAUSE)

    def _failed(self, asked, response):
        asked.outcome, asked.error = "failed", f"{response.status}: {response.read()[:300].decode(errors='replace')}"

    def _whole(self, asked, body):
        connection, response = self._post(asked, "/v1/completions", body)
        asked.accepted = True
        if response.status != 200:
            return self._failed(asked, response)
        answer = json.loads(response.read())
        connection.close()
        asked.text, asked.tokens = answer["choices"][0]["text"], answer["usage"]["completion_tokens"]
        asked.outcome = "finished"

    def _stream(self, asked, body, abort_after):
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        connection, response = self._post(asked, "/v1/completions", body)
        asked.accepted = True
        if response.status != 200:
            return self._failed(asked, response)
        done, heard = False, time.monotonic()
        deadline = asked.began + REQUEST_SECONDS_MAX
        while line := response.readline():
            now = time.monotonic()
            asked.silence, heard = max(asked.silence, now - heard), now
            if now > deadline:
                raise TimeoutError("the deadline has passed")
            if abort_after is not None and now - asked.began > abort_after:
                asked.outcome = "cancelled"
                response.close()
                return connection.close()
            if line.startswith(b"event: error"):
                asked.outcome, asked.error = "failed", response.readline()[:300].decode(errors="replace")
            if line == b"data: [DONE]\n":
                done = True
            elif line.startswith(b"data: {"):
                self._chunk(asked, json.loads(line[6:]))
        connection.close()
        if done:
            asked.outcome = "finished"
        elif asked.outcome == "running":
            asked.outcome, asked.error = "broken", "the stream ended without [DONE]"

    def _chunk(self, asked, chunk):
        if "error" in chunk:
            asked.outcome, asked.error = "failed", json.dumps(chunk)[:300]
        if chunk.get("usage"):
            asked.tokens = chunk["usage"]["completion_tokens"]
        asked.text += "".join(choice["text"] for choice in chunk.get("choices", []))

    def _job(self, asked, body):
        headers = {"Idempotency-Key": asked.key}
        while True:
            connection, response = self._post(asked, "/v1/jobs", body, headers)
            if response.status not in (200, 202):
                return self._failed(asked, response)
            try:
                asked.job = json.loads(response.read())["id"]
                break
            except (OSError, http.client.HTTPException):
                connection.close()  # not heard to the end: asked again with the same key
        connection.close()
        asked.accepted = True
        self._follow(asked)
        result = self._result(asked)
        if result["status"] != "succeeded":
            asked.outcome, asked.error = "failed", json.dumps(result.get("error"))[:300]
            return
        asked.outcome, asked.text = "finished", result["result"]["choices"][0]["text"]
        asked.tokens = result["result"]["usage"]["completion_tokens"]

    def _again(self, asked, path, headers=None):
        """GET until somebody answers."""
        while True:
            left = REQUEST_SECONDS_MAX - (time.monotonic() - asked.began)
            connection = http.client.HTTPConnection("127.0.0.1", self.cluster.http_port, timeout=max(left, 0.1))
            try:
                connection.request("GET", path, headers=headers or {})
                response = connection.getresponse()
                if response.status == 200:
                    return connection, response
                if response.status != 503:
                    raise ValueError(f"{path}: {response.status} {response.read()[:200]}")
            except (OSError, http.client.HTTPException):
                if left <= 0:
                    raise
            connection.close()
            if left <= 0:
                raise TimeoutError(path)
            time.sleep(PAUSE)

    def _follow(self, asked):
        """Its events, behind the last index seen wherever the connection ends."""
        last = 0
        while True:
            headers = {"Last-Event-ID": str(last)} if last else {}
            connection, response = self._again(asked, f"/v1/jobs/{asked.job}/events", headers)
            try:
                name, index = "", 0
                while line := response.readline():
                    if line.startswith(b"event: "):
                        name = line[7:].strip().decode()
                    elif line.startswith(b"id: "):
                        index = int(line[4:])
                    elif line.startswith(b"data: ") and name == "tokens":
                        tokens = json.loads(line[6:])["tokens"]
                        asked.ids += range(index - len(tokens), index)
                        last = index
                    elif line.startswith(b"data: ") and name in ("finished", "error"):
                        connection.close()
                        return
            except (OSError, http.client.HTTPException):
                pass
            connection.close()
            time.sleep(PAUSE)
            if time.monotonic() - asked.began > REQUEST_SECONDS_MAX:
                raise TimeoutError("the job's events")

    def _result(self, asked):
        while True:
            connection, response = self._again(asked, f"/v1/jobs/{asked.job}")
            try:
                result = json.loads(response.read())
            except (OSError, http.client.HTTPException):
                result = {"status": "unheard"}
            connection.close()
            if result["status"] in ("succeeded", "failed", "cancelled"):
                return result
            time.sleep(PAUSE)
            if time.monotonic() - asked.began > REQUEST_SECONDS_MAX:
                raise TimeoutError("the job's end")
