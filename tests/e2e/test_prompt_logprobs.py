"""Log-probabilities of the prompt (`echo` with `logprobs`) over HTTP, as tools for log-likelihood evaluation ask for
them: against the model's own `runahead logits`, whatever the chain, batched, streamed, and by the rule of
lm-evaluation-harness."""

import json
import math
from operator import itemgetter

from cli import runahead
from conftest import LONG_TEXT, eventually

PHRASE = "The capital of France is Paris, and the capital of Italy is Rome."


def ids_of(service, text):
    return service.post("/tokenize", {"prompt": text}).json["tokens"]


def scored(service, prompt, **more):
    body = {"prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0, "seed": 1234, **more}
    answer = service.post("/v1/completions", body)
    assert answer.status == 200, answer.body
    return answer.json


# lm_eval/models/openai_completions.py, LocalCompletionsAPI.parse_logprobs(), as of 0.4.13.
def parse_logprobs(outputs, ctxlens):
    res = []
    for choice, ctxlen in zip(sorted(outputs["choices"], key=itemgetter("index")), ctxlens, strict=True):
        assert ctxlen > 0
        tokens_logprobs = choice["logprobs"]["token_logprobs"][ctxlen:-1]
        top_logprobs = choice["logprobs"]["top_logprobs"][ctxlen:-1]
        is_greedy = all(tok == max(top.values()) for tok, top in zip(tokens_logprobs, top_logprobs, strict=True))
        res.append((sum(tokens_logprobs), is_greedy))
    return res


def test_they_are_the_models_own(service, model, tmp_path):
    ids = ids_of(service, PHRASE)
    answer = scored(service, ids, logprobs=5)
    compute = answer["usage"]["runahead"]["compute"]
    got = answer["choices"][0]["logprobs"]
    assert got["token_logprobs"][0] is None and got["top_logprobs"][0] is None
    for place in (1, 2, 5, len(ids) - 1, len(ids)):
        file = tmp_path / f"{place}.json"
        file.write_text(json.dumps(ids[:place]))
        flags = ("--model", "smollm2", "--token-ids-file", str(file), "--compute", compute, "--top", "5", "-o", "json")
        done = runahead("logits", *flags)
        assert done.returncode == 0, done.stderr
        top = json.loads(done.stdout)["top"]
        assert math.isclose(max(got["top_logprobs"][place].values()), top[0]["logprob"], abs_tol=1e-5)
        by_id = {entry["id"]: entry["logprob"] for entry in top}
        if place < len(ids) and ids[place] in by_id:
            assert math.isclose(got["token_logprobs"][place], by_id[ids[place]], abs_tol=1e-5)


def test_every_chain_gives_the_same_numbers(service, model):
    ids = ids_of(service, LONG_TEXT)
    answers = [
        scored(service, ids, max_tokens=3, runahead=how)
        for how in ({"strategy": "single"}, {"cuts": [64]}, {"cuts": [512]}, {"strategy": "even"})
    ]
    assert [len(a["usage"]["runahead"]["workers"]) for a in answers] == [1, 2, 2, 2]
    assert all(a["choices"] == answers[0]["choices"] for a in answers)
    assert len(answers[0]["choices"][0]["logprobs"]["tokens"]) == len(ids) + 3


def test_offsets_and_tokens_rebuild_the_text(service, model):
    text = "Grüße aus 東京 👍 end"
    for prompt in (text, ids_of(service, text)):
        choice = scored(service, prompt, max_tokens=4)["choices"][0]
        logprobs = choice["logprobs"]
        assert choice["text"].startswith(text)
        assert logprobs["text_offset"] == sorted(logprobs["text_offset"])
        for name, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
            assert name.startswith("bytes:") or choice["text"][offset:].startswith(name), (name, offset)


def test_the_prompt_alone_a_batch_and_every_choice(service, model):
    ids = ids_of(service, PHRASE)
    alone = scored(service, ids, max_tokens=0)
    with_token = scored(service, ids)["choices"][0]["logprobs"]
    assert alone["usage"]["completion_tokens"] == 0
    assert alone["choices"][0]["text"] == PHRASE
    assert alone["choices"][0]["logprobs"] == {name: values[: len(ids)] for name, values in with_token.items()}
    batch = scored(service, [ids, ids[:3], ids[:1]], n=2)["choices"]
    assert [len(c["logprobs"]["tokens"]) for c in batch] == [len(ids) + 1] * 2 + [4] * 2 + [2] * 2
    for choice in batch:
        length = len(choice["logprobs"]["tokens"]) - 1
        assert choice["logprobs"]["token_logprobs"][:length] == with_token["token_logprobs"][:length]


def test_a_stream_carries_them_in_its_first_chunk(client, service, model):
    whole = scored(service, PHRASE, max_tokens=4)["choices"][0]
    chunks = list(
        client.completions.create(
            model=model, prompt=PHRASE, echo=True, logprobs=1, max_tokens=4, temperature=0, stream=True
        )
    )
    first = chunks[0].choices[0]
    assert first.text == PHRASE and first.logprobs.token_logprobs[0] is None
    entries = [c.choices[0].logprobs for c in chunks if c.choices[0].logprobs]
    for name in ("tokens", "token_logprobs", "text_offset"):
        assert sum((getattr(entry, name) for entry in entries), []) == whole["logprobs"][name]
    assert "".join(c.choices[0].text for c in chunks) == whole["text"]


def test_by_the_rule_of_lm_evaluation_harness(service, model):
    context = ids_of(service, "The capital of France is")
    endings = [ids_of(service, " Paris"), ids_of(service, " a banana")]
    answer = scored(service, [context + ending for ending in endings])
    (likely, greedy), (unlikely, _) = parse_logprobs(answer, [len(context)] * 2)
    assert greedy and likely > -1 > unlikely
    # The token that is generated ends the text: it must have an entry, or the rule would cut off one of the prompt.
    chat = service.post("/tokenize", {"messages": [{"role": "user", "content": "Say yes."}]}).json["tokens"]
    end = service.post("/tokenize", {"prompt": "<|im_end|>", "parse_special": True}).json["tokens"]
    bias = {str(end[0]): 100}
    ended = scored(service, chat, logit_bias=bias)
    assert ended["choices"][0]["finish_reason"] == "stop"
    assert ended["usage"]["completion_tokens"] == 0
    assert len(ended["choices"][0]["logprobs"]["tokens"]) == len(chat) + 1
    plain = scored(service, chat, max_tokens=0)
    assert parse_logprobs(ended, [3])[0][0] == sum(plain["choices"][0]["logprobs"]["token_logprobs"][3:])


def test_what_is_refused_says_what_to_do(service, model):
    job = service.post("/v1/jobs", {"prompt": PHRASE, "echo": True, "logprobs": 1})
    assert job.status == 400 and "/v1/completions" in job.json["error"]["message"]
    body = {"prompt": [[1] * 1600] * 8, "n": 8, "echo": True, "logprobs": 20, "max_tokens": 1}
    many = service.post("/v1/completions", body)
    assert many.status == 413 and many.json["error"]["param"] == "logprobs"
    eventually(service.at_rest, what="rest, for nobody was asked to work")
