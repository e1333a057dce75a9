#!/usr/bin/env python3
"""Writes python_text.json: what Python's str says of every character that its Unicode knows.

"assigned" and the kinds are lists of [first, last]; the case maps are "<character><result>" of those that change, one
after the other with a space between. "sigma_behind" are the characters behind which, in a word, a capital sigma becomes
the final one; "sigma_before" those before which it does.
Run: python3 tests/golden/make_python_text.py
"""
import json
import sys
import unicodedata
from pathlib import Path

CHARACTERS = [chr(c) for c in range(sys.maxunicode + 1)
              if unicodedata.category(chr(c)) != "Cn" and not 0xD800 <= c < 0xE000]
KINDS = {
    "space": str.isspace, "alpha": str.isalpha, "decimal": str.isdecimal, "digit": str.isdigit, "numeric": str.isnumeric,
    "alnum": str.isalnum, "printable": str.isprintable, "upper": str.isupper, "lower": str.islower,
    "sigma_behind": lambda c: ("A" + c + "Σ").lower().endswith("ς"),
    "sigma_before": lambda c: ("AΣ" + c + "a").lower()[1] == "ς",
}
MAPS = {"to_upper": str.upper, "to_lower": str.lower, "casefold": str.casefold, "title": str.title}


def ranges(accepts):
    found = []
    for code in map(ord, filter(accepts, CHARACTERS)):
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return found


def main():
    kinds = {name: ranges(accepts) for name, accepts in KINDS.items()}
    maps = {name: " ".join(c + change(c) for c in CHARACTERS if change(c) != c) for name, change in MAPS.items()}
    fixture = {"unicode": unicodedata.unidata_version, "assigned": ranges(lambda c: True), "kinds": kinds, "maps": maps}
    path = Path(__file__).with_name("python_text.json")
    path.write_text(json.dumps(fixture, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
