"""Runs a command as the chart's pods run, without a container engine: deploy/seccomp.json in force, a root that is read-only,
a user who is nobody, no capabilities, no new privileges. For root, within `unshare --mount`:

    unshare --mount --propagation private python3 jail.py PROFILE NEWROOT READABLE... -- COMMAND...

READABLE are paths that are seen in /mnt by their name alone. Of the files, /mnt/scratch and /dev/shm can be written, as in a
pod."""

import ctypes
import json
import os
import platform
import re
import struct
import subprocess
import sys
from pathlib import Path

USER = 65532  # of the chart
ARCHITECTURES = {"x86_64": ("SCMP_ARCH_X86_64", 0xC000003E), "aarch64": ("SCMP_ARCH_AARCH64", 0xC00000B7)}
LOAD, AND, EQUAL, GREATER_OR_EQUAL, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06  # opcodes of classic BPF
NUMBER_AT, ARCHITECTURE_AT, ARGS_AT = 0, 4, 16  # in struct seccomp_data
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
X32 = 0x40000000
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 24, 38, 22, 2
libc = ctypes.CDLL(None, use_errno=True)


def numbers():
    """name -> number of each call of this machine's kernel, by the headers that the compiler sees."""
    text = subprocess.run(["cc", "-dM", "-E", "-include", "sys/syscall.h", "-"], input="", capture_output=True, text=True,
                          check=True).stdout
    defined = dict(re.findall(r"#define (__NR\w+) (\w+)", text))
    resolved = {name[5:]: defined.get(value, value) for name, value in defined.items() if name.startswith("__NR_")}
    return {name: int(value) for name, value in resolved.items() if value.isdigit()}


def program(profile, number_of):
    """The profile as classic BPF. Arguments are compared by their lower half, which holds all that this profile asks about."""
    machine, audit = ARCHITECTURES[platform.machine()]
    assert machine in profile["architectures"]
    verdict = {"SCMP_ACT_ALLOW": lambda rule: ALLOW, "SCMP_ACT_ERRNO": lambda rule: ERRNO | rule["errnoRet"]}
    code = [(LOAD, 0, 0, ARCHITECTURE_AT), (EQUAL, 1, 0, audit), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER_AT),
            (GREATER_OR_EQUAL, 0, 1, X32), (RETURN, 0, 0, ERRNO | profile["defaultErrnoRet"])]
    for rule in profile["syscalls"]:
        for name in rule["names"]:
            if name not in number_of:  # of another architecture
                continue
            checks = []
            for arg in rule.get("args", []):
                checks.append((LOAD, 0, 0, ARGS_AT + 8 * arg["index"]))
                if arg["op"] == "SCMP_CMP_MASKED_EQ":
                    checks += [(AND, 0, 0, arg["value"]), (EQUAL, 0, None, arg["valueTwo"])]
                else:
                    assert arg["op"] == "SCMP_CMP_EQ"
                    checks.append((EQUAL, 0, None, arg["value"]))
            checks.append((RETURN, 0, 0, verdict[rule["action"]](rule)))
            code.append((EQUAL, 0, len(checks), number_of[name]))
            code += [(op, yes, len(checks) - i - 1 if no is None else no, k) for i, (op, yes, no, k) in enumerate(checks)]
            if len(checks) > 1:
                code.append((LOAD, 0, 0, NUMBER_AT))
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    code.append((RETURN, 0, 0, ERRNO | profile["defaultErrnoRet"]))
    return b"".join(struct.pack("=HBBI", *line) for line in code)


def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True)


def build_root(root, readable):
    mount("--bind", "/", root)
    mount("-o", "remount,bind,ro", root)
    for kernel in ("dev", "proc", "sys"):
        mount("--rbind", f"/{kernel}", root / kernel)
    mount("-t", "tmpfs", "-o", "mode=1777", "shm", root / "dev/shm")
    mount("-t", "tmpfs", "-o", "mode=0755", "mnt", root / "mnt")
    (root / "mnt/scratch").mkdir()
    mount("-t", "tmpfs", "-o", "mode=1777", "scratch", root / "mnt/scratch")
    for path in readable:
        place = root / "mnt" / path.name
        place.mkdir() if path.is_dir() else place.touch()
        mount("--bind", path, place)
        mount("-o", "remount,bind,ro", place)
    mount("-o", "remount,ro", root / "mnt")


def prctl(option, first, second=0):
    if libc.prctl(option, ctypes.c_ulong(first), second, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def main():
    cut = sys.argv.index("--")
    profile, root, *readable = map(Path, sys.argv[1:cut])
    filters = program(json.loads(profile.read_text()), numbers())
    build_root(root, readable)
    os.chroot(root)
    os.chdir("/mnt/scratch")
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        prctl(PR_CAPBSET_DROP, capability)
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    lines = ctypes.create_string_buffer(filters, len(filters))
    prctl(PR_SET_SECCOMP, FILTER, ctypes.create_string_buffer(struct.pack("@HP", len(filters) // 8, ctypes.addressof(lines))))
    os.execv(sys.argv[cut + 1], sys.argv[cut + 1:])


if __name__ == "__main__":
    main()
