#!/usr/bin/env python3
"""What the program and its image consist of, as SPDX 2.3 in JSON, of what is really linked, compiled in and installed.

    deploy/sbom.py                        of build/release/runahead, to stdout
    deploy/sbom.py --image / --out FILE   and of every package of the image's root (deploy/Dockerfile)
    deploy/sbom.py --tests VENV           of the Python packages of the tests, which are in no image
    deploy/sbom.py --copyright DIR        copies the copyright files of what is compiled in, which has no package in the image
    deploy/sbom.py --check                names what is in use and not in docs/dependencies.md, or not as it says there

Three ways in, each looked up where it is true: `ldd` and dpkg for libraries, UCX's plugins included; ninja's record of the
headers that each object of the program was made from; dpkg's dependencies of the group `run` of deploy/packages.txt. Licences
are those of the table in docs/dependencies.md, which --check holds against the copyright files of the packages. Python's standard
library alone.
"""
import argparse
import email
import hashlib
import json
import os
import re
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "dependencies.md"
WAYS = ("linked", "compiled in", "installed")  # the first that holds is shown
SPDX_OF_WAY = {"linked": "DYNAMIC_LINK", "compiled in": "STATIC_LINK", "installed": "DEPENDS_ON"}


def output(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        sys.exit(f"sbom: `{' '.join(map(str, command[:3]))}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def files_at(paths):
    return sorted({str(Path(path).resolve()) for path in paths})


class Debian:
    """The package database under a root."""

    FORM = r"${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\t${Depends}, ${Pre-Depends}" \
           r"\t${Provides}\t${Essential}\t${Priority}\n"

    def __init__(self, root="/"):
        self.root, self.packages, self.providers = Path(root), {}, {}
        self.admin = f"--admindir={self.root / 'var/lib/dpkg'}"
        for line in output("dpkg-query", self.admin, "-W", "-f", self.FORM).splitlines():
            name, version, arch, source, source_version, depends, provides, essential, priority = line.split("\t")
            self.packages[name] = {"version": version, "arch": arch, "source": source, "source_version": source_version,
                                   "needs": depends, "base": essential == "yes" or priority == "required" or name == "apt"}
            for provided in re.findall(r"[a-z0-9][a-z0-9.+-]+(?=[^,]*)", provides):
                self.providers.setdefault(provided, name)

    def closure(self, names):
        """These packages and all that they need."""
        found, open_names = set(), [name for name in names if name in self.packages]
        while open_names:
            name = open_names.pop()
            if name in found:
                continue
            found.add(name)
            for group in self.packages[name]["needs"].split(","):
                for alternative in group.split("|"):
                    wanted = re.split(r"[ (:]", alternative.strip())[0]
                    wanted = wanted if wanted in self.packages else self.providers.get(wanted)
                    if wanted:
                        open_names.append(wanted)
                        break
        return found

    def base(self):
        """What every image of Debian has."""
        return self.closure([name for name, package in self.packages.items() if package["base"]])

    def owners(self, paths):
        """The packages of files, and the files that are nobody's."""
        paths, owned = files_at(paths), {}
        if not paths:
            return set(), []
        # What is below /lib is owned as /lib or as /usr/lib.
        asked = paths + [path.removeprefix("/usr") for path in paths if path.startswith("/usr/lib")]
        done = subprocess.run(["dpkg-query", self.admin, "-S", *asked], capture_output=True, text=True, timeout=120, check=False)
        for line in done.stdout.splitlines():
            names, path = line.rsplit(": ", 1)
            owned[path] = names.split(",")[0].split(":")[0]
        nobodys = [path for path in paths if path not in owned and path.removeprefix("/usr") not in owned]
        return set(owned.values()), nobodys

    def copyright(self, name):
        path = self.root / "usr/share/doc" / name / "copyright"
        return path.read_text(errors="replace") if path.exists() else ""

    def files_of(self, name):
        return output("dpkg-query", self.admin, "-L", name).splitlines()


def libraries_of(programs):
    """The shared objects that a loader finds for these."""
    return set(re.findall(r"(?:=> )?(/\S+) \(0x", output("ldd", *programs)))


def linked(debian, programs):
    """The packages of the libraries, and of those that their plugins need (UCX opens its transports itself)."""
    packages, nobodys = debian.owners(libraries_of(programs))
    plugins = [path for name in packages for path in debian.files_of(name) if re.search(r"/ucx/.*\.so\.\d+$", path)]
    more, also_nobodys = debian.owners(libraries_of(plugins)) if plugins else (set(), [])
    return packages | more, nobodys + also_nobodys


def compiled_in(debian, build):
    """The packages of the headers that the program's objects were made from."""
    headers, ours = set(), False
    for line in output("ninja", "-C", build, "-t", "deps").splitlines():
        if not line.startswith(" "):
            ours = not line.startswith(("tests/", "ninja:")) and "(VALID)" in line
        elif ours and line.strip().startswith("/") and not line.strip().startswith((f"{ROOT}/", f"{build}/")):
            headers.add(line.strip())
    if not headers:
        sys.exit(f"sbom: {build} has no record of headers; build it there with ninja")
    return debian.owners(headers)


def used(debian, binary, build):
    """Package -> how it gets in; and the files that are no package's."""
    programs = [binary, *sorted(Path(build).glob("librunahead_*.so"))]
    libraries, strange_libraries = linked(debian, programs)
    headers, strange_headers = compiled_in(debian, build)
    wanted = [line.split()[1] for line in (ROOT / "deploy/packages.txt").read_text().splitlines() if line.startswith("run ")]
    ways = {name: "installed" for name in debian.closure(wanted) - debian.base()}
    ways.update({name: "compiled in" for name in headers})
    ways.update({name: "linked" for name in libraries})
    return ways, strange_libraries + strange_headers


def table(heading):
    """The rows below a heading of docs/dependencies.md: [first cell without code marks, ...]."""
    part = TABLE.read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip().strip("`") for cell in line.strip().strip("|").split("|")] for line in part.splitlines()
            if line.startswith("|")]
    return rows[2:]


def dependencies():
    """Debian source package, or name of what is fetched -> its row."""
    return {row[0]: {"version": row[1], "licence": row[2], "evidence": row[3]} for row in table("In the program and its image")}


def upstream(version):
    """1:1.10.0+ds-0.4 -> 1.10.0"""
    version = version.split(":", 1)[-1]
    return re.split(r"[+~]", version.rsplit("-", 1)[0])[0].removesuffix(".dfsg")


def is_version(stated, version):
    return version == stated or version.startswith(stated + ".")


def fetched():
    """What deploy/setup.sh pins: {name: version}."""
    return dict(re.findall(r"[\"(=]([a-z][a-z0-9-]+)==([0-9.]+[0-9])", (ROOT / "deploy/setup.sh").read_text()))


def faults_of_debian(debian, ways, rows):
    for name in sorted(ways):
        package = debian.packages[name]
        row = rows.get(package["source"])
        if row is None:
            yield f"{name} is {ways[name]} and its source package {package['source']} is not in docs/dependencies.md"
            continue
        if not is_version(row["version"], upstream(package["source_version"])):
            yield f"{package['source']} is {upstream(package['source_version'])}, docs/dependencies.md says {row['version']}"
        words = " ".join(debian.copyright(name).split())
        if words and row["evidence"] not in words:
            yield f"the copyright file of {name} does not say `{row['evidence']}`: is {row['licence']} true?"


def faults(debian, ways, strange):
    rows, pinned = dependencies(), fetched()
    yield from (f"{path} is used and belongs to no package" for path in strange)
    yield from faults_of_debian(debian, ways, rows)
    sources = {debian.packages[name]["source"] for name in ways}
    for name, row in rows.items():
        if name in pinned and row["version"] != pinned[name]:
            yield f"{name} is {pinned[name]} in deploy/setup.sh, docs/dependencies.md says {row['version']}"
        if name not in pinned and name not in sources:
            yield f"{name} is in docs/dependencies.md and not in use"
    for name in sorted(set(pinned) - set(rows) - {"uv"}):
        yield f"{name} is fetched by deploy/setup.sh and not in docs/dependencies.md"


def spdx_id(text):
    return "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", text)


def spdx_package(name, version, licence, purl, **more):
    return {"name": name, "SPDXID": spdx_id(name), "versionInfo": version, "downloadLocation": "NOASSERTION",
            "filesAnalyzed": False, "licenseConcluded": licence, "licenseDeclared": licence, "copyrightText": "NOASSERTION",
            **({"externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}]}
               if purl else {}), **more}


def debian_package(debian, name, rows):
    package = debian.packages[name]
    row = rows.get(package["source"])
    return spdx_package(name, package["version"], row["licence"] if row else "NOASSERTION",
                        f"pkg:deb/debian/{name}@{package['version']}?arch={package['arch']}&distro=bookworm",
                        supplier="Organization: Debian",
                        sourceInfo=f"built from the source package {package['source']} {package['source_version']}",
                        **({} if row else {"licenseComments": f"/usr/share/doc/{name}/copyright"}))


def created():
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.fromtimestamp(int(seconds), timezone.utc) if seconds else datetime.now(timezone.utc)
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def document(name, packages, relationships):
    digest = hashlib.sha256(json.dumps([packages, relationships], sort_keys=True).encode()).hexdigest()
    others = sorted({word for package in packages for word in re.findall(r"LicenseRef-[\w.-]+", package["licenseDeclared"])})
    return {"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": name,
            "documentNamespace": f"https://spdx.org/spdxdocs/{name}-{digest[:32]}",
            "creationInfo": {"created": created(), "creators": ["Tool: runahead-deploy-sbom.py"]},
            "packages": packages,
            "hasExtractedLicensingInfos": [{"licenseId": word, "extractedText": "see docs/dependencies.md"} for word in others],
            "relationships": [{"spdxElementId": a, "relationshipType": kind, "relatedSpdxElement": b}
                              for a, kind, b in relationships]}


def of_program(debian, ways, image):
    rows, pinned = dependencies(), fetched()
    version = re.search(r"VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text().split("project(", 1)[1])[1]
    ours = spdx_package("runahead", version, "Apache-2.0", "")
    names = sorted(set(ways) | set(debian.packages if image else ()))
    packages = [ours, *(debian_package(debian, name, rows) for name in names)]
    relationships = [("SPDXRef-DOCUMENT", "DESCRIBES", ours["SPDXID"])]
    relationships += [(ours["SPDXID"], SPDX_OF_WAY.get(ways.get(name), "DEPENDS_ON"), spdx_id(name)) for name in names]
    for name in sorted(set(pinned) & set(rows)):
        packages.append(spdx_package(name, pinned[name], rows[name]["licence"], f"pkg:pypi/{name}@{pinned[name]}"))
        relationships.append((spdx_id(name), "OPTIONAL_COMPONENT_OF", ours["SPDXID"]))
    return document("runahead-image" if image else "runahead", packages, relationships)


def licence_of_wheel(metadata):
    classifiers = [line.rsplit(" :: ", 1)[-1] for line in metadata.get_all("Classifier", []) if line.startswith("License ::")]
    stated = (metadata.get("License") or "").strip()
    return metadata.get("License-Expression") or (stated if 0 < len(stated) <= 60 else "; ".join(classifiers)) or "not stated"


def wheels(venv):
    """Name -> version and licence, by the metadata of the installed packages."""
    found = {}
    for path in Path(venv).glob("lib/python*/site-packages/*.dist-info/METADATA"):
        metadata = email.message_from_string(path.read_text(errors="replace"))
        found[re.sub(r"[-_.]+", "-", metadata["Name"]).lower()] = (metadata["Version"], licence_of_wheel(metadata))
    if not found:
        sys.exit(f"sbom: no Python packages in {venv}")
    return found


def of_tests(venv):
    packages = [spdx_package(name, version, "NOASSERTION", f"pkg:pypi/{name}@{version}", licenseComments=licence)
                for name, (version, licence) in sorted(wheels(venv).items())]
    return document("runahead-tests", packages, [("SPDXRef-DOCUMENT", "DESCRIBES", package["SPDXID"]) for package in packages])


def copy_copyright(debian, ways, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(ways):
        if ways[name] == "compiled in":
            (folder / debian.packages[name]["source"]).write_text(debian.copyright(name))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "release", help="folder of ninja (default: build/release)")
    parser.add_argument("--binary", type=Path, help="the program (default: BUILD/runahead)")
    parser.add_argument("--image", type=Path, help="all packages of this root, too (default: only those in use)")
    parser.add_argument("--tests", type=Path, help="of this Python environment alone (default: none)")
    parser.add_argument("--out", type=Path, help="file (default: stdout)")
    parser.add_argument("--copyright", type=Path, help="copy copyright files into this folder, and print no SPDX (default: none)")
    parser.add_argument("--check", action="store_true", help="hold docs/dependencies.md against it, and print no SPDX")
    options = parser.parse_args()
    if options.tests:
        spdx = of_tests(options.tests)
    else:
        here = Debian()
        ways, strange = used(here, options.binary or options.build / "runahead", options.build)
        found = list(faults(here, ways, strange))
        if found:
            sys.exit("\n".join(f"sbom: {fault}" for fault in found))
        if options.copyright:
            copy_copyright(here, ways, options.copyright)
        if options.check or options.copyright:
            return
        image = Debian(options.image) if options.image else None
        spdx = of_program(image or here, {name: way for name, way in ways.items() if not image or name in image.packages}, image)
    text = json.dumps(spdx, indent=1) + "\n"
    if options.out:
        options.out.write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
