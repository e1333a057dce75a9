"""Anthropic's own Python client against the running service."""

import anthropic
import pytest

from conftest import LONG_TEXT

GREEDY = {"temperature": 0}  # 2.14.0 has no argument of that name any more
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def claude(service):
    return anthropic.Anthropic(base_url=service.url, api_key="none", max_retries=0)


def test_a_message_is_the_chat_of_the_same_words(claude, client, model):
    message = claude.messages.create(model=model, messages=QUESTION, max_tokens=12, system="Be brief.", extra_body=GREEDY)
    chat = client.chat.completions.create(
        model=model, messages=[{"role": "system", "content": "Be brief."}, *QUESTION], max_tokens=12, temperature=0)
    assert message.content[0].text == chat.choices[0].message.content
    assert message.stop_reason == ("max_tokens" if chat.choices[0].finish_reason == "length" else "end_turn")
    usage = message.usage
    assert usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens == chat.usage.prompt_tokens
    assert usage.output_tokens == chat.usage.completion_tokens
    counted = claude.messages.count_tokens(model=model, messages=QUESTION, system="Be brief.")
    assert counted.input_tokens == chat.usage.prompt_tokens


def test_a_stream_gives_the_same_message(claude, model):
    whole = claude.messages.create(model=model, messages=QUESTION, max_tokens=24, extra_body=GREEDY)
    with claude.messages.stream(model=model, messages=QUESTION, max_tokens=24, extra_body=GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.stop_reason == whole.stop_reason and final.usage.output_tokens == whole.usage.output_tokens


def test_a_stop_sequence_is_named(claude, model):
    whole = claude.messages.create(model=model, messages=QUESTION, max_tokens=24, extra_body=GREEDY).content[0].text
    word = whole.split()[2]
    cut = claude.messages.create(model=model, messages=QUESTION, max_tokens=24, stop_sequences=[word], extra_body=GREEDY)
    assert cut.stop_reason == "stop_sequence" and cut.stop_sequence == word
    assert cut.content[0].text == whole[: whole.index(word)]


def test_a_second_question_reads_the_cache(claude, model):
    def ask(question):
        return claude.messages.create(model=model, max_tokens=4, system=LONG_TEXT * 2,
                                      messages=[{"role": "user", "content": question}],
                                      extra_body={**GREEDY, "cache_salt": "anthropic"}).usage

    first, second = ask("Who keeps the light?"), ask("When does the ship come?")
    assert first.cache_read_input_tokens == 0 and first.cache_creation_input_tokens > 0
    assert second.cache_read_input_tokens >= first.cache_creation_input_tokens - 64


def test_errors_are_the_clients_own(claude, model):
    with pytest.raises(anthropic.BadRequestError, match="shows the model no tools"):
        claude.messages.create(model=model, messages=QUESTION, max_tokens=4,
                               tools=[{"name": "f", "input_schema": {"type": "object"}}])
    with pytest.raises(anthropic.NotFoundError, match="model"):
        claude.messages.create(model="other", messages=QUESTION, max_tokens=4)
    with pytest.raises(anthropic.BadRequestError, match="context"):
        claude.messages.create(model=model, messages=[{"role": "user", "content": LONG_TEXT * 60}], max_tokens=4)
