"""The flags of cmake/hardening.cmake, read in what was built; and that the reader sees each one that is missing."""
import json
import os
import subprocess
from pathlib import Path

import pytest

from elf_hardening import Elf, missing

ROOT = Path(__file__).resolve().parents[2]
RELEASE = ROOT / "build" / "release"
BINARY = Path(os.environ.get("RUNAHEAD_BINARY", RELEASE / "runahead"))

# A program that has all, from a source with an array, a copy of a length that the compiler does not know, and a call through a
# pointer.
SOURCE = """
#include <stdio.h>
#include <string.h>
int main(int count, char** words) {
  char copy[16];
  int (*print)(const char*) = count > 5 ? puts : (int (*)(const char*))remove;
  memcpy(copy, words[0], strlen(words[0]) + 1);
  return print(copy);
}
"""
COMPILE = ["-O2", "-g1", "-fPIE", "-fstack-protector-strong", "-fstack-clash-protection", "-fcf-protection=full",
           "-D_FORTIFY_SOURCE=3"]
LINK = ["-pie", "-Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code"]
WEAKENED = {  # what is added: what is missed then
    "-fno-stack-protector": "a stack protector",
    "-fno-stack-clash-protection": "-fstack-clash-protection",
    "-fcf-protection=none": "-fcf-protection=full",
    "-U_FORTIFY_SOURCE": "checked copies",
    "-g0": "debug information",
    "-no-pie": "PIE",
    "-Wl,-z,lazy": "BIND_NOW",
    "-Wl,-z,norelro": "RELRO",
    "-Wl,-z,execstack": "a stack that cannot be executed",
    "-Wl,-z,noseparate-code": "a segment of code without data",
    "-Wl,-rpath,/tmp": "no RPATH",
}


def built():
    ours = [BINARY, *RELEASE.glob("tests/support/**/librunahead_*.so"), *(ROOT / "build/cuda").glob("librunahead_*.so")]
    return [path for path in ours if path.exists()]


def compiled(folder, *more):
    source, program = folder / "main.c", folder / "main"
    source.write_text(SOURCE)
    subprocess.run(["gcc", *COMPILE, source, "-o", program, *LINK, *more], check=True, timeout=60)
    return missing(program)


def test_a_program_with_all_of_them_lacks_nothing(tmp_path):
    assert compiled(tmp_path) == []


@pytest.mark.parametrize("flag", WEAKENED)
def test_what_is_missing_is_seen(tmp_path, flag):
    if "cf-protection" in flag and os.uname().machine != "x86_64":
        pytest.skip("ENDBR64 is x86's")
    found = compiled(tmp_path, flag)
    assert any(word.startswith(WEAKENED[flag]) for word in found), found


def test_code_that_can_be_written_is_seen(tmp_path):
    assert compiled(tmp_path) == []
    program = tmp_path / "main"
    changed, header, size = bytearray(program.read_bytes()), 64, 56
    while changed[header:header + 8] != bytes([1, 0, 0, 0, 5, 0, 0, 0]):  # a LOAD that is read and executed
        header += size
    changed[header + 4] = 7
    program.write_bytes(changed)
    assert missing(program) == ["code that cannot be written"]


@pytest.mark.skipif(not BINARY.exists(), reason="build/release/runahead is not built: run tests/run.sh build")
def test_everything_that_we_build_is_hardened():
    assert {str(path): missing(path) for path in built() if missing(path)} == {}


@pytest.mark.skipif(not BINARY.exists(), reason="build/release/runahead is not built: run tests/run.sh build")
def test_every_source_is_compiled_with_checked_copies_and_indices():
    """What the debug information does not say: macros."""
    commands = RELEASE / "compile_commands.json"
    if not commands.exists():
        pytest.skip(f"{commands} is not there: configured elsewhere")
    for entry in json.loads(commands.read_text()):
        words = entry["command"].split()
        assert {"-D_FORTIFY_SOURCE=3", "-D_GLIBCXX_ASSERTIONS"} <= set(words), entry["file"]


@pytest.mark.skipif(not BINARY.exists(), reason="build/release/runahead is not built: run tests/run.sh build")
def test_the_debug_information_names_every_part():
    """Or the flags of a source without any would not be seen: each library of ours is among the sources."""
    names = Elf(BINARY).section(".debug_line_str") + Elf(BINARY).section(".debug_str")
    for folder in ("base", "kernels", "model", "planner", "proto", "transport", "actors", "services"):
        assert f"/{folder}".encode() in names, folder
