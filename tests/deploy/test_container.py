"""The image and the compose file, without a container engine: what they name exists, and they agree with the chart.

No engine runs in the tests; the commands of deploy/Dockerfile are those of deploy/quickstart.sh (deploy/setup.sh).
"""
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / "build" / "release" / "runahead"
HELPERS = ROOT / "helm" / "runahead" / "templates" / "_helpers.tpl"
PACKAGES = [line.split() for line in (ROOT / "deploy/packages.txt").read_text().splitlines() if line and line[0] != "#"]
ROLES = ("coordinator", "prefill", "decode")


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())


def long_flags(text):
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


def chart_arguments():
    """role -> the flags that the chart's template gives it."""
    text = HELPERS.read_text()
    body = text[text.index('define "runahead.args"'):text.index('define "runahead.containerSecurity"')]
    shared, rest = body.split('{{- if eq .role "coordinator" }}')
    coordinator, worker = rest.split("{{- else }}")
    return {role: long_flags(shared) | long_flags(coordinator if role == "coordinator" else worker) for role in ROLES}


def test_compose_starts_the_roles_of_the_chart(compose):
    assert set(compose["services"]) == set(ROLES)
    for role, service in compose["services"].items():
        assert service["command"][0] == role


def test_compose_containers_have_no_more_rights_than_the_pods(compose):
    for service in compose["services"].values():
        assert service["cap_drop"] == ["ALL"] and service["read_only"] is True
        assert "no-new-privileges:true" in service["security_opt"] and not service.get("privileged")


def test_compose_publishes_the_api_on_loopback_only(compose):
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:8000:8000"]


def test_the_dockerfile_copies_what_exists():
    text = (ROOT / "deploy/Dockerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), f"COPY {source}"
    allowed = re.findall(r"^!(.*)$", (ROOT / "deploy/Dockerfile.dockerignore").read_text(), re.MULTILINE)
    needed = {"CMakeLists.txt", "CMakePresets.json", "cmake", "base", "deploy/setup.sh", "deploy/packages.txt"}
    subdirectories = re.findall(r"foreach\(folder ([\w ]+)\)", (ROOT / "CMakeLists.txt").read_text())
    assert needed | set(subdirectories[0].split()) <= set(allowed)


def test_the_image_runs_as_the_user_of_the_chart():
    text = (ROOT / "deploy/Dockerfile").read_text()
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["65532:65532"]
    ports = re.findall(r'define "runahead\.port\.\w+" -}}(\d+)', HELPERS.read_text())
    assert len(ports) == 4
    for port in ports:
        assert port in re.search(r"^EXPOSE (.*)$", text, re.MULTILINE)[1].split()


@pytest.mark.parametrize("role", ROLES)
def test_the_binary_knows_every_flag_that_starts_it(compose, role):
    if not BINARY.exists():
        pytest.skip("build/release/runahead is not built: run tests/run.sh build")
    done = subprocess.run([BINARY, role, "--help"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    quickstart = (ROOT / "deploy/quickstart.sh").read_text()
    started = "\n".join(re.findall(rf"^  start \S+ {role} .*$", quickstart, re.MULTILINE))
    assert started, "the quickstart starts this role"
    used = chart_arguments()[role] | long_flags(" ".join(compose["services"][role]["command"])) | long_flags(started)
    assert used <= long_flags(done.stdout), f"unknown to `runahead {role}`: {sorted(used - long_flags(done.stdout))}"


def test_the_packages_are_sorted_well_formed_and_without_doubles():
    assert PACKAGES == sorted(PACKAGES) and {group for group, _ in PACKAGES} == {"build", "run", "test"}
    assert len({tuple(line) for line in PACKAGES}) == len(PACKAGES)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", package) for _, package in PACKAGES)
