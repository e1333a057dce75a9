"""bench/windows.py on a real cluster, with a prompt short enough for a test."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNAHEAD = Path(os.environ.get("RUNAHEAD_BINARY", ROOT / "build" / "release" / "runahead"))


@pytest.mark.skipif(not RUNAHEAD.exists(), reason=f"{RUNAHEAD} is not built")
def test_of_layers_with_a_window_only_the_pages_in_reach_travel():
    result = subprocess.run([sys.executable, ROOT / "bench" / "windows.py", "--tokens", "2048"],
                            env={**os.environ, "RUNAHEAD_BINARY": str(RUNAHEAD)}, capture_output=True, text=True, timeout=280,
                            check=False)
    assert result.returncode == 0, result.stderr
    share = float(result.stdout.splitlines()[-1].split(":")[1].split()[0])
    # The last of four ranks begins at token 1,536, page 24. 22 of 26 layers see 511 tokens back, 8 pages.
    assert share == pytest.approx((4 * 24 + 22 * 8) / (26 * 24), abs=0.005)
