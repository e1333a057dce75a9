"""The command line describes itself: effective values with their origin, completions that shells really use, the manual."""

import json
import os
import re
import shutil
import subprocess

import pytest
import yaml

from cli import BINARY, COMMANDS, NOT_BUILT, ROOT, help_of, refused, runahead

pytestmark = NOT_BUILT


def listed(command):
    """The first name of each flag; help of the program's own `--version` is not a command's."""
    return set(re.findall(r"^  (?:-\w,)?(--[a-z][a-z-]*)", help_of(command), re.M)) - {"--version"}


def shown(*words, **variables):
    done = runahead("config", *words, "-o", "json", env={**os.environ, **variables})
    assert done.returncode == 0, done.stderr
    return {value["key"]: (value["value"], value["origin"], value["where"])
            for value in json.loads(done.stdout)["values"]}


def test_each_value_has_the_origin_that_wins(tmp_path):
    config = tmp_path / "cluster.yaml"
    config.write_text("threads: 2\nmodel: top\nname: everywhere\nprefill:\n  model: section\n  threads: 4\n")
    values = shown("prefill", "--config", str(config), "--kv-memory-mib", "64", "--threads", "7",
                   RUNAHEAD_THREADS="5", RUNAHEAD_NAME="mine")
    assert values["threads"] == ("7", "flag", "--threads")
    assert values["name"] == ("mine", "environment", "RUNAHEAD_NAME")
    assert values["model"] == ("section", "file", f"{config}:5")
    assert values["transport"] == ("auto", "default", "")
    assert shown("decode", "--config", str(config))["threads"] == ("2", "file", f"{config}:1")
    assert shown("prefill", "--config", str(config), RUNAHEAD_THREADS="5")["threads"][:2] == ("5", "environment")


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_shown_is_a_file_that_gives_the_same_values(command, tmp_path):
    first = runahead("config", command, env={**os.environ, "RUNAHEAD_LOG_LEVEL": "warn"})
    assert first.returncode == 0, first.stderr
    config = tmp_path / "shown.yaml"
    config.write_text(first.stdout)
    assert yaml.safe_load(first.stdout)[command]["log-level"] == "warn"
    again = runahead("config", command, "--config", str(config))
    assert again.returncode == 0, again.stderr
    values = [[line.rsplit("  # ", 1)[0].rstrip() for line in done.stdout.splitlines()] for done in (first, again)]
    assert values[0] == values[1]


def test_a_secret_is_never_shown():
    for form in ([], ["-o", "json"]):
        done = runahead("config", "status", *form, env={**os.environ, "RUNAHEAD_API_KEY": "sk-very-secret"})
        assert done.returncode == 0 and "sk-very" not in done.stdout + done.stderr and "RUNAHEAD_API_KEY" in done.stdout


def test_what_config_cannot_show_is_refused(tmp_path):
    assert "did you mean 'status'" in refused(2, "config", "statis")
    assert "name the command" in refused(2, "config")
    assert "--threads" in refused(2, "config", "prefill", "--threads", "-1")
    config = tmp_path / "slip.yaml"
    config.write_text("log-level: warn\nstatus:\n  threads: 2\n")
    assert f"{config}:3: unknown key 'threads'" in refused(3, "config", "status", "--config", str(config))
    config.write_text("prefil: {threads: 2}\n")
    assert "did you mean 'prefill'" in refused(3, "config", "prefill", "--config", str(config))


def bash_completes(tmp_path, *words):
    script = tmp_path / "runahead.bash"
    script.write_text(runahead("completion", "bash").stdout)
    quoted = " ".join(f"'{word}'" for word in words)
    asked = f"source {script}; "
    asked += f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _runahead; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]})
    return set(done.stdout.split())


def test_bash_completes_commands_flags_and_values(tmp_path):
    assert set(COMMANDS) <= bash_completes(tmp_path, "runahead", "")
    assert bash_completes(tmp_path, "runahead", "com") == {"completion"}
    for command in COMMANDS:
        assert bash_completes(tmp_path, "runahead", command, "--") == listed(command), command
    assert bash_completes(tmp_path, "runahead", "run", "--output", "") == {"text", "json"}
    assert bash_completes(tmp_path, "runahead", "run", "--output", "=", "j") == {"json"}
    assert bash_completes(tmp_path, "runahead", "completion", "") == {"bash", "zsh", "fish"}
    assert bash_completes(tmp_path, "runahead", "config", "pre") == {"prefill"}
    assert bash_completes(tmp_path, "runahead", "config", "prefill", "--thr") == {"--threads"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_reads_its_script(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    script = tmp_path / "script"
    script.write_text(runahead("completion", shell).stdout)
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == ""
    if shell == "fish":
        asked = f"source {script}; complete -C 'runahead run --work'; complete -C 'runahead to'"
        offered = subprocess.run(["fish", "-c", asked], capture_output=True, text=True, check=True).stdout
        assert {line.split("\t")[0] for line in offered.splitlines()} == {"--workers", "tokenize", "top"}


def test_the_manual_has_every_command_flag_and_exit_code_and_groff_finds_nothing_wrong(tmp_path):
    page = tmp_path / "runahead.1"
    page.write_text(runahead("man").stdout)
    if shutil.which("groff") is None:
        pytest.skip("no groff here")
    done = subprocess.run(["groff", "-man", "-Tascii", "-ww", "-P-cbou", str(page)], capture_output=True, text=True,
                          check=True)
    assert done.stderr == ""
    sections = re.split(r"^   runahead (\S+)$", done.stdout, flags=re.M)
    texts = dict(zip(sections[1::2], sections[2::2]))
    assert list(texts) == COMMANDS or set(texts) == set(COMMANDS)
    for command in COMMANDS:
        for flag in listed(command):
            assert flag in texts[command] or flag in sections[0], f"{command} {flag}"


def test_exit_codes_are_the_same_in_help_manual_and_documentation():
    said = {int(code) for code in re.findall(r"^  (\d+) +\S", runahead("--help").stdout.split("Exit codes")[1], re.M)}
    rows = (ROOT / "docs/operations.md").read_text().split("## Exit codes")[1].split("\n## ")[0]
    manual = runahead("man").stdout.split(".SH EXIT STATUS")[1].split(".SH")[0]
    assert said == {int(code) for code in re.findall(r"^\| (\d+) \|", rows, re.M)}
    assert said == {int(code) for code in re.findall(r"^\.B (\d+)$", manual, re.M)} >= {0, 1, 2, 3, 4, 5, 124, 130}
    assert "Exit codes" in help_of("run")
    assert subprocess.run([BINARY], capture_output=True, check=False).returncode == 2
