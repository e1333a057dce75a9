"""What of cmake/hardening.cmake a file that was built has: its ELF headers, what it imports, and what its debug information says
of the flags of every source. `python3 tests/deploy/elf_hardening.py FILE...` prints what is missing."""
import re
import struct
import subprocess
import sys
from pathlib import Path

ENDBR64 = bytes.fromhex("f30f1efa")
SOURCE_FLAGS = ("-fstack-protector-strong", "-fstack-clash-protection")
X86_FLAGS = ("-fcf-protection=full",)
X86_64 = 62


def in_force(flag, words):
    """Of the forms of an option, the last one counts."""
    family = flag.removeprefix("-f").split("=")[0].removesuffix("-strong")
    forms = [word for word in words if re.match(rf"-f(?:no-)?{family}(?![a-z])", word)]
    return bool(forms) and forms[-1] == flag


def readelf(*arguments):
    return subprocess.run(["readelf", "-W", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=True).stdout


class Elf:
    """The parts of a 64-bit little-endian file that the checks read."""

    def __init__(self, path):
        self.path, self.bytes = Path(path), Path(path).read_bytes()
        assert self.bytes[:6] == b"\x7fELF\x02\x01", f"{path} is no 64-bit little-endian ELF file"
        self.type, self.machine = struct.unpack_from("<HH", self.bytes, 16)
        at, size, count, names = struct.unpack_from("<Q10xHHH", self.bytes, 40)
        headers = [struct.unpack_from("<IIQQQQ", self.bytes, at + i * size) for i in range(count)]
        text = self.bytes[headers[names][4]:][:headers[names][5]]
        name = lambda start: text[start:text.index(b"\0", start)].decode()
        self.sections = {name(h[0]): {"address": h[3], "offset": h[4], "size": h[5]} for h in headers}

    def section(self, name):
        where = self.sections.get(name)
        return self.bytes[where["offset"]:where["offset"] + where["size"]] if where else b""

    def segments(self):
        """[(type, flags)], as readelf names them."""
        return re.findall(r"^  ([A-Z_]+) +0x\S+ 0x\S+ 0x\S+ 0x\S+ 0x\S+ ([RWE ]{3}) 0x", readelf("-l", self.path), re.MULTILINE)

    def dynamic(self):
        return readelf("-d", self.path)

    def imports(self):
        return set(re.findall(r" UND (\w+)", readelf("--dyn-syms", self.path)))

    def producers(self):
        """What GCC says of each kind of source; the linker has made one of equal ones."""
        return [text.decode() for text in re.findall(rb"GNU C(?:\+\+)?\d+ [^\0]+", self.section(".debug_str"))]

    def begin_of(self, function):
        found = re.search(rf"^ *\d+: (\w+) .* FUNC .* {function}$", readelf("-s", self.path), re.MULTILINE)
        text = self.sections[".text"]
        return self.bytes[int(found[1], 16) - text["address"] + text["offset"]:][:4] if found else None


def of_segments(elf):
    segments = elf.segments()
    kinds = dict(segments)
    yield "RELRO" if "GNU_RELRO" not in kinds else None
    yield "a stack that cannot be executed" if "E" in kinds.get("GNU_STACK", "E") else None
    yield "code that cannot be written" if any({"W", "E"} <= set(flags) for _, flags in segments) else None
    loads = [flags for kind, flags in segments if kind == "LOAD"]
    yield "a segment of code without data" if loads and "E" in loads[0] else None


def of_dynamic(elf, is_program):
    dynamic = elf.dynamic()
    yield "BIND_NOW" if not re.search(r"\((?:FLAGS|FLAGS_1)\).*\b(?:NOW|BIND_NOW)\b", dynamic) else None
    yield "no RPATH" if re.search(r"\((?:RPATH|RUNPATH)\)", dynamic) else None
    yield "no text relocations" if "(TEXTREL)" in dynamic else None
    yield "PIE" if is_program and not re.search(r"FLAGS_1\).*\bPIE\b", dynamic) else None


def of_code(elf, is_program):
    imports = elf.imports()
    yield "a stack protector" if "__stack_chk_fail" not in imports else None
    yield "checked copies" if is_program and not any(name.endswith("_chk") for name in imports - {"__stack_chk_fail"}) else None
    producers = elf.producers()
    yield "debug information, which names the flags" if not producers else None
    for flag in SOURCE_FLAGS + (X86_FLAGS if elf.machine == X86_64 else ()):
        without = [producer for producer in producers if not in_force(flag, producer.split())]
        yield f"{flag} in {len(without)} of {len(producers)} kinds of sources" if without else None
    if is_program and elf.machine == X86_64:
        yield "ENDBR64 at main()" if elf.begin_of("main") != ENDBR64 else None


def missing(path):
    """What the file lacks, in words; empty: nothing."""
    elf = Elf(path)
    is_program = ".interp" in elf.sections
    return [word for part in (of_segments(elf), of_dynamic(elf, is_program), of_code(elf, is_program)) for word in part if word]


if __name__ == "__main__":
    faults = {path: missing(path) for path in sys.argv[1:]}
    for path, words in faults.items():
        print(f"{path}: {'lacks ' + '; '.join(words) if words else 'has all'}")
    sys.exit(any(faults.values()))
