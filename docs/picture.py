#!/usr/bin/env python3
"""Takes docs/page.png anew: the built-in page in headless Chromium, while three workers compute a long prompt.

    docs/picture.py [--binary build/release/runahead] [--output docs/page.png]

It needs the default model (deploy/setup.sh fetches it) and Chromium (Debian package chromium). Nothing is posed: the cluster, the
requests and the numbers are those of this machine at that moment.
"""
import argparse
import functools
import json
import os
import struct
import sys
import tempfile
import threading
import zlib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/e2e"))
from browser import CHROMIUM, Browser  # noqa: E402
from conftest import eventually, start_service  # noqa: E402

WIDTH, HEIGHT = 1440, 900
WORKERS = 3
BYTES_MAX = 200_000  # of the picture, which every visitor of the README loads
FREQUENT, MARK_PIXELS = 192, 20  # colours by their number of pixels; the least that a mark in a colour of its own has
DOCUMENT = (ROOT / "deploy/examples/handbook.txt").read_text()


def ask(service, text, max_tokens, strategy="auto"):
    answer = service.post("/v1/completions", {"prompt": text, "max_tokens": max_tokens, "temperature": 0,
                                              "runahead": {"strategy": strategy}})
    assert answer.status == 200, answer.body


def learn(service):
    """What every worker and link can do, so that the chain is planned by measured speeds."""
    words = DOCUMENT.split()
    for begin in range(1, 4):
        ask(service, " ".join(words[begin * 100:] + words[:begin * 100]), 2, "balanced")


def play(browser):
    """The playground's answer, typed as a visitor would."""
    fields = {"prompt": "Why is the sky blue?", "max-tokens": 110, "temperature": 0}
    for name, value in fields.items():
        browser.evaluate(f"document.getElementById('{name}').value = {json.dumps(value)}")
    browser.evaluate("document.getElementById('send').click()")
    browser.wait_for("document.getElementById('play-state').textContent.includes('in the service')", 60)


def choose(browser, prompt_tokens_min):
    """Shows the report of the newest ended request with a long prompt."""
    row = f"""[...document.querySelectorAll('#requests tbody tr')].find(row =>
        row.querySelector('.status').innerText.startsWith('succeeded') &&
        Number(row.querySelector('.number').innerText.replace(',', '')) > {prompt_tokens_min})"""
    browser.evaluate(f"{row}.querySelector('button.row').click()")
    browser.wait_for(f"document.querySelectorAll('#report .rank').length >= {WORKERS}")


def paeth(left, up, corner):
    estimate = left + up - corner
    distances = abs(estimate - left), abs(estimate - up), abs(estimate - corner)
    return (left, up, corner)[distances.index(min(distances))]


def rows_of(png):
    """The pixels of a PNG as Chromium writes it (8 bits, RGB or RGBA, not interlaced): each row as bytes, and bytes a pixel."""
    width, height, _, kind = struct.unpack(">IIBB", png[16:26])
    size, at, data = {2: 3, 6: 4}[kind], 8, b""
    while at < len(png):
        length, name = struct.unpack(">I4s", png[at:at + 8])
        data += png[at + 8:at + 8 + length] if name == b"IDAT" else b""
        at += 12 + length
    data, before = zlib.decompress(data), bytes(width * size)
    for row in range(height):
        begin = row * (width * size + 1)
        line = bytearray(data[begin + 1:begin + 1 + width * size])
        how = data[begin]
        for i, value in enumerate(line) if how else ():
            left = line[i - size] if i >= size else 0
            corner = before[i - size] if i >= size else 0
            guess = (0, left, before[i], (left + before[i]) // 2)[how] if how < 4 else paeth(left, before[i], corner)
            line[i] = (value + guess) & 255
        before = bytes(line)
        yield before, size


def distance(one, other):
    return sum((a - b) ** 2 for a, b in zip(one, other))


def colours_of(counted):
    """256 of them: those that the picture has most of, then those that are least like any before, for its small marks."""
    palette = [colour for colour, _ in counted.most_common(FREQUENT)]
    marks = [colour for colour, pixels in counted.items() if pixels >= MARK_PIXELS]
    others = {colour: min(distance(colour, each) for each in palette) for colour in marks}
    while others and len(palette) < 256:
        chosen = max(others, key=others.get)
        palette.append(chosen)
        others = {colour: min(near, distance(colour, chosen)) for colour, near in others.items() if colour != chosen}
    return palette


def shrink(png):
    """The same picture in 256 colours: a page of text needs no more, and takes a third."""
    rows = [[tuple(row[i:i + 3]) for i in range(0, len(row), size)] for row, size in rows_of(png)]
    palette = colours_of(Counter(pixel for row in rows for pixel in row))

    @functools.cache
    def nearest(colour):
        return min(range(len(palette)), key=lambda i: distance(palette[i], colour))

    lines = b"".join(b"\0" + bytes(map(nearest, row)) for row in rows)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 3, 0, 0, 0)), (b"PLTE", bytes(sum(palette, ()))),
              (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
                                            for kind, data in chunks)


def take(service, browser, path):
    learn(service)
    browser.show_as(WIDTH, HEIGHT)
    browser.open(service.url + "/")
    browser.wait_for(f"document.querySelectorAll('#chain .node').length === {WORKERS + 2}")
    ask(service, DOCUMENT, 24, "balanced")
    play(browser)
    asking = threading.Thread(target=ask, args=(service, DOCUMENT[::-1][:9000], 4, "balanced"))
    asking.start()
    choose(browser, prompt_tokens_min=2500)
    browser.wait_for("/prefill [3-7]\\d/.test(document.querySelector('#requests tbody .status').innerText)", 60)
    browser.screenshot(path)
    asking.join(120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=os.environ.get("RUNAHEAD_BINARY", str(ROOT / "build/release/runahead")))
    parser.add_argument("--output", type=Path, default=ROOT / "docs/page.png")
    options = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("picture.py: there is no Chromium here: install the Debian package chromium")
    if not Path(options.binary).exists():
        sys.exit(f"picture.py: {options.binary} is not there: cmake --build --preset release, or --binary")
    os.environ["RUNAHEAD_BINARY"] = options.binary
    service = start_service("--threads-per-worker", "1", workers=WORKERS)
    try:
        with tempfile.TemporaryDirectory() as profile:
            browser = Browser(profile)
            try:
                take(service, browser, options.output)
            finally:
                browser.close()
        eventually(service.at_rest, what="all requests ended")
    finally:
        service.stop()
    options.output.write_bytes(shrink(options.output.read_bytes()))
    size = options.output.stat().st_size
    if size > BYTES_MAX:
        sys.exit(f"picture.py: {options.output} has {size} bytes; a README's picture may have {BYTES_MAX}")
    print(f"{options.output}: {size} bytes")


if __name__ == "__main__":
    main()
