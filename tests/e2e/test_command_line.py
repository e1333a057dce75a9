"""What every command has in common: help, versions, flags and their ranges, exit codes, one JSON object, one sentence."""

import json
import os
import re
import subprocess

import pytest

from cli import BINARY, COMMANDS, NO_MODEL, NOT_BUILT, ROOT, flags_of, help_of, refused, runahead

pytestmark = NOT_BUILT
PRODUCT = ["base", "kernels", "planner", "model", "transport", "actors", "services"]
HIDDEN = {"--announce-fd", "--progress", "--sharers"}  # how a local cluster starts its children


def options_of(command):
    """(flag, kind or None, its help on one line) of every option, as help prints them."""
    entries = re.sub(r"\n {10,}", "  ", help_of(command)).splitlines()
    for entry in entries:
        match = re.match(r"  (?:-\w,)?(--[a-z-]+)\S*(?: (INT|UINT|FLOAT|TEXT)\b)?(.*)", entry)
        if match:
            yield match.groups()


def test_help_lists_every_command_and_goes_to_stdout():
    for words in (["--help"], ["-h"], ["help"]):
        done = runahead(*words)
        assert done.returncode == 0 and done.stderr == ""
        assert all(re.search(rf"^  {command} ", done.stdout, re.M) for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_names_the_program_and_every_default(command):
    text = help_of(command)
    assert text == runahead("help", command).stdout
    assert f"Usage: runahead {command} " in text
    found = list(options_of(command))
    assert len(found) >= 5
    for flag, kind, rest in found:
        if kind is not None:
            says = re.search(r"=\S|REQUIRED|default|without", rest)
            assert says, f"{flag} does not say its default: {rest}"


@pytest.mark.parametrize("words", [["--version"], ["-V"], ["version"], ["run", "--version"]], ids=" ".join)
def test_version(words):
    done = runahead(*words)
    assert done.returncode == 0
    assert re.fullmatch(r"runahead \d+\.\d+\.\d+\S*\n", done.stdout)


def test_no_command_prints_the_help_where_it_does_not_count_as_data():
    done = runahead()
    assert done.returncode == 2 and done.stdout == "" and "Usage: runahead" in done.stderr


@pytest.mark.parametrize("words, says", [
    (["rum"], "did you mean 'run'"),
    (["help", "rum"], "did you mean 'run'"),
    (["--workrs", "2"], "'--workrs'"),
    (["run", "--workrs", "2", "-p", "x"], "did you mean '--workers'"),
    (["run", "-p", "x", "extra"], "'extra'"),
    (["run", "-p", "x", "--", "--foo"], "'--foo'"),
    (["run", "-p", "x", "--workers", "0"], "1 to 63"),
    (["run", "-p", "x", "--workers", "1000"], "1 to 63"),
    (["run", "-p", "x", "--workers", "1", "--workers", "2"], "--workers is given more than once"),
    (["run", "-p", "x", "--cuts", "64", "--strategy", "even"], "does not go with --"),
    (["run", "-p", "x", "--max-tokens", "0"], "--max-tokens"),
    (["run", "-p", "x", "--max-tokens", "-1"], "--max-tokens"),
    (["run", "-p", "x", "--strategy", "searched"], "needs a table of cuts"),
    (["run", "-p", "x", "--strategy", "fastest"], "use auto, balanced, even, single, searched or predicted"),
    (["plan", "--strategy", "predicted"], "needs --table"),
    (["plan", "--tokens", "64,128"], "give one length"),
    (["plan", "serach"], "there are plan search and plan profile"),
    (["plan", "--tokens", "10000000"], "--simulate plans them all the same"),
    (["plan", "--workers", "65"], "a cluster has at most 64"),
    (["plan", "--seconds-per-token", "-1"], "--seconds-per-token"),
    (["plan", "--seconds-per-token", "5e-324"], "--seconds-per-token"),
    (["plan", "--cuts", "63"], "multiple of 64"),
    (["run", "-p", "x", "--compute", "fp17"], "fp32"),
    (["prefill", "--compute", "fp17"], "fp32"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_wrong_flag_is_exit_code_2(words, says):
    assert says in refused(2, *words)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_number_has_a_range(command):
    numeric = [flag for flag, kind, _ in options_of(command) if kind in ("INT", "UINT", "FLOAT")]
    assert numeric or command in ("coordinator", "doctor", "tokenize", "status", "cancel", "logs", "trace", "config",
                                  "completion", "man")
    for flag in numeric:
        for value in ("nan", "inf", "-7", "1e999", "99999999999999999999", "", "x"):
            sentence = refused(2, command, f"{flag}={value}")
            assert flag in sentence or "for each" in sentence, f"{flag}={value}: {sentence}"


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in ("bench", *NO_MODEL)])
def test_a_missing_and_a_wrong_model_are_exit_code_3_in_every_command(command, tmp_path):
    (tmp_path / "ids.json").write_text("[1, 2]")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 64)
    inputs = {"run": ["-p", "x"], "logits": ["--token-ids-file", str(tmp_path / "ids.json")],
              "perplexity": ["--file", str(tmp_path / "ids.json")], "tokenize": ["--file", str(tmp_path / "ids.json")],
              "serve": ["--http", "127.0.0.1:0"], "doctor": ["--ports", "127.0.0.1:0"],
              "coordinator": ["--http", "127.0.0.1:0", "--listen", "127.0.0.1:0"]}.get(command, [])
    for model in (str(tmp_path / "missing.gguf"), str(tmp_path / "broken.gguf"), str(tmp_path)):
        done = runahead(command, "--model", model, *inputs)
        assert done.returncode == 3, done.stderr
        said = done.stderr + (done.stdout if command == "doctor" else "")
        assert sum(model in line for line in said.splitlines()) == 1, f"once: {said}"


def test_the_cache_folder_moves_the_models_too(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "RUNAHEAD_MODEL_DIR"}
    sentence = refused(3, "tokenize", "--file", "/dev/null", env={**environment, "RUNAHEAD_CACHE_DIR": str(tmp_path)})
    assert str(tmp_path / "models") in sentence
    script = f"source {ROOT}/deploy/setup.sh; echo $RUNAHEAD_MODEL_DIR"
    by_setup = subprocess.run(["bash", "-c", script], env={**environment, "RUNAHEAD_CACHE_DIR": str(tmp_path)},
                              capture_output=True, text=True, check=True).stdout.strip()
    assert by_setup == str(tmp_path / "models")


def test_flags_that_messages_name_exist():
    """In the text of the sources; which of them the command at hand has is checked wherever `refused` is used."""
    known = set().union(*(flags_of(command) for command in COMMANDS)) | HIDDEN | {"--help", "--version"}
    for folder in PRODUCT:
        for path in sorted((ROOT / folder).rglob("*.cc")):
            for literal in re.findall(r'"((?:[^"\\\n]|\\.)*)"', path.read_text()):
                for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+(?![\w-])", literal):
                    assert flag in known, f"{path.relative_to(ROOT)} names {flag}, which no command has"


@pytest.mark.parametrize("words", [
    ["run", "--workrs", "2"],
    ["run", "-p", "x", "--model", "/nonexistent.gguf"],
    ["plan", "--tokens", "0"],
    ["doctor", "--model", "/nonexistent.gguf", "--ports", "127.0.0.1:0"],
], ids=" ".join)
def test_json_output_is_one_object_also_for_an_error(words):
    done = runahead(*words, "-o", "json")
    assert done.returncode in (2, 3)
    answer = json.loads(done.stdout)
    if words[0] == "doctor":
        assert answer["ok"] is False
    else:
        assert answer["error"]["message"] in done.stderr and answer["error"]["code"]


def test_an_output_that_cannot_be_written_is_an_error():
    with open("/dev/full", "wb") as full:
        for words in (["--version"], ["run", "--help"], ["plan", "--seconds-per-token", "1", "--seconds-per-pair", "1"]):
            done = subprocess.run([BINARY, *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
            assert done.returncode == 1 and "No space left" in done.stderr, words


def test_a_closed_stdout_is_an_error_and_no_other_file_takes_its_place():
    done = subprocess.run(["bash", "-c", f"{BINARY} plan --seconds-per-token 1 --seconds-per-pair 1 >&-"],
                          stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and "cannot be written" in done.stderr


def test_a_slip_in_a_variable_is_warned_of_and_an_empty_one_is_not_set():
    plan = ["plan", "--seconds-per-token", "1", "--seconds-per-pair", "1"]
    done = runahead(*plan, env={**os.environ, "RUNAHEAD_WORKRS": "3", "RUNAHEAD_TOKENS": "",
                                "RUNAHEAD_COORDINATOR_SERVICE_HOST": "10.0.0.1"})
    assert done.returncode == 0
    assert done.stderr.count("did you mean RUNAHEAD_WORKERS?") == 1 and "SERVICE_HOST" not in done.stderr
    assert "RUNAHEAD_WORKERS" in runahead(*plan, env={**os.environ, "RUNAHEAD_WORKERS": "three"}).stderr


def test_a_key_of_the_configuration_that_is_unknown_is_refused_with_a_suggestion(tmp_path):
    config = tmp_path / "runahead.yaml"
    config.write_text("thread: 2\n")
    assert "did you mean 'threads'" in refused(3, "prefill", "--config", str(config))
    config.write_bytes(b"caf\xe9: 2\n")
    assert "unknown key" in refused(3, "prefill", "--config", str(config))
    assert "configuration file" in refused(3, "prefill", "--config", str(tmp_path))


def test_the_plan_says_its_premises_and_measures_once(tmp_path):
    environment = {**os.environ, "RUNAHEAD_CACHE_DIR": str(tmp_path)}
    environment.setdefault("RUNAHEAD_MODEL_DIR", os.path.expanduser("~/.cache/runahead/models"))
    plan = ["plan", "--tokens", "1024", "--packed-cache", "off", "-o", "json"]
    first = json.loads(runahead(*plan, env=environment).stdout)
    kept = json.loads((tmp_path / "engine-profiles.json").read_text())
    assert "now" in first["premises"]["speed"] and "engine-profiles.json" in first["premises"]["speed"]
    (profile,) = kept["profiles"].values()
    assert first["premises"]["seconds_per_token"] == profile["seconds_per_token"] > 0
    profile["seconds_per_token"] = 0.5  # no machine is this slow
    (tmp_path / "engine-profiles.json").write_text(json.dumps(kept))
    again = json.loads(runahead(*plan, env=environment).stdout)
    assert again["premises"]["seconds_per_token"] == 0.5 and "before" in again["premises"]["speed"]
    assert again["premises"]["link_gigabytes_per_second"] > 0
    far = json.loads(runahead("plan", "--simulate", "--tokens", "10000000", "--workers", "512", "--links", "8", "--stalls",
                              "0.05", "--gigabytes-per-second", "50", "--packed-cache", "off", "-o", "json",
                              env=environment).stdout)
    assert far["ranks"][-1]["end"] == 10_000_000 and len(far["ranks"]) > 256
    assert far["predicted_ttft_seconds"] <= far["jitter"]["median_ttft_seconds"] <= far["jitter"]["p95_ttft_seconds"]
    assert again["jitter"] is None
    text = runahead(*plan[:-2], "--seconds-per-token", "1", "--seconds-per-pair", "1", env=environment).stdout
    assert "premises: 2 equal workers" in text and "as given" in text
