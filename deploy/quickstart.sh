#!/usr/bin/env bash
# From a bare Debian 12 to an answer: installs what is missing, fetches the model, builds, starts a cluster of
# separate processes on loopback (coordinator with the HTTP API, two prefill workers, one decode worker), asks a long
# question over the REST API, and shows where the time to first token went, beside what one worker alone takes.
# A second run only asks.
#
#   deploy/quickstart.sh           ask once, then stop the cluster
#   deploy/quickstart.sh --keep    leave the cluster running until Ctrl-C, to try requests of your own
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

BINARY=$ROOT/build/release/runahead
MODEL=smollm2
READY_SECONDS_MAX=60  # loading 94 MB of weights takes a second or two; a slow disk gets room
PIDS=()

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }

# Workers leave first, so that the coordinator outlives their goodbyes. SIGTERM drains; what then stays is killed.
stop_cluster() {
  local i pid
  trap - EXIT
  for ((i = ${#PIDS[@]} - 1; i >= 0; i--)); do kill -TERM "${PIDS[i]}" 2>/dev/null || true; done
  for pid in "${PIDS[@]}"; do
    for _ in {1..100}; do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
}

start() {
  local name=$1
  shift
  mkdir -p "$LOGS"
  "$BINARY" "$@" >"$LOGS/cluster-$name.log" 2>&1 </dev/null &
  PIDS+=($!)
  NAMES+=("$name")
}

# A process that ends before the cluster is ready is the reason why it never will be: show its last words.
check_alive() {
  local i
  for i in "${!PIDS[@]}"; do
    kill -0 "${PIDS[i]}" 2>/dev/null && continue
    tail -n 20 "$LOGS/cluster-${NAMES[i]}.log" | sed 's/^/    /' >&2
    die "${NAMES[i]} ended early; its log is $LOGS/cluster-${NAMES[i]}.log"
  done
}

free_ports() {
  python3 -c '
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in sockets: s.bind(("127.0.0.1", 0))
print(*[s.getsockname()[1] for s in sockets])' "$1"
}

main() {
  local keep=false
  case ${1:-} in
    '') ;;
    --keep) keep=true ;;
    -h | --help) usage; return 0 ;;
    *) usage >&2; die "unknown option $1" ;;
  esac

  setup_packages build
  setup_model
  # The tests need packages that asking a question does not; a build that has them already stays as it is.
  [[ -f $ROOT/build/release/build.ninja ]] || CONFIGURE_ARGS=(-DRUNAHEAD_BUILD_TESTS=OFF)
  setup_build release runahead || die "the build failed"

  local control http
  read -r control http < <(free_ports 2)
  NAMES=()
  trap stop_cluster EXIT
  trap 'exit 130' INT TERM
  start coordinator coordinator --listen "127.0.0.1:$control" --http "127.0.0.1:$http" --model "$MODEL"
  start prefill-0 prefill --coordinator "127.0.0.1:$control" --model "$MODEL" --threads 1
  start prefill-1 prefill --coordinator "127.0.0.1:$control" --model "$MODEL" --threads 1
  start decode-0 decode --coordinator "127.0.0.1:$control" --model "$MODEL" --threads 1

  say "starting a coordinator, two prefill workers and a decode worker; the API is http://127.0.0.1:$http"
  local deadline=$((SECONDS + READY_SECONDS_MAX))
  until python3 "$ROOT/deploy/examples/ask.py" --url "http://127.0.0.1:$http" --ready --workers 2; do
    check_alive
    ((SECONDS < deadline)) ||
      die "the cluster was not ready within $READY_SECONDS_MAX s; the logs are $LOGS/cluster-*.log"
    sleep 0.2
  done

  python3 "$ROOT/deploy/examples/ask.py" --url "http://127.0.0.1:$http" --model "$MODEL" \
    --document "$ROOT/deploy/examples/handbook.txt" --question "$ROOT/deploy/examples/question.txt" --compare
  if $keep; then
    say "the cluster stays until Ctrl-C. Try: curl http://127.0.0.1:$http/v1/cluster"
    while check_alive; do sleep 1; done
  fi
}

main "$@"; exit $?  # on one line: bash reads a script as it goes, and this one may change while it runs
