"""bench/second_question.py on a real cluster, with a short document."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNAHEAD = Path(os.environ.get("RUNAHEAD_BINARY", ROOT / "build" / "release" / "runahead"))


@pytest.mark.skipif(not RUNAHEAD.exists(), reason=f"{RUNAHEAD} is not built")
def test_a_second_question_is_answered_from_kept_pages(tmp_path):
    document = tmp_path / "document.txt"
    document.write_text("The keeper of the light writes down every ship that passes. " * 40)
    result = subprocess.run([sys.executable, ROOT / "bench" / "second_question.py", "--binary", RUNAHEAD, "--document", document,
                             "--workers", "1", "--rounds", "1", "--choices", "2"],
                            capture_output=True, text=True, timeout=280, check=False)
    assert result.returncode == 0, result.stderr
    cells = [cell.strip() for cell in result.stdout.splitlines()[-1].split("|")]
    tokens, cached = map(int, cells[2].split(", "))
    assert tokens - 128 < cached < tokens
    assert float(cells[5].split()[0]) < 1
    assert int(cells[7].split()[0]) < 128, "the answer of 256 tokens was not computed again"
