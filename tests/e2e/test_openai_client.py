"""OpenAI's own Python client against the running service: what makes the claim "OpenAI-compatible" true."""

import openai
import pytest

from conftest import LONG_TEXT, eventually

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def test_chat_answers_with_exact_usage(client, service, model):
    answer = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=12, temperature=0)
    choice = answer.choices[0]
    again = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=12, temperature=0)
    assert choice.message.content and choice.message.content == again.choices[0].message.content
    assert choice.message.role == "assistant"
    assert choice.finish_reason in ("stop", "length")
    counted = service.post("/tokenize", {"messages": QUESTION}).json["count"]
    assert answer.usage.prompt_tokens == counted
    assert answer.usage.total_tokens == counted + answer.usage.completion_tokens
    assert answer.usage.completion_tokens <= 12


def test_stream_gives_the_same_text_role_first_and_usage_last(client, model):
    whole = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=24, temperature=0)
    chunks = list(
        client.chat.completions.create(
            model=model,
            messages=QUESTION,
            max_tokens=24,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(c.usage is None for c in chunks[:-1])


def test_completion_of_text_and_of_its_ids_is_the_same(client, service, model):
    ids = service.post("/tokenize", {"prompt": LONG_TEXT}).json["tokens"]
    by_text = client.completions.create(model=model, prompt=LONG_TEXT, max_tokens=8, temperature=0)
    by_ids = client.completions.create(model=model, prompt=ids, max_tokens=8, temperature=0)
    assert by_text.choices[0].text == by_ids.choices[0].text
    assert by_text.usage.prompt_tokens == len(ids) == by_ids.usage.prompt_tokens
    assert service.post("/detokenize", {"tokens": ids}).json["prompt"] == LONG_TEXT


def test_several_prompts_and_choices_come_back_in_order(client, model):
    answer = client.completions.create(
        model=model, prompt=["One two three", "Red green"], n=2, max_tokens=4, temperature=0, echo=True
    )
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]
    assert all(c.text.startswith("One two three") for c in answer.choices[:2])
    assert all(c.text.startswith("Red green") for c in answer.choices[2:])


def test_seed_repeats_and_another_seed_differs(client, model):
    def sample(seed):
        return (
            client.completions.create(
                model=model, prompt="Once upon a time", max_tokens=24, temperature=1.0, seed=seed
            )
            .choices[0]
            .text
        )

    assert sample(7) == sample(7)
    assert len({sample(seed) for seed in range(4)}) > 1


def test_stop_string_is_cut_exactly(client, model):
    free = (
        client.completions.create(model=model, prompt="Count: 1, 2, 3, 4,", max_tokens=24, temperature=0)
        .choices[0]
        .text
    )
    stop = free[5:8]
    cut = client.completions.create(
        model=model, prompt="Count: 1, 2, 3, 4,", max_tokens=24, temperature=0, stop=[stop]
    )
    assert cut.choices[0].text == free[: free.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_logprobs_are_those_of_the_chosen_tokens(client, model):
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens or answer.choices[0].finish_reason == "stop"
    for entry in content:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].logprob == pytest.approx(
            entry.logprob, abs=1e-4
        ), "greedy takes the most likely one"
        assert bytes(entry.bytes).decode(errors="replace") == entry.token
    assert "".join(e.token for e in content) == answer.choices[0].message.content


def test_errors_are_the_clients_own_classes(client, service, model):
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="gpt-4", prompt="a")
    with pytest.raises(openai.BadRequestError) as unsupported:
        client.chat.completions.create(
            model=model, messages=QUESTION, tools=[{"type": "function", "function": {"name": "f"}}]
        )
    assert unsupported.value.code == "unsupported_parameter" and unsupported.value.param == "tools"
    with pytest.raises(openai.BadRequestError) as overflow:
        client.completions.create(model=model, prompt="a", max_tokens=10_000_000)
    assert overflow.value.code == "context_length_exceeded"
    assert str(service.cluster()["context_len"]) in overflow.value.message


def test_models_are_listed(client, service, model):
    assert [m.id for m in client.models.list()] == [model]
    assert client.models.retrieve(model).max_model_len == service.cluster()["context_len"]


def test_history_from_model_dump_goes_on(client, model):
    first = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=8, temperature=0)
    message = first.choices[0].message
    plain = {"role": "assistant", "content": message.content}
    answers = [
        client.chat.completions.create(
            model=model,
            messages=[*QUESTION, said, {"role": "user", "content": "And of Italy?"}],
            max_tokens=8,
            temperature=0,
        )
        for said in (message.model_dump(), message, plain)
    ]
    assert len({answer.choices[0].message.content for answer in answers}) == 1
    assert len({answer.usage.prompt_tokens for answer in answers}) == 1


def test_min_tokens_go_on_past_the_end(client, model):
    free = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=60, temperature=0)
    assert free.choices[0].finish_reason == "stop", "this answer ends by itself"
    made = free.usage.completion_tokens
    longer = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=80, temperature=0, extra_body={"min_tokens": made + 5}
    )
    assert longer.usage.completion_tokens >= made + 5
    assert longer.choices[0].message.content.startswith(free.choices[0].message.content)


def test_echo_of_no_tokens_and_characters_of_logprobs(client, model):
    echoed = client.completions.create(model=model, prompt="Straße", max_tokens=0, echo=True)
    assert echoed.choices[0].text == "Straße" and echoed.usage.completion_tokens == 0
    answer = client.completions.create(
        model=model, prompt="Translate to French: the boy is very old. Le garçon est", max_tokens=12, logprobs=0, temperature=0
    )
    logprobs, text = answer.choices[0].logprobs, answer.choices[0].text
    for offset, token, top in zip(logprobs.text_offset, logprobs.tokens, logprobs.top_logprobs):
        assert text[offset:].startswith(token) or token.startswith(("bytes:", "<|"))
        assert list(top) == [token]


def test_a_client_that_closes_at_done_has_a_finished_request(client, model, service):
    def ended(status):
        return service.metric("runahead_requests_total", endpoint="chat", status=status)

    ok, cancelled = ended("ok"), ended("cancelled")
    for _ in range(10):
        stream = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=2, stream=True)
        for chunk in stream:
            if chunk.choices[0].finish_reason:
                break
        stream.close()
    eventually(lambda: ended("ok") == ok + 10, what="ten finished requests")
    assert ended("cancelled") == cancelled
