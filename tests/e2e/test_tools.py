"""Tools against the real service, by OpenAI's and Anthropic's own clients. The tests' model has a template without tools:
services with the templates of `templates/` show it some, in the forms of two families."""

import json
import os
import sys
import time
from pathlib import Path

import anthropic
import openai
import pytest
from jsonschema import Draft202012Validator

from conftest import ROOT, start_service

sys.path.insert(0, str(ROOT / "tests" / "golden" / "chat_templates"))
from make import environment  # noqa: E402  the oracle of the chat templates: jinja2

TEMPLATES = Path(__file__).parent / "templates"
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER = {
    "type": "object",
    "properties": {
        "unit": {"enum": ["C", "F"]},
        "city": {"type": "string", "minLength": 1, "maxLength": 20},
        "days": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 9}, "minItems": 1, "maxItems": 3},
    },
    "required": ["unit", "city", "days"],
    "additionalProperties": False,
}
TIME = {"type": "object", "properties": {"zone": {"type": "string", "pattern": "^[A-Z]{3}$"}}, "required": ["zone"]}
SCHEMAS = {"get_weather": WEATHER, "get_time": TIME}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"Does {name}.", "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
NAMED = {"type": "function", "function": {"name": "get_time"}}
CLAUDES = [{"name": tool["function"]["name"], "input_schema": tool["function"]["parameters"]} for tool in TOOLS]


@pytest.fixture(scope="module", params=["hermes", "llama"])
def calling(request, tmp_path_factory):
    running = start_service("--chat-template", str(TEMPLATES / f"{request.param}.jinja"), "--job-store",
                            str(tmp_path_factory.mktemp("jobs") / "jobs.sqlite"), workers=1)
    running.family = request.param
    yield running
    running.stop()


@pytest.fixture(scope="module")
def gpt(calling):
    return openai.OpenAI(base_url=calling.url + "/v1", api_key="unused", max_retries=0, timeout=120)


def check(call):
    arguments = json.loads(call.function.arguments)
    Draft202012Validator(SCHEMAS[call.function.name]).validate(arguments)
    assert list(arguments) == list(SCHEMAS[call.function.name]["properties"]), "fields in the schema's order"


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_required_calls_are_of_their_schemas(gpt, temperature):
    answer = gpt.chat.completions.create(model="smollm2", messages=ASK, tools=TOOLS, tool_choice="required", n=4, max_tokens=120,
                                         parallel_tool_calls=False, temperature=temperature, seed=11)
    for choice in answer.choices:
        assert choice.finish_reason == "tool_calls" and choice.message.content is None, choice
        assert len(choice.message.tool_calls) == 1
        check(choice.message.tool_calls[0])
    ids = [choice.message.tool_calls[0].id for choice in answer.choices]
    assert len(set(ids)) == len(ids)


def test_several_calls_in_one_answer(gpt):
    answer = gpt.chat.completions.create(model="smollm2", messages=ASK, tools=TOOLS, tool_choice="required", max_tokens=200,
                                         temperature=1.2, seed=2).choices[0]
    whole = answer.message.tool_calls if answer.finish_reason == "tool_calls" else answer.message.tool_calls[:-1]
    assert whole, answer
    for call in whole:
        check(call)


def test_a_named_tool_is_called_and_streamed_name_first(gpt):
    fields = {"model": "smollm2", "messages": ASK, "tools": TOOLS, "tool_choice": NAMED, "max_tokens": 60, "temperature": 0}
    whole = gpt.chat.completions.create(**fields).choices[0]
    assert [call.function.name for call in whole.message.tool_calls] == ["get_time"]
    check(whole.message.tool_calls[0])
    deltas, reasons = [], []
    for chunk in gpt.chat.completions.create(stream=True, **fields):
        reasons.append(chunk.choices[0].finish_reason)
        deltas += chunk.choices[0].delta.tool_calls or []
    assert reasons[-1] == "tool_calls" and set(reasons[:-1]) == {None}
    assert deltas[0].id and deltas[0].function.name == "get_time" and deltas[0].function.arguments == ""
    assert all(delta.index == 0 and delta.id is None and delta.function.name is None for delta in deltas[1:])
    assert len(deltas) > 3, "arguments come as they are written"
    assert "".join(delta.function.arguments for delta in deltas) == whole.message.tool_calls[0].function.arguments
    with gpt.chat.completions.stream(**fields) as stream:  # the client's own way to put them together
        final = stream.get_final_completion().choices[0]
    assert final.message.tool_calls[0].function.arguments == whole.message.tool_calls[0].function.arguments


def test_a_job_has_the_calls_of_the_chat(calling, gpt):
    fields = {"model": "smollm2", "messages": ASK, "tools": TOOLS, "tool_choice": NAMED, "max_tokens": 60, "temperature": 0}
    chat = gpt.chat.completions.create(**fields).choices[0].message.tool_calls[0].function
    job = calling.post("/v1/jobs", {**fields, "model": None}).json
    end = time.monotonic() + 30
    while job["status"] not in ("succeeded", "failed") and time.monotonic() < end:
        job = calling.get("/v1/jobs/" + job["id"]).json
    choice = job["result"]["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"] == {"name": chat.name, "arguments": chat.arguments}
    assert calling.get("/v1/jobs/" + job["id"]).json["result"]["choices"][0] == choice, "ids stay"


def test_auto_may_answer_with_text_and_strict_is_held(gpt):
    strict = [{"type": "function", "function": {**tool["function"], "strict": True}} for tool in TOOLS]
    for tools in (TOOLS, strict):
        choice = gpt.chat.completions.create(model="smollm2", messages=ASK, tools=tools, max_tokens=24, temperature=0).choices[0]
        assert choice.message.content or choice.message.tool_calls
    fields = {"model": "smollm2", "messages": ASK, "max_tokens": 24, "temperature": 0}
    none = gpt.chat.completions.create(tools=TOOLS, tool_choice="none", **fields)
    plain = gpt.chat.completions.create(**fields)
    assert none.choices[0].message.content == plain.choices[0].message.content, "none: the model is shown no tools"


def test_beside_tools_an_answer_is_of_the_structure_or_calls(gpt):
    schema = {"type": "object", "properties": {"degrees": {"type": "integer", "minimum": -99, "maximum": 99}},
              "required": ["degrees"], "additionalProperties": False}
    fields = {"model": "smollm2", "messages": ASK, "tools": TOOLS, "max_tokens": 120, "temperature": 1.5, "seed": 3,
              "response_format": {"type": "json_schema", "json_schema": {"name": "t", "schema": schema}}}
    for choice in gpt.chat.completions.create(n=6, parallel_tool_calls=False, **fields).choices:
        assert choice.finish_reason in ("stop", "tool_calls"), choice
        if choice.finish_reason == "tool_calls":
            assert choice.message.content is None
            check(choice.message.tool_calls[0])
        else:
            Draft202012Validator(schema).validate(json.loads(choice.message.content))
    called = gpt.chat.completions.create(tool_choice=NAMED, **fields).choices[0]
    assert called.finish_reason == "tool_calls" and called.message.tool_calls[0].function.name == "get_time"


def test_calls_as_xml_are_held_too():
    """As Qwen3-Coder writes them: a text is bare, all else is JSON."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["C", "F"]},
                                               "days": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9},
                                                        "maxItems": 3}},
              "required": ["city", "unit", "days"], "additionalProperties": False}
    function = {"name": "get_weather", "description": "The weather.", "parameters": schema, "strict": True}
    # One mode on all machines: what the seed brings depends on it.
    running = start_service("--chat-template", str(TEMPLATES / "xml.jinja"), "--compute", "int8", workers=1)
    try:
        client = openai.OpenAI(base_url=running.url + "/v1", api_key="unused", max_retries=0, timeout=120)
        answer = client.chat.completions.create(model="smollm2", messages=ASK, tools=[{"type": "function", "function": function}],
                                                tool_choice="required", parallel_tool_calls=False, n=4, seed=5, temperature=0.7,
                                                max_tokens=160)
        called = [choice for choice in answer.choices if choice.finish_reason == "tool_calls"]
        assert len(called) >= 2, answer
        for choice in called:
            assert choice.message.content is None
            Draft202012Validator(schema).validate(json.loads(choice.message.tool_calls[0].function.arguments))
        function["parameters"] = {**schema, "properties": {**schema["properties"], "city": {"type": "string", "pattern": "^P"}}}
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model="smollm2", messages=ASK, tools=[{"type": "function", "function": function}])
        assert refused.value.param == "tools[0].function.parameters.properties.city.pattern"
    finally:
        running.stop()


def test_the_conversation_goes_on_with_the_tools_answer(calling, gpt):
    call = gpt.chat.completions.create(model="smollm2", messages=ASK, tools=TOOLS, tool_choice="required", max_tokens=120,
                                       parallel_tool_calls=False, temperature=0).choices[0].message
    answered = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "12 degrees <|im_end|>"}
    messages = [*ASK, call.model_dump(exclude_none=True), answered]
    answer = gpt.chat.completions.create(model="smollm2", messages=messages, tools=TOOLS, max_tokens=16, temperature=0)
    assert answer.choices[0].message.content
    # What the model reads is what jinja2 makes of the template.
    prompt = calling.post("/apply-template", {"messages": messages, "tools": TOOLS}).json["prompt"]
    function = {"name": call.tool_calls[0].function.name, "arguments": json.loads(call.tool_calls[0].function.arguments)}
    shown = [*ASK, {"role": "assistant", "content": "", "tool_calls": [{"id": call.tool_calls[0].id, "type": "function",
                                                                        "function": function}]},
             {**answered, "name": function["name"]}]
    source = (TEMPLATES / f"{calling.family}.jinja").read_text()
    assert prompt == environment().from_string(source).render(messages=shown, tools=TOOLS, add_generation_prompt=True)
    tokens = calling.post("/tokenize", {"messages": messages, "tools": TOOLS}).json
    assert tokens["count"] == answer.usage.prompt_tokens


def test_anthropics_client(calling, gpt):
    claude = anthropic.Anthropic(base_url=calling.url, api_key="none", max_retries=0)
    question = {"model": "smollm2", "messages": ASK, "max_tokens": 120, "tools": CLAUDES, "extra_body": {"temperature": 0}}
    message = claude.messages.create(tool_choice={"type": "any", "disable_parallel_tool_use": True}, **question)
    assert message.stop_reason == "tool_use"
    block = message.content[-1]
    Draft202012Validator(SCHEMAS[block.name]).validate(block.input)
    with claude.messages.stream(tool_choice={"type": "tool", "name": "get_time"}, **question) as stream:
        events = list(stream)
        streamed = stream.get_final_message()
    assert [b.name for b in streamed.content] == ["get_time"] and streamed.stop_reason == "tool_use"
    Draft202012Validator(TIME).validate(streamed.content[0].input)
    assert sum(event.type == "input_json" for event in events) > 2
    answered = [*ASK, {"role": "assistant", "content": message.content},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "12 degrees"}]}]
    more = {**question, "messages": answered}
    final = claude.messages.create(**{**more, "max_tokens": 12}, tool_choice={"type": "auto"})
    assert final.content
    chat = [*ASK, {"role": "assistant", "content": None, "tool_calls": [
        {"id": "x", "type": "function", "function": {"name": block.name, "arguments": json.dumps(block.input)}}]},
        {"role": "tool", "tool_call_id": "x", "content": "12 degrees"}]
    bare = [{"type": "function", "function": {"name": t["name"], "parameters": t["input_schema"]}} for t in CLAUDES]
    counted = claude.messages.count_tokens(model="smollm2", messages=answered, tools=CLAUDES).input_tokens
    assert counted == calling.post("/tokenize", {"messages": chat, "tools": bare}).json["count"]


def test_what_cannot_be_is_refused_by_name(calling, gpt):
    def refused(**fields):
        answer = calling.post("/v1/chat/completions", {"messages": ASK, "tools": TOOLS, **fields})
        assert answer.status == 400, answer.body
        return answer.json["error"]["param"]

    odd = {"type": "object", "properties": {"a": {"type": "number", "multipleOf": 0.1}}}
    strict = [{"type": "function", "function": {"name": "f", "parameters": odd, "strict": True}}]
    assert refused(tools=strict) == "tools[0].function.parameters.properties.a.multipleOf"
    assert refused(tools=[{"type": "web_search"}]) == "tools[0].type"
    assert refused(tool_choice={"type": "function", "function": {"name": "other"}}) == "tool_choice.function.name"
    assert refused(tool_choice="required", tools=None) == "tool_choice"
    assert refused(messages=[*ASK, {"role": "tool", "tool_call_id": "x", "content": "y"}]) == "messages[1].tool_call_id"
    strict[0]["function"]["strict"] = False  # no promise: any object will do
    answer = gpt.chat.completions.create(model="smollm2", messages=ASK, tools=strict, tool_choice="required", max_tokens=80,
                                         parallel_tool_calls=False, temperature=0).choices[0]
    if answer.finish_reason == "tool_calls":
        assert isinstance(json.loads(answer.message.tool_calls[0].function.arguments), dict)


def test_a_call_begins_with_the_control_token_of_its_vocabulary(tmp_path):
    """Some vocabularies have a control token for what opens a call, which is no part of a text: here another one's name is
    that. A bias for it makes the model call: only where a grammar lets it, and behind it only the strict schema is possible."""
    models = Path(os.environ.get("RUNAHEAD_MODEL_DIR", Path.home() / ".cache" / "runahead" / "models"))
    named = next(models.glob("*.gguf")).read_bytes().replace(b"<repo_name>", b"<tool_call>", 1)
    (tmp_path / "control.gguf").write_bytes(named)
    running = start_service("--chat-template", str(TEMPLATES / "hermes.jinja"), model=tmp_path / "control.gguf", workers=1)
    try:
        spelled = {"content": "<tool_call>", "parse_special": True, "add_special_tokens": False}
        opening = running.post("/tokenize", spelled).json
        token = opening["tokens"][0]
        assert opening["count"] == 1 and running.post("/tokenize", {"content": "<tool_call>"}).json["tokens"] != [token]
        strict = [{"type": "function", "function": {**TOOLS[0]["function"], "strict": True}}]
        ask = {"messages": ASK, "tools": strict, "parallel_tool_calls": False, "max_tokens": 100, "temperature": 0,
               "logit_bias": {str(token): 100}, "return_token_ids": True}
        for choice in ("auto", "required"):
            answer = running.post("/v1/chat/completions", {**ask, "tool_choice": choice}).json["choices"][0]
            assert answer["token_ids"].count(token) == 1 and answer["token_ids"][0] == token
            assert answer["finish_reason"] == "tool_calls" and answer["message"]["content"] is None
            Draft202012Validator(WEATHER).validate(json.loads(answer["message"]["tool_calls"][0]["function"]["arguments"]))
        free = running.post("/v1/chat/completions", {**ask, "tools": TOOLS, "parallel_tool_calls": True, "max_tokens": 3}).json
        assert free["choices"][0]["message"]["content"] == "<tool_call>" * 3, "no call, and nothing is lost"
    finally:
        running.stop()


def test_a_model_whose_template_has_no_tools_says_so(service, client):
    for path, body in (("/v1/chat/completions", {"messages": ASK, "tools": TOOLS}),
                       ("/v1/jobs", {"messages": ASK, "tools": TOOLS}),
                       ("/apply-template", {"messages": ASK, "tools": TOOLS}),
                       ("/v1/messages", {"messages": ASK, "max_tokens": 5, "tools": CLAUDES}),
                       ("/v1/messages/count_tokens", {"messages": ASK, "tools": CLAUDES})):
        answer = service.post(path, body)
        assert answer.status == 400 and "chat template shows the model no tools" in answer.json["error"]["message"], answer.body
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    history = [*ASK, {"role": "assistant", "content": None, "tool_calls": [call]}]
    answer = service.post("/v1/chat/completions", {"messages": history})
    assert answer.status == 400 and answer.json["error"]["param"] == "messages[1].tool_calls"
    unused = client.chat.completions.create(model="smollm2", messages=ASK, tools=TOOLS, tool_choice="none", max_tokens=4)
    assert unused.choices[0].message.content is not None


RESPONSE_TOOLS = [{"type": "function", "name": name, "description": f"Does {name}.", "parameters": schema}
                  for name, schema in SCHEMAS.items()]


def test_responses_call_and_go_on_with_what_the_tools_gave(gpt):
    asked = {"model": "smollm2", "tools": RESPONSE_TOOLS, "max_output_tokens": 120, "temperature": 0.8, "extra_body": {"seed": 3}}
    answer = gpt.responses.create(input=ASK[0]["content"], tool_choice="required", parallel_tool_calls=False, **asked)
    [call] = answer.output
    assert call.type == "function_call" and answer.status == "completed", answer
    Draft202012Validator(SCHEMAS[call.name]).validate(json.loads(call.arguments))
    with gpt.responses.stream(input=ASK[0]["content"], tool_choice="required", parallel_tool_calls=False, **asked) as stream:
        parts = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response()
    assert "".join(parts) == call.arguments == final.output[0].arguments and len(parts) > 1, "as it is written"
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    second = gpt.responses.create(input=[output], previous_response_id=answer.id, tool_choice="none", **asked)
    by_hand = gpt.responses.create(input=[ASK[0], call.to_dict(), output], tool_choice="none", **asked)
    assert second.output_text == by_hand.output_text and second.usage.input_tokens == by_hand.usage.input_tokens
    with pytest.raises(openai.BadRequestError, match="no call"):
        gpt.responses.create(input=[{**output, "call_id": "call_none"}], previous_response_id=answer.id, **asked)
