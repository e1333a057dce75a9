#!/usr/bin/env python3
"""Writes expected.json: what Python's jinja2 3.1.6 makes of templates/*.jinja over inputs.json and of expressions.txt.

The environment is Hugging Face's (transformers.utils.chat_template_utils): ImmutableSandboxedEnvironment,
trim_blocks, lstrip_blocks, loop controls, its tojson, raise_exception, strftime_now, and a `generation` block that only
opens a scope.
Content parts: where a template does not know them, text parts are joined with newlines (model/chat_template.h).
Run: python3 tests/golden/chat_templates/make.py  (needs: pip install Jinja2==3.1.6)
"""
import datetime
import json
from pathlib import Path

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = Path(__file__).parent
NOW = datetime.datetime(2026, 11, 24, 7, 5, 9)
BOS, EOS = "<s>", "</s>"


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("body"), [], [], body).set_lineno(line)

    @staticmethod
    def body(caller):
        return caller()


def environment(with_date=True):
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    if with_date:
        env.globals["strftime_now"] = NOW.strftime
    return env


def render(source, case):
    messages = case["messages"]
    if any(isinstance(m.get("content"), list) for m in messages) and not accepts_parts(source):
        messages = [dict(m, content="\n".join(p["text"] for p in m["content"]))
                    if isinstance(m.get("content"), list) else m for m in messages]
    try:
        text = environment(case.get("date", True)).from_string(source).render(
            **case.get("variables", {}), messages=messages, tools=case.get("tools") or None, documents=None,
            add_generation_prompt=case.get("add_generation_prompt", True), bos_token=BOS, eos_token=EOS)
        return {"text": text}
    except Exception as error:  # whatever it is, our interpreter must fail too
        refused = type(error) is jinja2.exceptions.TemplateError
        return {"refused": str(error)} if refused else {"fails": f"{type(error).__name__}: {error}"}


def accepts_parts(source):
    probe = {"messages": [{"role": "user", "content": [{"type": "text", "text": "probe-text"}]}]}
    result = render_plain(source, probe)
    return "probe-text" in result and "'type'" not in result


def render_plain(source, case):
    try:
        return environment(False).from_string(source).render(
            messages=case["messages"], tools=None, documents=None, add_generation_prompt=True, bos_token="",
            eos_token="")
    except Exception:
        return ""


def main():
    inputs = json.loads((HERE / "inputs.json").read_text())
    renders = []
    for path in sorted((HERE / "templates").glob("*.jinja")):
        for name, case in inputs.items():
            renders.append({"template": path.name, "input": name, **render(path.read_text(), case)})
    variables = json.loads((HERE / "variables.json").read_text())
    expressions = []
    for line in (HERE / "expressions.txt").read_text().splitlines():
        if not line.strip() or line.startswith("//"):
            continue
        source = line.replace("⏎", "\n")
        expressions.append({"source": source, **render(source, {"messages": [], "variables": variables})})
    fixture = {"renders": renders, "expressions": expressions}
    (HERE / "expected.json").write_text(json.dumps(fixture, ensure_ascii=False, indent=0) + "\n")
    good = sum("text" in r for r in renders)
    print(f"{len(renders)} renders ({good} texts), {len(expressions)} expressions "
          f"({sum('text' in e for e in expressions)} texts)")


if __name__ == "__main__":
    main()
