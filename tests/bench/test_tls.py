"""bench/tls.py on two real clusters, with a short document."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNAHEAD = Path(os.environ.get("RUNAHEAD_BINARY", ROOT / "build" / "release" / "runahead"))


@pytest.mark.skipif(not RUNAHEAD.exists(), reason=f"{RUNAHEAD} is not built")
def test_both_clusters_give_the_same_logits(tmp_path):
    document = tmp_path / "document.txt"
    document.write_text("The keeper of the light writes down every ship that passes. " * 20)
    result = subprocess.run([sys.executable, ROOT / "bench" / "tls.py", "--binary", RUNAHEAD, "--document", document,
                             "--workers", "1", "--rounds", "1"], capture_output=True, text=True, timeout=280, check=False)
    assert result.returncode == 0, result.stderr
    cells = [cell.strip() for cell in result.stdout.splitlines()[-1].split("|")]
    assert cells[1] == "1, tcp" and all(float(cell.split()[0]) > 0 for cell in cells[2:5]), result.stdout
