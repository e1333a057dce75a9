"""What a newcomer sees first: the question of deploy/quickstart.sh about its document has the right answer, in every mode."""
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import start_service

EXAMPLES = Path(__file__).resolve().parents[2] / "deploy" / "examples"
ANSWER = "Petrel"  # section 8 of the handbook


def asked(url):
    return subprocess.run([sys.executable, EXAMPLES / "ask.py", "--url", url], check=True, capture_output=True, text=True,
                          timeout=120).stdout


def test_the_first_answer_is_right(service):
    assert ANSWER in (EXAMPLES / "handbook.txt").read_text()
    answer = asked(service.url).split("answer: ")[1].split("time to first token")[0]
    assert ANSWER in answer and len(answer.strip().splitlines()) == 1, answer


@pytest.mark.parametrize("mode", ["fp32", "bf16", "int16", "int8"])
def test_and_in_every_mode(mode):
    running = start_service("--compute", mode, workers=1)
    try:
        assert ANSWER in asked(running.url)
    finally:
        running.stop()
