"""What the documentation says of files is true: links stay in the repository, commands name what is there, and what a
command needs is built by the step before it. `cmake --install` puts a binary that runs where it says."""
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILT_BY_THE_QUICKSTART = {"build/release/runahead"}
FILE = re.compile(r"(?<![\w./~$-])((?:\.?[\w-]+/)+[\w-]+(?:\.[\w-]+)+|(?:deploy|tests|bench|helm|build)/[\w./-]+)")


def documents():
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return sorted(set(listed.split()) or {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md")})


def outside(root, document):
    """Links and named files of a document that are not in the repository."""
    text = (root / document).read_text()
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    links = [link for link in links if link and not re.match(r"https?:|mailto:", link)]
    named = re.findall(r"`((?:[\w-]+/)+[\w.-]+\.(?:md|cc|h|py|sh|proto|ya?ml|cmake|txt))`", text)
    for link in links + named:
        homes = [root / Path(document).parent, root] if link in named else [root / Path(document).parent]
        paths = [Path(os.path.normpath(home / link)) for home in homes]
        if not any(path.exists() and path.is_relative_to(root) for path in paths):
            yield link


@pytest.mark.parametrize("document", documents())
def test_every_link_stays_in_the_repository(document):
    assert not list(outside(ROOT, document))


def test_a_link_that_leads_out_is_found(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("x")
    (tmp_path.parent / "beside.md").write_text("x")
    (tmp_path / "docs/a.md").write_text("[in](../README.md) [out](../../beside.md) [gone](b.md) `reference/paper.md` 2 "
                                        "[web](https://example.org/x) `docs/a.md`")
    assert list(outside(tmp_path, "docs/a.md")) == ["../../beside.md", "b.md", "reference/paper.md"]


def commands(document):
    text = (ROOT / document).read_text()
    blocks = re.findall(r"^    (.*)$", text, re.M) + re.findall(r"`([^`\n]+)`", text)
    return [re.sub(r"ninja -C (\S+)[^&]*", r"ninja -C \1 ", command.split("#")[0]) for command in blocks]  # less targets


@pytest.mark.parametrize("document", ["README.md", "docs/HACKING.md"])
def test_every_file_in_a_command_is_there_or_built_by_a_step_that_is_named(document):
    all_commands = commands(document)
    builds_tests = [i for i, command in enumerate(all_commands) if "cmake --build --preset release" in command]
    for i, command in enumerate(all_commands):
        for name in FILE.findall(command):
            if name.startswith("build/"):
                built = name in BUILT_BY_THE_QUICKSTART or (builds_tests and i > builds_tests[0]) or \
                    f"ninja -C {'/'.join(name.split('/')[:2])}" in command or name.rstrip("/") in ("build/release",)
                assert built, f"{document}: nothing before `{command}` builds {name}"
            elif not re.match(r"Q4|v1/|[\w-]+\.(org|com)", name):
                assert (ROOT / name).exists(), f"{document}: `{command}` names {name}"


def test_what_the_readme_calls_the_binary_is_what_the_quickstart_builds():
    assert "setup_build release runahead" in (ROOT / "deploy/quickstart.sh").read_text()
    assert "BINARY=$ROOT/build/release/runahead" in (ROOT / "deploy/quickstart.sh").read_text()


def test_install_puts_a_binary_that_runs_its_documents_and_a_completion(tmp_path):
    build = ROOT / "build/release"
    if not (build / "runahead").exists():
        pytest.skip(f"{build}/runahead is not built")
    subprocess.run(["cmake", "--install", str(build), "--prefix", str(tmp_path)], check=True, capture_output=True)
    binary = tmp_path / "bin/runahead"
    version = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True, cwd="/").stdout
    assert re.fullmatch(r"runahead \d+\.\d+\.\d+\S*\n", version)
    documents_folder = tmp_path / "share/doc/runahead"
    assert (documents_folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert (documents_folder / "docs/operations.md").exists()
    completion = tmp_path / "share/bash-completion/completions/runahead"
    script = f'''source {completion}
        COMP_WORDS=({binary} ""); COMP_CWORD=1; _runahead; echo "${{COMPREPLY[@]}}"
        COMP_WORDS=({binary} run --work); COMP_CWORD=2; _runahead; echo "${{COMPREPLY[@]}}"'''
    offered = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    for made in ("zsh/site-functions/_runahead", "fish/vendor_completions.d/runahead.fish", "man/man1/runahead.1"):
        assert "--kv-memory-mib" in (tmp_path / "share" / made).read_text().replace("\\-", "-") or "fish" in made, made
    assert {"run", "serve", "plan"} <= set(offered[0].split()) and offered[1] == "--workers"
