"""tests/transport/ucx_again.sh: one known fault of UCX is forgiven once, and nothing else."""
import subprocess
from pathlib import Path

import pytest

AGAIN = Path(__file__).resolve().parents[1] / "transport" / "ucx_again.sh"
KNOWN = "[vm:1:0:1] async.c:643  Assertion `handler->async == async' failed"
TOO = "[vm:1:0:1] tcp_sockcm_ep.c:416  Assertion `(cep->state) & 1' failed"


@pytest.mark.parametrize("ends, code, runs", [
    ([("fine", 0)], 0, 1),
    ([(KNOWN, 134), ("fine", 0)], 0, 2),
    ([(KNOWN, 134), ("a test failed", 1)], 1, 2),
    ([(KNOWN, 134), (KNOWN, 134)], 134, 2),
    ([(TOO, 134), ("fine", 0)], 0, 2),
    ([(TOO, 134), (KNOWN, 134)], 134, 2),
    ([("async.c:643  Assertion `another' failed", 134)], 134, 1),
    ([("a test failed", 1)], 1, 1),
    ([(KNOWN, 0)], 0, 1),
])
def test_a_program_runs_again_after_the_known_fault_alone(tmp_path, ends, code, runs):
    for place, (said, ended) in enumerate(ends, 1):
        (tmp_path / f"{place}").write_text(f"echo \"{said.replace('`', chr(92) + '`')}\" >&2; exit {ended}\n")
    program = tmp_path / "program"
    program.write_text(f"#!/bin/bash\ncd '{tmp_path}'; echo >>runs; . ./$(wc -l <runs)\n")
    program.chmod(0o755)
    ran = subprocess.run([AGAIN, program], capture_output=True, text=True, timeout=30)
    assert ran.returncode == code
    assert len((tmp_path / "runs").read_text().splitlines()) == runs
    assert ("it runs once more" in ran.stdout) == (runs == 2)
