#!/usr/bin/env bash
# Every test, from a bare Debian 12. Closes with "N passed, N failed, N skipped"; the exit code is 0 if none failed.
#
#   tests/run.sh               all stages
#   tests/run.sh unit tidy     only these (and what they need built)
#   tests/run.sh --list        the stages
#
# Each stage runs on its own, within its time limit, and leaves results in build/test-results/STAGE/: JUnit XML of
# ctest, GoogleTest and pytest, and results.txt with lines "passed|failed|skipped NAME: REASON" for the rest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../deploy/setup.sh"
cd "$ROOT"

RESULTS=$ROOT/build/test-results
FUZZ_SECONDS=${RUNAHEAD_FUZZ_SECONDS:-6}  # a smoke run for each target; a night finds more
SIM_SEEDS=${RUNAHEAD_SIM_SEEDS:-1000}  # about a minute

# Stage and time limit in seconds. What fails soonest comes first; together they take under 45 minutes on 2 cores.
STAGES=(setup:1200 tidy:120 build:1500 sanitizers:3000 deploy:900 unit:900 e2e:1200 chaos:300 ucx:300 sim:600 lint:300 cuda:600
        asan:1800 fuzz:900 tsan:1200 gpu:900)
# Stages that run beside those behind them, each with the stage that waits for its end: one that mostly waits itself, and the
# compiling for three others, which takes only what the tests leave of the cores.
declare -A BESIDE_UNTIL=([ucx]=lint [sanitizers]=asan)

# Which test programs run under a sanitizer: those where memory or threads are in play, and that are fast enough. Left
# out, because their cold builds would take CI beyond its 45 minutes: services, chain, which links it, and under tsan all but two.
# The filters leave out single cases: hundreds of random partitions and the comparisons of instruction sets, whose code other
# tests walk too, a planted bug and emulated GPUs that take long, what asks for time or is
# arithmetic alone, and under tsan the kernels that run on one thread.
ASAN_TESTS=(base kernels model planner transport actors sim)
ASAN_FILTER='-*Exactness*:*EveryInstructionSetGivesTheSameBits*:*EveryTableAgreesWithTheOracle*:*ManyRows*/generic*'
ASAN_FILTER+=':*PlantedBug*ackbeforecommit*:CudaTransformer.IsAsClose*:LibraryGemmTest.ProductsOfOddSizes*'
ASAN_FILTER+=':*TakesLinearTime*:ChainTimeline.AgreesWithThePageByPage*'
TSAN_TESTS=(base kernels)
TSAN_FILTER='-Cpu/*:Simt*:Cuda*:LibraryGemm*'

record() { echo "$1 $2" >>"$RESULTS/$STAGE/results.txt"; }  # record passed|failed|skipped "NAME: REASON"

stage_setup() {
  setup_packages build test
  setup_model
  setup_venv
}

stage_build() {
  CONFIGURE_ARGS=(-DRUNAHEAD_BUILD_TESTS=ON)
  setup_build release
}

# run_ctest BUILD OPTION...: one JUnit file of ctest, and one of each GoogleTest program with every case in it.
run_ctest() {
  local build=$1
  shift
  GTEST_OUTPUT="xml:$RESULTS/$STAGE/gtest/" GTEST_BRIEF=1 \
    ctest --test-dir "$build" --output-on-failure --test-output-truncation middle \
      --output-junit "$RESULTS/$STAGE/ctest.xml" -j "$(nproc)" "$@"
}

stage_unit() { run_ctest build/release -LE sim; }

stage_sim() {
  if ctest --test-dir build/release -N -L sim | grep -q 'Total Tests: 0'; then
    record skipped "sim: no test has the label sim"
    return 0
  fi
  RUNAHEAD_SIM_SEEDS=$SIM_SEEDS run_ctest build/release -L sim
}

# run_pytest FOLDER...: those that have tests.
run_pytest() {
  local folder found=()
  setup_venv
  for folder in "$@"; do
    if compgen -G "$folder/test_*.py" >/dev/null; then
      found+=("$folder")
    else
      record skipped "$folder: has no test_*.py"
    fi
  done
  [[ ${#found[@]} -eq 0 ]] && return 0
  "$PYTHON" -m pytest -q -p no:cacheprovider -rs --junitxml="$RESULTS/$STAGE/pytest.xml" "${found[@]}"
}

stage_tidy() { run_pytest tests/tidy; }
# clang-tidy over what changed, the newest first, as far as the time goes: what is left
# of the stage's limit is for the files that are begun. All of it: tests/tidy/clang_tidy.py --all.
stage_lint() {
  local said code=0
  said=$(python3 tests/tidy/clang_tidy.py --seconds 40 2>&1) || code=$?
  echo "$said"
  if [[ $code -eq 0 ]]; then record passed "clang-tidy: $(tail -n 1 <<<"$said")"
  else record failed "clang-tidy: $(head -n 1 <<<"$said")"; fi
  return "$code"
}

stage_deploy() { run_pytest tests/deploy tests/helm tests/bench; }
stage_e2e() { run_pytest tests/e2e tests/golden; }
stage_chaos() { run_pytest tests/chaos; }

# The streams over the newest UCX beside the 1.13.1 of Debian 12: its wheel has no other packages, and a folder of its own
# where nothing else finds it.
NEWEST_UCX=libucx-cu13==1.22.0
stage_ucx() {
  local folder=$ROOT/build/ucx-${NEWEST_UCX#*==} loaded
  setup_venv
  [[ -d $folder/libucx ]] || twice pip-ucx "$VENV/bin/pip" install --disable-pip-version-check --no-deps --target "$folder" \
    "$NEWEST_UCX" || die "pip could not install $NEWEST_UCX: check the network"
  export LD_LIBRARY_PATH=$folder/libucx/lib
  loaded=$("$PYTHON" -c 'import ctypes; lib = ctypes.CDLL("libucp.so.0"); get = lib.ucp_get_version_string
get.restype = ctypes.c_char_p; print(get().decode())')
  [[ $loaded == "${NEWEST_UCX#*==}" ]] || die "UCX $loaded was loaded, not $NEWEST_UCX"
  GTEST_OUTPUT="xml:$RESULTS/ucx/gtest/" GTEST_BRIEF=1 GTEST_FILTER='Kv/*/ucx*:*MappedFileBeside*' \
    "$ROOT/build/release/tests/transport/transport_tests"
}

# kernels/cuda for the device: compiled anew with warnings as errors, for what ptxas says of each kernel. Nothing here can run it.
stage_cuda() {
  setup_cuda
  rm -f build/cuda/librunahead_cuda.so build/cuda/kernels/cuda/CMakeFiles/runahead_cuda.dir/cuda_ops.cu.o
  setup_build cuda runahead_cuda
  if python3 tests/kernels/cuda/resource_table.py "$LOGS/build-cuda.log"; then
    record passed "librunahead_cuda.so compiles, and no kernel spills registers"
  else
    record failed "librunahead_cuda.so: a kernel spills registers, or the compiler said nothing of them"
    return 1
  fi
  setup_nccl
  if g++ -std=c++23 -fsyntax-only -Wall -Werror -I . -isystem "$NCCL_INCLUDE" -isystem "$(cuda_include)" \
    -x c++ tests/transport/nccl_abi.cu; then
    record passed "NCCL's header has the ABI that transport/kv/nccl_api.h declares"
  else
    record failed "NCCL's header has another ABI than transport/kv/nccl_api.h declares"
    return 1
  fi
  cublaslt_abi || return 1
  [[ -x build/release/tests/transport/transport_tests ]] || return 0
  RUNAHEAD_TEST_NCCL_LIBRARY=$NCCL_LIBRARY GTEST_OUTPUT="xml:$RESULTS/cuda/gtest/" GTEST_FILTER='NcclLibrary.*' \
    build/release/tests/transport/transport_tests
}

# cuBLASLt is of a toolkit, if there is one: 500 MB are not fetched for a header.
cublaslt_abi() {
  local include library
  include=$(cuda_include)
  if ! [[ -f $include/cublasLt.h ]]; then
    record skipped "kernels/cuda/cublaslt_api.h: the CUDA of this machine has no cublasLt.h to hold it against"
    return 0
  fi
  if g++ -std=c++23 -fsyntax-only -Wall -Werror -I . -isystem "$include" -x c++ tests/kernels/cuda/cublaslt_abi.cu; then
    record passed "cuBLASLt's header has the ABI that kernels/cuda/cublaslt_api.h declares"
  else
    record failed "cuBLASLt's header has another ABI than kernels/cuda/cublaslt_api.h declares"
    return 1
  fi
  library=$(find "${include%/include*}" -name 'libcublasLt.so.1?' -print -quit)
  [[ -n $library && -x build/release/tests/kernels/kernels_tests ]] || return 0
  RUNAHEAD_TEST_CUBLASLT_LIBRARY=$library GTEST_OUTPUT="xml:$RESULTS/cuda/gtest/" GTEST_FILTER='CublasLtLibrary.*' \
    build/release/tests/kernels/kernels_tests
}

cuda_include() { find "$(dirname "$(dirname "$(readlink -f "$CUDACXX")")")" -name cuda_runtime.h -printf '%h\n' | head -n 1; }

# build_sanitized PRESET TEST...: the named test programs as far as they exist: names holds those.
build_sanitized() {
  local preset=$1 test known
  shift
  targets=() names=()
  CONFIGURE_ARGS=(-DRUNAHEAD_BUILD_TESTS=ON "-DRUNAHEAD_FUZZ_SECONDS=$FUZZ_SECONDS")
  setup_build "$preset" runahead_base
  known=$(ninja -C "build/$preset" -t targets all)
  for test in "$@"; do
    if grep -q "^${test}_tests: phony" <<<"$known"; then
      targets+=("${test}_tests")
      names+=("$test")
    else
      record skipped "$preset/$test: tests/$test has no test program yet"
    fi
  done
  setup_build "$preset" "${targets[@]}"
}

# run_sanitized PRESET TEST...: builds and runs the named test programs. The tests on the real model skip here (its folder
# is empty): under a sanitizer they take minutes, and the tiny model walks the same code.
run_sanitized() {
  local preset=$1 targets names
  build_sanitized "$@"
  mkdir -p "$RESULTS/$STAGE/no-model"
  RUNAHEAD_SIM_SEEDS=20 RUNAHEAD_MODEL_DIR=$RESULTS/$STAGE/no-model \
    run_ctest "build/$preset" -R "^($(IFS='|'; echo "${names[*]}"))$"
}

# Idle priority: no test gets slower by it.
stage_sanitizers() {
  local targets names
  chrt --idle --pid 0 $BASHPID
  build_sanitized asan-ubsan "${ASAN_TESTS[@]}"
  setup_build asan-ubsan tests/fuzz/all
  build_sanitized tsan "${TSAN_TESTS[@]}"
  record passed "what asan, fuzz and tsan run is compiled"
}

stage_asan() { GTEST_FILTER=$ASAN_FILTER run_sanitized asan-ubsan "${ASAN_TESTS[@]}"; }

stage_tsan() {
  GTEST_FILTER=$TSAN_FILTER run_sanitized tsan "${TSAN_TESTS[@]}"
}

# The fuzzers share the libraries of stage asan. A finding leaves its input in the folder that libFuzzer names; run the target
# with that file to see it again.
stage_fuzz() {
  CONFIGURE_ARGS=(-DRUNAHEAD_BUILD_TESTS=ON "-DRUNAHEAD_FUZZ_SECONDS=$FUZZ_SECONDS")
  setup_build asan-ubsan tests/fuzz/all
  run_ctest build/asan-ubsan -L fuzz
}

# What tests/gpu.sh asks of a GPU. Where no compiler can be had, a library that is built already will do.
stage_gpu() {
  if ! tests/gpu.sh present; then
    record skipped "gpu: this machine has no NVIDIA GPU"
    return 0
  fi
  setup_venv
  if (setup_cuda); then
    setup_cuda
    setup_build cuda runahead_cuda
  elif [[ ! -f build/cuda/librunahead_cuda.so ]]; then
    die "there is neither a compiler for the GPU nor build/cuda/librunahead_cuda.so"
  fi
  PYTHON=$PYTHON tests/gpu.sh checks build/release build/cuda/librunahead_cuda.so "$RESULTS/gpu"
}

# run_stage NAME LIMIT: the stage in a process group of its own, so that its limit ends all that it started.
run_stage() {
  local name=$1 limit=$2 started=$SECONDS code=0
  rm -rf "${RESULTS:?}/$name"
  mkdir -p "$RESULTS/$name"
  echo "--- $name"
  timeout --kill-after=15 "$limit" bash "$ROOT/tests/run.sh" --inside "$name" </dev/null || code=$?
  echo "--- $name took $((SECONDS - started)) s"
  echo "$code" >"$RESULTS/$name/exit_code"
  return "$code"
}

# finish_beside STAGE: waits for what must have ended before it, and for everything without a name.
finish_beside() {
  local name
  for name in "${!beside[@]}"; do
    [[ -z ${1:-} || ${BESIDE_UNTIL[$name]} == "$1" ]] || continue
    wait "${beside[$name]}" || true
    cat "$RESULTS/$name.txt"
    unset "beside[$name]"
  done
}

main() {
  local stage name wanted=" $* " started=$SECONDS ran=()
  declare -gA beside=()  # process numbers by stage
  trap '[[ ${#beside[@]} -eq 0 ]] || pkill -P "$(IFS=,; echo "${beside[*]}")" || true' EXIT
  case ${1:-} in
    --inside) STAGE=$2; "stage_$2"; return ;;
    --list) printf '%s\n' "${STAGES[@]%%:*}"; return ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; return ;;
  esac
  for stage in "$@"; do
    [[ " ${STAGES[*]%%:*} " == *" $stage "* ]] || die "there is no stage $stage; the stages are: ${STAGES[*]%%:*}"
  done
  for name in deploy unit e2e chaos sim ucx lint gpu; do [[ $wanted == *" $name "* ]] && wanted+="build "; done
  [[ $# -gt 0 ]] && wanted+="setup "
  for stage in "${STAGES[@]}"; do
    [[ $# -eq 0 || $wanted == *" ${stage%%:*} "* ]] || continue
    name=${stage%%:*}
    ran+=("$name")
    finish_beside "$name"
    if [[ -n ${BESIDE_UNTIL[$name]:-} ]]; then
      run_stage "$name" "${stage##*:}" >"$RESULTS/$name.txt" 2>&1 &
      beside[$name]=$!
      continue
    fi
    run_stage "$name" "${stage##*:}" || case $name in setup | build) break ;; esac  # nothing after these can say more
  done
  finish_beside
  echo "--- all stages took $((SECONDS - started)) s"
  python3 "$ROOT/tests/summary.py" "$RESULTS" "${ran[@]}"
}

main "$@"; exit $?  # on one line: bash reads a script as it goes, and this one may change while it runs
