"""What is linked, compiled in and installed is in docs/dependencies.md, with its version and licence; the SPDX says the same."""
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy"))
import sbom  # noqa: E402

BUILT = (ROOT / "build/release/runahead").exists() and (ROOT / "build/release/build.ninja").exists()
needs_build = pytest.mark.skipif(not BUILT, reason="build/release/runahead is not built: run tests/run.sh build")


@pytest.fixture(scope="module")
def debian():
    return sbom.Debian()


@pytest.fixture(scope="module")
def in_use(debian):
    return sbom.used(debian, ROOT / "build/release/runahead", ROOT / "build/release")


@needs_build
def test_all_that_is_in_use_is_in_the_table_as_it_is(debian, in_use):
    assert list(sbom.faults(debian, *in_use)) == []


@needs_build
def test_what_the_table_does_not_have_or_tells_wrongly_is_named(debian, in_use, tmp_path, monkeypatch):
    text = sbom.TABLE.read_text()
    changed = re.sub(r"\| `pcre2` .*\n", "", text).replace("| `zlib` | 1.2.13 |", "| `zlib` | 1.2.1 |")
    changed = changed.replace("`License: BSD-2-clause`", "`License: WTFPL`").replace("| `ucx` |", "| `libucy` |")
    monkeypatch.setattr(sbom, "TABLE", tmp_path / "table.md")
    sbom.TABLE.write_text(changed)
    said = "\n".join(sbom.faults(debian, *in_use))
    for sentence in ("source package pcre2 is not in docs", "zlib is 1.2.13, docs/dependencies.md says 1.2.1",
                     "libxxhash0 does not say `License: WTFPL`", "source package ucx is not in docs",
                     "libucy is in docs/dependencies.md and not in use"):
        assert sentence in said, said


def test_a_library_of_no_package_is_named(debian, tmp_path):
    (tmp_path / "stray.c").write_text("int stray(void) { return 1; }\n")
    (tmp_path / "main.c").write_text("int stray(void);\nint main(void) { return stray(); }\n")
    library, program = tmp_path / "libstray.so", tmp_path / "main"
    subprocess.run(["gcc", "-shared", "-fPIC", tmp_path / "stray.c", "-o", library], check=True, timeout=60)
    subprocess.run(["gcc", tmp_path / "main.c", library, f"-Wl,-rpath,{tmp_path}", "-o", program], check=True, timeout=60)
    packages, nobodys = sbom.linked(debian, [program])
    assert packages == {"libc6"} and nobodys == [str(library)]


@needs_build
def test_the_spdx_names_every_package_once_and_refers_to_what_is_there(debian, in_use):
    spdx = json.loads(subprocess.run([sys.executable, ROOT / "deploy/sbom.py"], capture_output=True, text=True, timeout=120,
                                     check=True).stdout)
    assert spdx["spdxVersion"] == "SPDX-2.3" and spdx["dataLicense"] == "CC0-1.0"
    ids = [package["SPDXID"] for package in spdx["packages"]]
    assert len(ids) == len(set(ids)) and all(re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", name) for name in ids)
    for relationship in spdx["relationships"]:
        assert {relationship["spdxElementId"], relationship["relatedSpdxElement"]} <= {*ids, spdx["SPDXID"]}
    known = {word["licenseId"] for word in spdx["hasExtractedLicensingInfos"]}
    for package in spdx["packages"]:
        assert package["licenseDeclared"] != "NOASSERTION" and package["versionInfo"], package
        assert set(re.findall(r"LicenseRef-[\w.-]+", package["licenseDeclared"])) <= known
    assert {package["name"] for package in spdx["packages"]} >= set(in_use[0])
    libssl = next(package for package in spdx["packages"] if package["name"] == "libssl3")
    assert libssl["versionInfo"] == debian.packages["libssl3"]["version"]


@needs_build
def test_what_is_compiled_in_brings_its_copyright_file(tmp_path):
    subprocess.run([sys.executable, ROOT / "deploy/sbom.py", "--copyright", tmp_path], check=True, timeout=120)
    for source in ("boost1.81", "nlohmann-json3", "cli11"):
        assert "License: " in (tmp_path / source).read_text(errors="replace"), source


def test_an_image_has_every_package_of_its_root(tmp_path):
    """Of deploy/Dockerfile's last stage, from here: another root with two packages."""
    database = tmp_path / "var/lib/dpkg"
    (database / "info").mkdir(parents=True)
    (database / "status").write_text("".join(
        f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nMaintainer: x <x@example.org>\nVersion: {version}\n"
        f"Description: x\n\n" for name, version in (("bash", "5.2.15-2"), ("zlib1g", "1:1.2.13.dfsg-1"))))
    image = sbom.Debian(tmp_path)
    spdx = sbom.of_program(image, {"zlib1g": "linked"}, True)
    found = {package["name"]: package for package in spdx["packages"]}
    assert found["bash"]["licenseDeclared"] == "NOASSERTION" and found["bash"]["versionInfo"] == "5.2.15-2"
    kinds = {relationship["relatedSpdxElement"]: relationship["relationshipType"] for relationship in spdx["relationships"]}
    assert kinds["SPDXRef-zlib1g"] == "DYNAMIC_LINK" and kinds["SPDXRef-bash"] == "DEPENDS_ON"


def test_the_packages_of_the_tests_are_as_the_table_says():
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "tests/requirements.txt").read_text(), re.MULTILINE))
    rows = {row[0]: row[1:] for row in sbom.table("Of the tests")}
    assert {name: row[0] for name, row in rows.items()} == pinned
    if sys.prefix == sys.base_prefix:
        pytest.skip("no Python environment of the tests: tests/run.sh setup makes it")
    installed = sbom.wheels(sys.prefix)
    assert {name: installed[name.lower()][1] for name in rows} == {name: row[1] for name, row in rows.items()}
