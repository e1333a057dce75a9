"""OpenAI's Responses API by OpenAI's own Python client, against real processes."""

import os
import signal
import time

import openai
import pytest
from pydantic import BaseModel

from conftest import LONG_TEXT, start_service

QUESTION = "What is the capital of France?"
LONG = f"{LONG_TEXT} Who counts the lamps?"  # several pages of K/V


def ask(client, model, question, **more):
    return client.responses.create(model=model, input=question, max_output_tokens=16, temperature=0, **more)


def wait_for(client, response_id, status, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        response = client.responses.retrieve(response_id)
        if response.status == status:
            return response
        time.sleep(0.05)
    raise AssertionError(f"{response_id} is {response.status}, not {status}")


def test_a_response_is_the_chat_of_the_same_words(client, model):
    response = ask(client, model, QUESTION, instructions="Be brief.")
    chat = client.chat.completions.create(
        model=model, max_tokens=16, temperature=0,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}])
    assert response.output_text == chat.choices[0].message.content
    assert response.usage.input_tokens == chat.usage.prompt_tokens
    assert response.usage.output_tokens == chat.usage.completion_tokens
    assert response.status == {"length": "incomplete", "stop": "completed"}[chat.choices[0].finish_reason]
    assert client.responses.retrieve(response.id).to_dict() == response.to_dict()


def test_a_conversation_is_the_chat_of_all_its_turns(client, model):
    first = ask(client, model, LONG)
    second = ask(client, model, "And of Italy?", previous_response_id=first.id)
    third = ask(client, model, "Thank you.", previous_response_id=second.id, store=False)
    messages = []
    for question, answer in ((LONG, first), ("And of Italy?", second), ("Thank you.", third)):
        messages.append({"role": "user", "content": question})
        chat = client.chat.completions.create(model=model, max_tokens=16, temperature=0, messages=messages)
        assert answer.output_text == chat.choices[0].message.content
        messages.append({"role": "assistant", "content": answer.output_text})
    assert second.usage.input_tokens_details.cached_tokens > 0, "a conversation begins behind what it said before"
    items = list(client.responses.input_items.list(second.id, order="asc", limit=2))
    assert [item.content[0].text for item in items] == [LONG, first.output_text, "And of Italy?"]
    # By hand: what came out goes in again.
    by_hand = ask(client, model, [{"role": "user", "content": LONG}, *[item.to_dict() for item in first.output],
                                  {"role": "user", "content": "And of Italy?"}])
    assert by_hand.output_text == second.output_text
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(third.id)
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError, match="deleted"):
        ask(client, model, "And?", previous_response_id=second.id)


def test_a_stream_gives_the_same_response(client, model):
    whole = ask(client, model, QUESTION)
    with client.responses.stream(model=model, input=QUESTION, max_output_tokens=16, temperature=0) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response() if whole.status == "completed" else None
    assert text == whole.output_text
    assert final is None or final.output_text == text


def test_structure_and_log_probabilities(client, model):
    class City(BaseModel):
        name: str
        inhabitants: int

    parsed = client.responses.parse(model=model, input="Describe Paris.", text_format=City, max_output_tokens=200,
                                    temperature=0)
    assert isinstance(parsed.output_parsed, City)
    response = ask(client, model, QUESTION, top_logprobs=2, include=["message.output_text.logprobs"])
    logprobs = response.output[0].content[0].logprobs
    assert len(logprobs) == response.usage.output_tokens
    assert all(len(entry.top_logprobs) == 2 and entry.logprob <= 0 for entry in logprobs)
    assert "".join(entry.token for entry in logprobs) == response.output_text


def client_of(service):
    return openai.OpenAI(base_url=service.url + "/v1", api_key="unused", max_retries=0, timeout=120)


def test_the_background_survives_the_service_and_its_events_go_on(tmp_path, model):
    store = ("--job-store", str(tmp_path / "jobs.sqlite"))
    service = start_service(*store)
    client = client_of(service)
    response = client.responses.create(model=model, input=QUESTION, max_output_tokens=200, temperature=0, background=True,
                                       extra_body={"seed": 1})
    assert response.status in ("queued", "in_progress")
    seen = []
    for event in client.responses.retrieve(response.id, stream=True):
        seen.append(event)
        if len(seen) == 12:
            break
    assert [event.sequence_number for event in seen] == list(range(12))
    os.kill(service.process.pid, signal.SIGKILL)
    service.process.wait()
    service = start_service(*store)
    client = client_of(service)
    rest = list(client.responses.retrieve(response.id, stream=True, starting_after=seen[-1].sequence_number))
    assert [event.sequence_number for event in rest] == list(range(12, 12 + len(rest)))
    done = wait_for(client, response.id, rest[-1].response.status)
    text = "".join(event.delta for event in seen + rest if event.type == "response.output_text.delta")
    assert text == done.output_text == rest[-1].response.output_text
    again = client.responses.create(model=model, input=QUESTION, max_output_tokens=200, temperature=0)
    assert again.output_text == text, "the same tokens as without the crash"
    assert client.responses.cancel(response.id).status == done.status, "what has ended stays as it is"
    service.stop()


def test_cancel_frees_what_runs(client, model, service):
    running = client.responses.create(model=model, input=QUESTION, max_output_tokens=4000, background=True,
                                      extra_body={"runahead": {"workers": 1}, "seed": 3, "temperature": 2})
    assert client.responses.cancel(running.id).status in ("cancelled", "completed")
    client.responses.delete(running.id)
    assert service.get(f"/v1/jobs/{running.id}").status == 404


def test_errors_are_the_clients_own(client, model):
    with pytest.raises(openai.BadRequestError, match="truncation"):
        ask(client, model, QUESTION, truncation="auto")
    with pytest.raises(openai.NotFoundError, match="resp_nothing"):
        ask(client, model, QUESTION, previous_response_id="resp_nothing")
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.cancel(ask(client, model, QUESTION).id)
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, model, "word " * 9000)
    assert refused.value.code == "context_length_exceeded" and refused.value.param == "input"
