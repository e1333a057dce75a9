"""Schemathesis makes thousands of requests out of /openapi.json, right and wrong ones, and sends them to a running cluster: no
answer may be a fault of the server, have a status or a body that is not described, or accept what the description forbids."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import start_service

SECONDS = 30
# What is left out, and why: rules between fields (stream_options goes with stream) are more than a JSON schema says; DELETE of a
# job or a request cancels it, and it can be read on.
LEFT_OUT = "positive_data_acceptance,use_after_free"


def test_every_answer_is_as_it_is_described(tmp_path):
    pytest.importorskip("schemathesis")
    service = start_service("--job-store", str(tmp_path / "jobs.sqlite"), "--default-max-tokens", "16")
    try:
        command = [str(Path(sys.executable).with_name("st")), "run", service.url + "/openapi.json", "--max-time", str(SECONDS),
                   "--exclude-checks", LEFT_OUT, "--request-timeout", "20", "--warnings", "off", "--no-color",
                   "--seed", os.environ.get("RUNAHEAD_SCHEMATHESIS_SEED", "1")]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=4 * SECONDS, check=False)
        lines = [line[:300] for line in ran.stdout.splitlines()]
        assert ran.returncode == 0, "\n".join(lines[-200:]) + ran.stderr[-2000:]
        asked = int(next(line for line in lines if " generated" in line).split()[0])  # thousands, where nothing else runs
        assert asked > 100, "it had the time to ask"
        assert service.ready() and service.process.poll() is None
    finally:
        service.stop()
