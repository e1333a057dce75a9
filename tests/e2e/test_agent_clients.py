"""The clients that agents are written with, against the running service: litellm and langchain-openai."""

import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # litellm fetches a price list when it is imported

import litellm  # noqa: E402
import openai  # noqa: E402
import pytest  # noqa: E402
from jsonschema import Draft202012Validator  # noqa: E402
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage  # noqa: E402
from langchain_openai import ChatOpenAI  # noqa: E402
from langchain_openai.chat_models.base import OpenAIContextOverflowError  # noqa: E402
from pydantic import BaseModel  # noqa: E402

from conftest import ROOT, start_service  # noqa: E402

ASK = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
           "required": ["city", "unit"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": WEATHER}}


class City(BaseModel):
    name: str
    people: int


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    running = start_service("--chat-template", str(ROOT / "tests" / "e2e" / "templates" / "hermes.jinja"), "--job-store",
                            str(tmp_path_factory.mktemp("jobs") / "jobs.sqlite"), workers=1)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def plain(served):
    """What OpenAI's own client gets."""
    return openai.OpenAI(base_url=served.url + "/v1", api_key="unused", max_retries=0, timeout=120)


def lite(served, **fields):
    return litellm.completion(model="openai/smollm2", api_base=served.url + "/v1", api_key="unused", num_retries=0, temperature=0,
                              **{"messages": ASK, **fields})


def chain(served, **fields):
    return ChatOpenAI(model="smollm2", base_url=served.url + "/v1", api_key="unused", max_retries=0, temperature=0, **fields)


def test_litellm_answers_and_streams_the_same(served, plain):
    expected = plain.chat.completions.create(model="smollm2", messages=ASK, max_tokens=12, temperature=0)
    whole = lite(served, max_tokens=12)
    assert whole.choices[0].message.content == expected.choices[0].message.content
    assert whole.usage.total_tokens == expected.usage.total_tokens
    chunks = list(lite(served, max_tokens=12, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == expected.usage.completion_tokens


def test_litellm_calls_tools_and_names_errors(served):
    choice = lite(served, tools=[TOOL], tool_choice="required", parallel_tool_calls=False, max_tokens=80).choices[0]
    assert choice.finish_reason == "tool_calls"
    Draft202012Validator(WEATHER).validate(json.loads(choice.message.tool_calls[0].function.arguments))
    with pytest.raises(litellm.BadRequestError, match="max_tokens"):
        lite(served, max_tokens=-1)
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(model="openai/another", messages=ASK, api_base=served.url + "/v1", api_key="unused", num_retries=0)
    with pytest.raises(litellm.ContextWindowExceededError):
        lite(served, messages=[{"role": "user", "content": "light " * 9000}])
    with pytest.raises(litellm.ContextWindowExceededError):
        lite(served, max_tokens=8190)


def test_litellm_speaks_messages_and_responses(served, plain):
    chat = plain.chat.completions.create(model="smollm2", messages=ASK, max_tokens=12, temperature=0)
    expected = chat.choices[0].message.content
    message = litellm.completion(model="anthropic/smollm2", messages=ASK, api_base=served.url, api_key="unused", num_retries=0,
                                 max_tokens=12, temperature=0)
    assert message.choices[0].message.content == expected
    response = litellm.responses(model="openai/smollm2", input=ASK[0]["content"], api_base=served.url + "/v1", api_key="unused",
                                 max_output_tokens=16, temperature=0)
    assert response.output[-1].content[0].text.startswith(expected[:20])


@pytest.mark.parametrize("responses", [False, True])
def test_langchain_answers_streams_and_goes_on(served, responses):
    model = chain(served, max_tokens=16, use_responses_api=responses)
    whole = model.invoke([HumanMessage(ASK[0]["content"])])
    assert whole.text and whole.usage_metadata["output_tokens"] <= 16
    assert "".join(chunk.text for chunk in model.stream([HumanMessage(ASK[0]["content"])])) == whole.text
    turn = model.invoke([HumanMessage(ASK[0]["content"]), AIMessage(whole.text), HumanMessage("And of Italy?")])
    assert turn.text and turn.usage_metadata["input_tokens"] > whole.usage_metadata["input_tokens"]


@pytest.mark.parametrize("responses", [False, True])
def test_langchain_calls_tools_and_gets_structures(served, responses):
    model = chain(served, max_tokens=120, use_responses_api=responses)
    called = model.bind_tools([TOOL], tool_choice="get_weather").invoke("The weather in Paris?")
    assert [call["name"] for call in called.tool_calls] == ["get_weather"] and not called.invalid_tool_calls
    Draft202012Validator(WEATHER).validate(called.tool_calls[0]["args"])
    answered = [HumanMessage("The weather in Paris?"), called, ToolMessage("12 degrees", tool_call_id=called.tool_calls[0]["id"])]
    assert model.bind_tools([TOOL]).invoke(answered).text
    city = model.with_structured_output(City, method="json_schema").invoke("Describe Paris as a city.")
    assert isinstance(city, City)


@pytest.mark.parametrize("responses", [False, True])
def test_langchain_knows_a_prompt_that_is_too_long(served, responses):
    with pytest.raises(OpenAIContextOverflowError):
        chain(served, use_responses_api=responses).invoke("light " * 9000)
