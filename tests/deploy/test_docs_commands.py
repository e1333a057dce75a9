"""The commands of README.md and docs/ are run as a reader runs them: the blocks of one document in order, in one shell, in a
folder that looks like the repository, with the binary, helm and kubectl on the PATH. Exit codes and the outputs that the text
shows are checked. What cannot be run here is marked in the document with its reason (doc_commands.py), is listed by -rs, and has
its flags looked up in the programs' own help. helm and kubectl talk to a stand-in for the API server.
"""
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
for folder in ("deploy", "helm", "e2e"):
    sys.path.insert(0, str(ROOT / "tests" / folder))
import doc_commands  # noqa: E402
import helm_binary  # noqa: E402

BINARY = Path(os.environ.get("RUNAHEAD_BINARY", ROOT / "build/release/runahead"))
MODELS = Path(os.environ.get("RUNAHEAD_MODEL_DIR", Path.home() / ".cache/runahead/models"))
STUB = ROOT / "tests/helm/k8s_api_stub.py"
NEEDS_KUBERNETES = {"kubernetes.md", "rdma.md"}
BESIDE = ["docs/kubernetes.md"]
DOCUMENT_SECONDS_MAX = 300  # a drill of a minute, and a machine that is three times as slow
PORTS = (7070, 7081, 7181, 8000)  # of the documents' commands

DOCUMENTS = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
BLOCKS = {document: doc_commands.blocks_of(document, (ROOT / document).read_text()) for document in DOCUMENTS}
SHELL = [block for blocks in BLOCKS.values() for block in blocks if block.kind == "shell"]
RUN = [document for document, blocks in BLOCKS.items() if any(b.kind == "shell" and not b.reason for b in blocks)]
INLINE = [(document, code) for document in DOCUMENTS
          for code in re.findall(r"`(runahead [a-z][^`\n]*)`", (ROOT / document).read_text())]


@functools.cache
def own_network():
    """Words before a command that give it a loopback of its own, so that the documents' ports are free; none where that is not
    allowed."""
    words = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if shutil.which("unshare") and shutil.which("ip"):
        if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
            return words
    for port in PORTS:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"the documents use port {port}, which is taken here, and there are no network namespaces")
    return []


def tools(folder):
    """runahead, helm and kubectl, as links in a folder of their own."""
    folder.mkdir()
    (folder / "runahead").symlink_to(BINARY.resolve())
    try:
        version = max(helm_binary.PACKAGES)
        (folder / "helm").symlink_to(helm_binary.get_helm(version))
        (folder / "kubectl").symlink_to(helm_binary.get_kubectl(version))
    except helm_binary.Unavailable as error:
        return str(error)
    return None


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tools") / "bin"
    missing = tools(folder)
    return folder, missing


def reader_folder(folder):
    """The repository as a reader has it: what a command may write into is a copy."""
    for entry in ROOT.iterdir():
        if entry.name in ("helm", "deploy"):
            shutil.copytree(entry, folder / entry.name)
        elif not entry.name.startswith(".") and entry.name != "build":
            (folder / entry.name).symlink_to(entry)
    (folder / "build/release").mkdir(parents=True)
    (folder / "build/release/runahead").symlink_to(BINARY.resolve())
    return folder


def script_of(blocks, kubernetes):
    """One shell for all blocks of a document; each says where it begins."""
    lines = ["set -eu -o pipefail"]
    if kubernetes:
        lines += [f'"{sys.executable}" "{STUB}" --kubeconfig "$KUBECONFIG" --state "$KUBECONFIG.state" >/dev/null 2>&1 &',
                  'until [[ -s $KUBECONFIG ]]; do sleep 0.05; done']
    for block in blocks:
        if block.kind == "file":
            lines += [f"cat >{block.name} <<'END_OF_THE_FILE'", block.text, "END_OF_THE_FILE"]
        elif block.kind == "shell" and not block.reason:
            lines += [f"echo '### {block}'; echo '### {block}' >&2", block.text]
    lines.append("echo '### end'")
    return "\n".join(lines) + "\n"


def run_script(script, folder, bin_folder):
    from own_cache import cache_of_its_own

    environment = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "HOME": str(folder), "LANG": "C.UTF-8",
                   "KUBECONFIG": str(folder / ".kubeconfig"), "PYTHON": sys.executable,
                   "RUNAHEAD_CACHE_DIR": cache_of_its_own(), "RUNAHEAD_MODEL_DIR": str(MODELS)}
    out, err = folder / ".out", folder / ".err"
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        process = subprocess.Popen([*own_network(), "bash", "-c", script], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                   stdout=stdout, stderr=stderr, start_new_session=True)
        try:
            code = process.wait(DOCUMENT_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            code = f"no end within {DOCUMENT_SECONDS_MAX} s"
        finally:  # a process group of our own: what the script left running ends with it
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
    return code, out.read_text(errors="replace"), err.read_text(errors="replace")


def output_by_block(text):
    parts = re.split(r"^### (\S+)\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def assert_prints(block, printed):
    at = 0
    lines = printed.splitlines()
    for wanted in filter(None, block.text.splitlines()):
        pattern = re.compile(r"\s*" + ".*".join(re.escape(part) for part in wanted.strip().split("...")))
        at = next((i + 1 for i in range(at, len(lines)) if pattern.match(lines[i])), None)
        assert at is not None, f"{block}: '{wanted}' is not printed; what is:\n{printed}"


@pytest.fixture(scope="module")
def outcomes(request, bin_folder, tmp_path_factory):
    """document -> what its script came to. The one that mostly waits runs beside the others, if it is asked for."""
    folder, _ = bin_folder

    def run(document):
        reader = reader_folder(tmp_path_factory.mktemp("reader"))
        return run_script(script_of(BLOCKS[document], Path(document).name in NEEDS_KUBERNETES), reader, folder)

    with ThreadPoolExecutor(max_workers=1) as pool:
        begun = {document: pool.submit(run, document) for document in BESIDE
                 if any(f"[{document}]" in item.name for item in request.session.items)}
        yield lambda document: begun[document].result() if document in begun else run(document)


@pytest.mark.skipif(not BINARY.exists(), reason=f"{BINARY} is not built")
@pytest.mark.skipif(not list(MODELS.glob("*.gguf")), reason=f"no model in {MODELS}")
@pytest.mark.parametrize("document", RUN)
def test_the_commands_of_a_document_do_what_it_says(document, bin_folder, outcomes):
    _, missing = bin_folder
    if Path(document).name in NEEDS_KUBERNETES and missing:
        pytest.skip(missing)
    code, out, err = outcomes(document)
    printed = output_by_block(out)
    assert code == 0 and "end" in printed, (
        f"{list(printed)[-1] if printed else document} ended with {code}:\n{''.join(list(printed.values())[-1:])[-3000:]}\n"
        f"{''.join(list(output_by_block(err).values())[-1:])[-3000:]}")
    last = None
    for block in BLOCKS[document]:
        if block.kind == "shell":
            last = block
        elif block.kind == "prints":
            assert_prints(block, printed[str(last)])


@pytest.mark.parametrize("block", [block for block in SHELL if block.reason], ids=str)
def test_not_run(block):
    pytest.skip(f"{block}: {block.reason}")


@functools.cache
def help_text(program, *words):
    done = subprocess.run([program, *words, "--help"], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def unknown_flags(words, folder):
    """Flags of a command of ours, of helm or of kubectl that its own help does not have."""
    program, *rest = words
    name = Path(program).name
    if name not in ("runahead", "helm", "kubectl") or not (folder / name).exists():
        return []
    if "--" in rest:
        rest = rest[:rest.index("--")]
    sub = [word for word in rest if re.fullmatch(r"[a-z][a-z-]*", word)]
    if name == "kubectl":
        while rest and rest[0] in ("-n", "--namespace"):
            rest, sub = rest[2:], [word for word in rest[2:] if re.fullmatch(r"[a-z][a-z-]*", word)]
        depth = 3 if sub[:2] == ["create", "secret"] else 2 if sub[:1] in (["create"], ["rollout"]) else 1
        text = help_text(str(folder / name), *sub[:depth]) + help_text(str(folder / name), "options")
    else:
        text = help_text(str(folder / name), *sub[:1])
    if not sub and not rest:
        return []
    flags = {word.split("=")[0] for word in rest if re.match(r"--?[a-zA-Z]", word)}
    return [flag for flag in sorted(flags - {"-h", "--help", "--version"})
            if not re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text)]


@pytest.mark.skipif(not BINARY.exists(), reason=f"{BINARY} is not built")
def test_every_flag_in_a_command_is_one_that_its_program_has(bin_folder):
    folder, _ = bin_folder
    texts = [(str(block), block.text) for block in SHELL] + INLINE
    found = [f"{place}: `{' '.join(words)}` has no {flag}" for place, text in texts for words in doc_commands.commands_in(text)
             for flag in unknown_flags(words, folder)]
    assert not found, "\n".join(found)


def test_a_flag_that_is_not_there_is_found(bin_folder):
    folder, _ = bin_folder
    commands = list(doc_commands.commands_in("x=1 runahead plan --tokens 5 --wrokers 2 | cat # --no\nrunahead doctor --url x &"))
    assert commands[0][:2] == ["runahead", "plan"] and commands[1] == ["cat"]
    if BINARY.exists():
        assert [unknown_flags(words, folder) for words in commands] == [["--wrokers"], [], []]


def test_marks_files_and_outputs_are_told_apart():
    text = ("    ls\n\n<!-- not run: no -->\n```bash\nrm x\n```\n<!-- file: a.yaml -->\n```yaml\na: 1\n```\n"
            "```text\nplain\n```\n<!-- prints -->\n```text\none ... three\n```\n")
    found = doc_commands.blocks_of("d.md", text)
    assert [(b.kind, b.text, b.reason, b.name) for b in found] == [
        ("shell", "ls", "", ""), ("shell", "rm x", "no", ""), ("file", "a: 1", "", "a.yaml"), ("prints", "one ... three", "", "")]
    assert_prints(found[-1], "zero\none two three\n")
    with pytest.raises(AssertionError, match="is not printed"):
        assert_prints(found[-1], "one two\n")
    with pytest.raises(AssertionError, match="says why"):
        doc_commands.blocks_of("d.md", "<!-- not run -->\n```bash\nx\n```\n")
