"""deploy/runahead_gdb.py in a real gdb, over a small program that holds our types."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = r'''
#include "base/ids.h"
#include "base/result.h"
#include "base/token_range.h"
#include "model/kv_pages.h"

using namespace runahead;

void stop_here() { asm volatile(""); }

int main() {
  Result<int> good = 7;
  Result<int> bad = fail(ErrorCode::kNotFound, "there is no such file", "model");
  Result<void> fine;
  AttemptId attempt{3, 41, 2};
  TokenRange chunk{64, 128};
  KvPool pool(4096, 100);
  std::shared_ptr<KvLease> lease = *pool.lease(3, 130);
  std::shared_ptr<KvLease> kept = pool.share(**pool.lease(3, 64), 1);
  std::shared_ptr<KvLease> behind = *pool.lease_behind(kept, whole_lease(3, 130, 1));
  lease->mark_quarantined();
  stop_here();
}
'''
SHOWN = {
    "good": "ok: 7",
    "bad": 'failed: kNotFound "there is no such file" (model)',
    "fine": "ok",
    "attempt": "attempt 41.2 of epoch 3",
    "chunk": "[64, 128)",
    "pool": "KvPool 100 pages of 4096 bytes: 82 free, 0 kept, 9 leased, 9 quarantined",
    "*lease._M_ptr": "KvLease 3 layers x 3 pages",
    "*behind._M_ptr": "KvLease 3 layers x 3 pages, 1 shared",
}


def test_our_types_are_shown_as_what_they_mean(tmp_path):
    if not shutil.which("gdb") or not shutil.which("g++"):
        pytest.skip("gdb or g++ is not installed")
    source, program = tmp_path / "types.cc", tmp_path / "types"
    source.write_text(PROGRAM)
    sources = ("model/kv_pages.cc", "model/lease_shape.cc", "base/memory.cc", "base/check.cc", "base/error_code.cc",
               "base/crc32c.cc")
    build = subprocess.run(
        ["g++", "-std=gnu++23", "-g", "-O0", "-msse4.2", "-ffunction-sections", "-Wl,--gc-sections", "-I", ROOT, source,
         *(ROOT / path for path in sources), "-o", program], capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stderr
    commands = ["set debuginfod enabled off", f"source {ROOT}/deploy/runahead_gdb.py", "break stop_here", "run", "up",
                *(f"print {name}" for name in SHOWN)]
    done = subprocess.run(["gdb", "-nx", "-batch", *(word for line in commands for word in ("-ex", line)), program],
                          capture_output=True, text=True, timeout=60, check=False)
    shown = [line.split(" = ", 1)[1] for line in done.stdout.splitlines() if line.startswith("$")]
    if not shown and "ptrace" in done.stdout + done.stderr:
        pytest.skip("gdb may not trace here: " + done.stderr.strip()[-200:])
    assert shown == list(SHOWN.values()), done.stdout + done.stderr
