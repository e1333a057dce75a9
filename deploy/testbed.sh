#!/usr/bin/env bash
# p slow nodes on one machine: a network namespace with shaped links and a share of a core for each, so that compute and
# bandwidth have the ratio of real machines. Needs root, ip, tc and a cpu cgroup; changes nothing outside its own namespaces.
#
#   testbed.sh up NODES [CPU [LINK]]   CPU: percent of one core a node (25); LINK: rate of its link, e.g. 1gbit (1gbit; none)
#   testbed.sh cluster [FLAG...]       coordinator and decode worker on the head, a prefill worker on each node, until Ctrl-C
#   testbed.sh rank NODE [FLAG...]     a rank of a rival scheme there, for bench/chain.py --rank-command
#   testbed.sh exec NODE COMMAND...    run it on a node: 1 to NODES, or head (no CPU limit)
#   testbed.sh cpu NODE PERCENT        another share, at once
#   testbed.sh link NODE RATE          another rate, at once
#   testbed.sh noise NODE NODE MBIT    traffic both ways between two nodes, until Ctrl-C
#   testbed.sh check                   does a node get the share it was given? Within 2 %, or exit code 1
#   testbed.sh down                    ends what runs there, and removes it all
#
# Addresses: head 10.77.0.254, node i 10.77.0.i. Several at once: RUNAHEAD_TESTBED=name. Why these settings: docs/benchmarks.md.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
NAME=${RUNAHEAD_TESTBED:-rah}
BINARY=${RUNAHEAD_BINARY:-$ROOT/build/release/runahead}
NET=10.77.0
NODES_MAX=32
# A node is a slow core: its threads run on one of the machine's. On two, the kernel hands the quota to whichever runs, and
# a thread that the other one wakes waits for the next period although its share is not used up.
# A quota below a scheduler tick (4 ms) is paid off later: shares are kept by many short periods, not by few long stalls.
PERIOD_US=5000
SHARES=20480  # of the kernel's own 1024: a node's quota decides, not what else the machine does
BURST=32k     # the smallest with which 1 Gbit/s is reached
PACKET=16384  # bytes: larger ones are cut by the shaper, at ten times the CPU

die() {
  echo "testbed: $*" >&2
  exit 1
}

space() { echo "$NAME-$1"; }
spaces() { ip netns list 2>/dev/null | awk -v name="$NAME-" 'index($1, name) == 1 {print $1}'; }
nodes() { spaces | sed -n "s/^$NAME-\([0-9]*\)$/\1/p" | sort -n; }

# The folder of the machine's cpu cgroup: version 2, else version 1.
cpu_root() {
  if [[ -f /sys/fs/cgroup/cgroup.controllers ]]; then echo /sys/fs/cgroup
  elif [[ -d /sys/fs/cgroup/cpu ]]; then echo /sys/fs/cgroup/cpu
  else die "there is no cpu cgroup on this machine: mount one, or use one that has it"; fi
}
group() { echo "$(cpu_root)/runahead-$NAME/$1"; }

set_cpu() { # NODE PERCENT
  [[ $2 =~ ^[0-9]+$ && $2 -ge 1 && $2 -le 100 ]] || die "a CPU share is 1 to 100 percent of a core, not '$2'"
  local quota=$((PERIOD_US * $2 / 100)) folder
  [[ $quota -ge 1000 ]] || die "below 20 percent the kernel cannot keep the share evenly: take fewer or larger nodes"
  folder=$(group "$1")
  if [[ -f $folder/cpu.max ]]; then
    echo "$quota $PERIOD_US" >"$folder/cpu.max"
  else
    echo $PERIOD_US >"$folder/cpu.cfs_period_us"
    echo "$quota" >"$folder/cpu.cfs_quota_us"
    echo $SHARES >"$folder/cpu.shares"
  fi
}

shape() { # SPACE DEVICE RATE
  ip netns exec "$1" tc qdisc del dev "$2" root 2>/dev/null || true
  [[ $3 == none ]] || ip netns exec "$1" tc qdisc add dev "$2" root tbf rate "$3" burst $BURST limit 1m ||
    die "tc does not take the rate '$3': write 1gbit, 400mbit, ..., or none"
}

add_node() { # NODE ADDRESS
  local space
  space=$(space "$1")
  ip netns add "$space"
  ip link add name lan netns "$space" type veth peer name "port$1" netns "$(space hub)"
  ip -n "$space" link set lan gso_max_size $PACKET
  ip -n "$(space hub)" link set "port$1" gso_max_size $PACKET master bridge up
  ip -n "$space" addr add "$NET.$2/24" dev lan
  ip -n "$space" link set lo up
  ip -n "$space" link set lan up
}

up() {
  local count=${1:-} cpu=${2:-25} link=${3:-1gbit} node
  [[ $count =~ ^[0-9]+$ && $count -ge 1 && $count -le $NODES_MAX ]] || die "say how many nodes: 1 to $NODES_MAX"
  [[ $(id -u) -eq 0 ]] || die "it makes network namespaces and cgroups: run it as root"
  for tool in ip tc taskset nsenter; do
    command -v $tool >/dev/null || die "$tool is missing: install iproute2 and util-linux"
  done
  [[ -z $(spaces) ]] || die "'$NAME' is up already: testbed.sh down, or another RUNAHEAD_TESTBED"
  [[ $((count * cpu)) -le $(($(nproc) * 80)) ]] ||
    die "$count nodes of $cpu % need more than 80 % of this machine's $(nproc) cores: then the shares do not hold"
  local root
  root=$(cpu_root)
  mkdir -p "$root/runahead-$NAME" 2>/dev/null || die "no right to make a cpu cgroup in $root: run it where that is allowed"
  [[ ! -f $root/cgroup.subtree_control ]] || echo +cpu >"$root/cgroup.subtree_control" 2>/dev/null &&
    { [[ ! -f $root/cgroup.subtree_control ]] || echo +cpu >"$root/runahead-$NAME/cgroup.subtree_control"; } ||
    die "the cpu controller cannot be delegated in $root: run it on the host, or in a container that may"
  ip netns add "$(space hub)" 2>/dev/null || die "no right to make network namespaces here: run it where that is allowed"
  ip -n "$(space hub)" link add bridge type bridge
  ip -n "$(space hub)" link set bridge up
  add_node head 254
  for ((node = 1; node <= count; ++node)); do
    add_node "$node" "$node"
    mkdir -p "$(group "$node")"
    set_cpu "$node" "$cpu"
    set_link "$node" "$link"
  done
  echo "$count nodes of $cpu % of a core each, links of $link" >&2
}

set_link() { # NODE RATE, both directions
  shape "$(space "$1")" lan "$2"
  shape "$(space hub)" "port$1" "$2"
}

is_up() { [[ -n $(nodes) ]] || die "no testbed is up: testbed.sh up NODES"; }
check_node() { [[ $1 == head ]] || nodes | grep -qx "$1" || die "there is no node '$1': the nodes are head $(nodes | xargs)"; }

run_on() { # NODE COMMAND...
  local node=$1
  shift
  check_node "$node"
  if [[ $node != head ]]; then
    echo $BASHPID >"$(group "$node")/cgroup.procs"
    taskset -pc $((node % $(nproc))) $BASHPID >/dev/null
  fi
  exec nsenter --net="/run/netns/$(space "$node")" -- "$@"  # ip netns exec would hide the cgroups from a `rank` in it
}

cluster() {
  is_up
  [[ -x $BINARY ]] || die "no program at $BINARY: build it, or set RUNAHEAD_BINARY"
  local node network=(--insecure-network --transport tcp --log-level warn)
  trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
  (run_on head "$BINARY" coordinator --listen "$NET.254:7070" --http "$NET.254:8000" --insecure-network --log-level warn) &
  (run_on head "$BINARY" decode --coordinator "$NET.254:7070" --data-listen "$NET.254:0" --threads 1 --name decode \
    "${network[@]}" "$@") &
  for node in $(nodes); do
    (run_on "$node" "$BINARY" prefill --coordinator "$NET.254:7070" --data-listen "$NET.$node:0" --threads 1 --name "node$node" \
      "${network[@]}" "$@") &
  done
  wait
}

noise() { # NODE NODE MBIT
  local sender='import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
bytes_per_second, packet, begin, sent = float(sys.argv[2]) * 125e3, b"n" * 1400, time.monotonic(), 0
while True:
    while sent <= (time.monotonic() - begin) * bytes_per_second:
        s.sendto(packet, (sys.argv[1], 9)); sent += len(packet)
    time.sleep(.002)'
  check_node "$1"
  check_node "$2"
  trap 'kill $(jobs -p) 2>/dev/null' EXIT
  ip netns exec "$(space "$1")" python3 -c "$sender" "$NET.$2" "$3" &
  ip netns exec "$(space "$2")" python3 -c "$sender" "$NET.$1" "$3" &
  wait
}

# CPU time against the clock, of the same work on the last node: no other run, and so no other disturbance, is compared with.
check() {
  is_up
  local node work quota
  node=$(nodes | tail -n 1)
  work='import time
begin, used, x = time.monotonic(), time.process_time(), 0
while time.process_time() - used < 1.5:
    for i in range(10000): x += i * i
print((time.process_time() - used) / (time.monotonic() - begin))'
  quota=$(cat "$(group "$node")/cpu.cfs_quota_us" 2>/dev/null || cut -d' ' -f1 "$(group "$node")/cpu.max")
  awk -v got="$(run_on "$node" python3 -c "$work")" -v share="$((quota * 100 / PERIOD_US))" 'BEGIN {
    ratio = got * 100 / share
    printf "node of %d %%: it gets %.3f of its share\n", share, ratio
    exit ratio < 0.98 || ratio > 1.02 }' || die "the shares do not hold on this machine now: what is measured is void"
}

down() {
  local space node folder
  for space in $(spaces); do
    ip netns pids "$space" | xargs -r kill 2>/dev/null || true
  done
  sleep 0.2
  for space in $(spaces); do
    ip netns pids "$space" | xargs -r kill -9 2>/dev/null || true
    ip netns del "$space"
  done
  folder=$(cpu_root)/runahead-$NAME
  [[ -d $folder ]] || return 0
  for node in "$folder"/*/; do
    for _ in $(seq 50); do rmdir "$node" 2>/dev/null && break || sleep 0.1; done
  done
  rmdir "$folder" 2>/dev/null || die "processes are left in $folder"
}

case ${1:-} in
  up) shift; up "$@" ;;
  down) down ;;
  cluster) shift; cluster "$@" ;;
  exec) shift; [[ $# -ge 2 ]] || die "exec NODE COMMAND..."; run_on "$@" ;;
  rank) node=${2:-}; shift 2 || die "rank NODE [FLAG...]"
    run_on "$node" "$BINARY" bench rank --data-listen "$NET.$node:0" --insecure-network --threads 1 "$@" ;;
  cpu) [[ $# -eq 3 ]] || die "cpu NODE PERCENT"; check_node "$2"; set_cpu "$2" "$3" ;;
  link) [[ $# -eq 3 ]] || die "link NODE RATE"; check_node "$2"; set_link "$2" "$3" ;;
  noise) [[ $# -eq 4 ]] || die "noise NODE NODE MBIT"; noise "$2" "$3" "$4" ;;
  check) check ;;
  -h | --help | '') sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" ;;
  *) die "there is no command '$1': testbed.sh --help" ;;
esac
