"""tests/gpu.sh with programs that only say how they end: what becomes of each check."""
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_each_check_ends_alone_and_leaves_a_line(tmp_path):
    tests = tmp_path / "build/tests"
    script(tests / "kernels/kernels_tests", "exit 0")
    script(tests / "model/model_tests", 'echo "a kernel is wrong with $RUNAHEAD_TEST_CUDA_LIBRARY"; exit 1')
    script(tests / "services/services_tests", 'echo "$@"')
    script(tmp_path / "bin/python", "exit 0")
    script(tmp_path / "bin/compute-sanitizer", 'case "$*" in *racecheck*) echo "Device not supported"; exit 1;; esac')
    (tmp_path / "library.so").touch()
    done = subprocess.run([ROOT / "tests/gpu.sh", "checks", tmp_path / "build", tmp_path / "library.so", tmp_path / "results"],
                          capture_output=True, text=True, timeout=60, check=False,
                          env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                               "PYTHON": tmp_path / "bin/python"})
    assert done.returncode == 1, done.stderr
    lines = (tmp_path / "results/results.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "passed CudaOps", "failed CudaTransformer", "passed CudaLibrary", "passed command line", "passed memcheck",
        "skipped racecheck"]
    assert f"a kernel is wrong with {tmp_path / 'library.so'}" in done.stdout
    assert "--gtest_filter=CudaLibrary.*" in (tmp_path / "results/checks.log").read_text()
