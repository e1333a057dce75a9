"""tests/summary.py: no test is lost or counted twice, and nothing that went wrong counts as right."""
import subprocess
import sys
from pathlib import Path

SUMMARY = Path(__file__).resolve().parents[1] / "summary.py"


def summarize(root, files):
    stages = sorted({path.split("/")[0] for path in files})
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    command = [sys.executable, SUMMARY, root, *stages]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout.splitlines()


def suite(*cases):
    return "<testsuites><testsuite>" + "".join(cases) + "</testsuite></testsuites>"


def case(name, inner="", **attributes):
    extra = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return f'<testcase classname="Suite" name="{name}"{extra}>{inner}</testcase>'


def test_cases_of_googletest_count_not_their_program(tmp_path):
    code, lines = summarize(tmp_path, {
        "unit/gtest/base_tests.xml": suite(case("a"), case("b"), case("c", '<skipped message="no model file"/>')),
        "unit/ctest.xml": suite(case("base", status="run"), case("script", status="run")),
        "unit/exit_code": "0"})
    assert code == 0
    assert lines == ["skipped: [unit] Suite.c: no model file", "3 passed, 0 failed, 1 skipped"]


def test_a_failed_case_counts_once_and_is_named(tmp_path):
    code, lines = summarize(tmp_path, {
        "unit/gtest/base_tests.xml": suite(case("a"), case("b", '<failure message="1 is not 2"/>')),
        "unit/ctest.xml": suite(case("base", "<failure/>", status="fail")),
        "unit/exit_code": "8"})
    assert code == 1
    assert lines == ["FAILED: [unit] Suite.b: 1 is not 2", "1 passed, 1 failed, 0 skipped"]


def test_a_program_that_crashed_is_a_failure(tmp_path):
    code, lines = summarize(tmp_path, {
        "unit/gtest/base_tests.xml": suite(case("a")),
        "unit/ctest.xml": suite(case("base", '<failure message="Segmentation fault"/>', status="fail"),
                                case("model", '<failure message="Timeout"/>', status="fail")),
        "unit/exit_code": "8"})
    assert code == 1 and lines[-1] == "1 passed, 2 failed, 0 skipped"
    assert "FAILED: [unit] base: Segmentation fault" in lines


def test_a_program_that_died_is_told_with_its_last_words(tmp_path):
    words = "<system-out>all was well\nx.c:1 Assertion `a' failed\n 0 f(0x1)\n 1 ucs_fatal_error_format(0x2)</system-out>"
    code, lines = summarize(tmp_path, {
        "unit/ctest.xml": suite(case("base", '<failure message=""/>' + words, status="fail"),
                                case("model", '<failure message=""/><system-out>the end</system-out>', status="fail")),
        "unit/exit_code": "8"})
    assert code == 1
    assert lines[:2] == ["FAILED: [unit] base: it died: x.c:1 Assertion `a' failed", "FAILED: [unit] model: it died: the end"]


def test_what_a_sanitizer_reported_is_told_with_its_places(tmp_path):
    report = """==7==ERROR: AddressSanitizer: heap-use-after-free on address 0x60 at pc 0x1
    #0 0x1 in __asan_memcpy (tests/transport/transport_tests+0x1)
    #1 0x2 in runahead::take(int) /src/transport/kv/lane.cc:12:3
freed by thread T0 here:
    #0 0x3 in runahead::Lane::close() /src/transport/kv/lane.h:7
==7==ABORTING"""
    _, lines = summarize(tmp_path, {
        "asan/ctest.xml": suite(case("transport", f'<failure message=""/><system-out>{report}</system-out>', status="fail")),
        "asan/exit_code": "8"})
    assert lines[0] == ("FAILED: [asan] transport: it died: AddressSanitizer: heap-use-after-free on address 0x60 at pc 0x1, "
                        "lane.cc:12:3, lane.h:7")


def test_a_stage_that_ran_out_of_time_is_a_failure(tmp_path):
    code, lines = summarize(tmp_path, {"e2e/exit_code": "124", "sim/results.txt": "passed sim/seeds\n",
                                       "sim/exit_code": "0"})
    assert code == 1
    assert lines == ["FAILED: [e2e] stage e2e: it ran past its time limit", "1 passed, 1 failed, 0 skipped"]


def test_a_stage_that_left_nothing_is_a_failure(tmp_path):
    code, lines = summarize(tmp_path, {"unit/ctest.xml": "<testsuites>"})
    assert code == 1 and lines[-1] == "0 passed, 1 failed, 0 skipped"


def test_reasons_with_colons_stay_whole(tmp_path):
    _, lines = summarize(tmp_path, {"fuzz/results.txt": "skipped fuzz: clang: none\nfailed fuzz/frame: ERROR: heap\n",
                                    "fuzz/exit_code": "1"})
    assert lines == ["skipped: [fuzz] fuzz: clang: none", "FAILED: [fuzz] fuzz/frame: ERROR: heap",
                     "0 passed, 1 failed, 1 skipped"]
