#!/usr/bin/env bash
# langchain-openai 1.7.4 over openai 3.57.0: which refusals of a prompt that is too long become OpenAIContextOverflowError, the
# error that agents catch to send less.
#   expected  the one whose `code` is context_length_exceeded, whatever its words: langchain-openai looks for that code in the
#             text of the client's exception
#   seen      openai 3.57.0 puts only the error's `message` into that text, so the code is never found there: a server is
#             understood only if its words contain "prompt is too long" or "Input tokens exceed the configured limit". OpenAI's
#             own older sentence ("This model's maximum context length is ...") with its code is a plain BadRequestError
# Needs python3 with venv and the network, works in a folder of its own, and fails if what is seen changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check openai==3.57.0 langchain-openai==1.7.4
"$folder/venv/bin/python" - <<'PYTHON'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version

import openai
from langchain_openai import ChatOpenAI
from langchain_openai.chat_models.base import OpenAIContextOverflowError

SAYS = {
    "code and OpenAI's older sentence": "This model's maximum context length is 8192 tokens. However, your messages resulted in "
                                        "9010 tokens. Please reduce the length of the messages.",
    "code and 'prompt is too long'": "prompt is too long: 9010 tokens > 8192 maximum",
}
EXPECTED = {"code and OpenAI's older sentence": "BadRequestError", "code and 'prompt is too long'": "OpenAIContextOverflowError"}


class Refuses(BaseHTTPRequestHandler):
    message = ""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        error = {"message": self.message, "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}
        body = json.dumps({"error": error}).encode()
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Refuses)
threading.Thread(target=server.serve_forever, daemon=True).start()
model = ChatOpenAI(model="m", base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none", max_retries=0)
print("openai", version("openai"), "langchain-openai", version("langchain-openai"))
seen = {}
for what, Refuses.message in SAYS.items():
    try:
        model.invoke("a long prompt")
    except openai.BadRequestError as error:
        seen[what] = "OpenAIContextOverflowError" if isinstance(error, OpenAIContextOverflowError) else "BadRequestError"
        print(f"{what}: {seen[what]}; its code: {error.code}; its text: {error}")
assert seen == EXPECTED, seen
PYTHON
