#!/usr/bin/env bash
# What is asked of a GPU: here, or on a machine that is lent for minutes, without a compiler or a network.
#
#   tests/gpu.sh present                         has this machine an NVIDIA GPU? The exit code says
#   tests/gpu.sh checks BUILD LIBRARY RESULTS    kernels, engine, service and command line of BUILD on the GPU behind
#                                                LIBRARY, compute-sanitizer over the kernels: results.txt, JUnit XML
#   tests/gpu.sh pack                            build/gpu-bundle.tar.gz of what is built here: to be carried there
#   tests/gpu.sh session RESULTS [FLAG...]       there, in the repository's root: checks, bench/gpu.py FLAG..., the sanitizer
#
# Environment: PYTHON (default python3), RUNAHEAD_SESSION_SECONDS (default 540): what a session may take in all.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python3}
BUNDLE=build/gpu-bundle

present() { [[ -e /dev/nvidiactl ]] || nvidia-smi -L 2>/dev/null | grep -q '^GPU'; }

# check NAME LIMIT COMMAND...: one line of results.txt, and its output behind the others'. A kernel that hangs ends at the limit.
check() {
  local name=$1 limit=$2 code=0 started=$SECONDS
  shift 2
  echo "--- $name" | tee -a "$RESULTS/checks.log"
  timeout --kill-after=5 "$limit" "$@" </dev/null >"$RESULTS/last.log" 2>&1 || code=$?
  cat "$RESULTS/last.log" >>"$RESULTS/checks.log"
  if [[ $code -eq 0 ]]; then
    echo "passed $name: $((SECONDS - started)) s" >>"$RESULTS/results.txt"
  elif grep -q 'Device not supported' "$RESULTS/last.log"; then
    echo "skipped $name: this machine's runtime lets it see no device" >>"$RESULTS/results.txt"
  else
    tail -n 40 "$RESULTS/last.log"
    echo "failed $name: exit code $code after $((SECONDS - started)) s; checks.log has all it said" >>"$RESULTS/results.txt"
    failed=1
  fi
}

# correctness BUILD LIBRARY: what the emulation's own tests and the planted faults are about is no device's.
correctness() {
  local build=$1 library=$2 pair
  export RUNAHEAD_TEST_CUDA_LIBRARY=$library RUNAHEAD_BINARY=$build/runahead
  for pair in kernels:CudaOps model:CudaTransformer services:CudaLibrary; do
    check "${pair#*:}" 90 env -u RUNAHEAD_CUDA_LIBRARY "GTEST_OUTPUT=xml:$RESULTS/gtest/" \
      "$build/tests/${pair%:*}/${pair%:*}_tests" "--gtest_filter=${pair#*:}.*"
  done
  check "command line" 150 "$PYTHON" -m pytest -q -p no:cacheprovider -rs "--junitxml=$RESULTS/pytest.xml" \
    tests/e2e/test_cuda.py
}

# sanitizer BUILD LIBRARY LIMIT: no access out of bounds, no race in shared memory.
sanitizer() {
  local tool found
  found=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null || true)
  if [[ -z $found ]]; then
    echo "skipped compute-sanitizer: it is not installed" >>"$RESULTS/results.txt"
    return 0
  fi
  for tool in memcheck racecheck; do
    check "$tool" "$3" env "RUNAHEAD_TEST_CUDA_LIBRARY=$2" "$found" --tool "$tool" --error-exitcode 9 --target-processes all \
      "$1/tests/kernels/kernels_tests" '--gtest_filter=CudaOps.*' --gtest_brief=1
  done
}

begin() {
  RESULTS=$(realpath -m "$1")
  failed=0
  mkdir -p "$RESULTS"
  rm -f "$RESULTS/results.txt" "$RESULTS/checks.log"
}

checks() {
  local build library
  build=$(realpath "$1") library=$(realpath "$2")
  begin "$3"
  correctness "$build" "$library"
  sanitizer "$build" "$library" 120
  rm -f "$RESULTS/last.log"
  return "$failed"
}

# Programs without their debug lines, each behind a script that finds the libraries beside it: they must not reach Python's torch.
pack() {
  local program
  rm -rf "$BUNDLE"
  mkdir -p "$BUNDLE/lib" "$BUNDLE/python"
  for program in runahead tests/kernels/kernels_tests tests/model/model_tests tests/services/services_tests; do
    mkdir -p "$(dirname "$BUNDLE/$program")"
    strip -o "$BUNDLE/$program.bin" "build/release/$program"
    ldd "build/release/$program" | awk '$3 ~ "^/" && $1 !~ /^lib(c|m|dl|rt|pthread|resolv)\.so/ { print $3 }' |
      xargs cp -Lut "$BUNDLE/lib"
    cat >"$BUNDLE/$program" <<END
#!/bin/sh
LD_LIBRARY_PATH=\$RUNAHEAD_BUNDLE/lib\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH} exec "\$0.bin" "\$@"
END
    chmod +x "$BUNDLE/$program"
  done
  cp "${RUNAHEAD_CUDA_LIBRARY:-build/cuda/librunahead_cuda.so}" "$BUNDLE/librunahead_cuda.so"
  cp -r "$("$PYTHON" -c 'import gguf; print(gguf.__path__[0])')" "$BUNDLE/python/"
  "$PYTHON" bench/random_model.py "$BUNDLE/tokenizer.gguf" --tokenizer-only
  tar czf "$BUNDLE.tar.gz" --exclude=__pycache__ -C "$BUNDLE" .
  echo "$BUNDLE.tar.gz, $(($(stat -c %s "$BUNDLE.tar.gz") >> 20)) MiB; the working tree that travels with it has at most 64"
}

session() {
  local end=$((SECONDS + ${RUNAHEAD_SESSION_SECONDS:-540})) folder
  begin "$1"
  shift
  folder=$(mktemp -d)
  tar xzf "$BUNDLE.tar.gz" -C "$folder"
  export RUNAHEAD_BUNDLE=$folder RUNAHEAD_TOKENIZER=$folder/tokenizer.gguf RUNAHEAD_CACHE_DIR=$folder/cache
  export RUNAHEAD_CUDA_LIBRARY=$folder/librunahead_cuda.so PYTHONPATH=$folder/python PYTHONUNBUFFERED=1
  "$folder/runahead" doctor --ports 127.0.0.1:0 2>&1 | grep -E '^[a-zA-Z]+ +(version|machine|gpu) |error while loading' || true
  nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,power.draw,memory.used --format=csv 2>/dev/null || true
  correctness "$folder" "$folder/librunahead_cuda.so"
  check "bench/gpu.py" $((end - SECONDS)) "$PYTHON" bench/gpu.py --binary "$folder/runahead" --folder "$folder" \
    --seconds $((end - SECONDS - 45)) --json "$RESULTS/gpu.json" "$@"
  cp "$RESULTS/last.log" "$RESULTS/gpu.txt"
  [[ $((end - SECONDS)) -lt 20 ]] || sanitizer "$folder" "$folder/librunahead_cuda.so" $(((end - SECONDS) / 2))
  rm -rf "$RESULTS/last.log" "$folder"
  cat "$RESULTS/gpu.txt" "$RESULTS/results.txt"
  return "$failed"
}

case ${1:-} in
  present | pack | checks | session) "$@" ;;
  *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" ;;
esac
