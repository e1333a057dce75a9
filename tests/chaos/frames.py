"""Both planes' bytes cut into units, as docs/wire.md describes them: what the proxy drops, doubles and swaps as a whole."""

import struct

PREAMBLE = 8
HELLO = 80
REPLY = 4
PAGE_HEADER = 80
PAGE_BYTES_AT = 72  # of the header

# Field numbers of Envelope's body in proto/control.proto.
BODIES = {10: "hello", 11: "welcome", 12: "refused", 13: "heartbeat", 14: "drain", 20: "run_chain_step", 21: "run_decode",
          22: "rank_progress", 23: "first_token", 24: "rank_done", 25: "token_batch", 26: "decode_done", 27: "attempt_failed",
          28: "end_attempt", 29: "attempt_ended", 30: "prompt_scores", 31: "prompt_kept"}


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def message_name(payload):
    """Of a serialised Envelope: the field of its body."""
    at = 0
    while at < len(payload):
        tag, at = varint(payload, at)
        field, kind = tag >> 3, tag & 7
        if field in BODIES:
            return BODIES[field]
        if kind != 0:
            return "unknown"
        _, at = varint(payload, at)
    return "unknown"


class Units:
    """feed(bytes) -> [(kind or None, bytes)]: whole units; a kind of None goes through untouched."""

    def __init__(self):
        self.data = bytearray()

    def feed(self, data):
        self.data += data
        found = []
        while True:
            size, kind = self.next_unit()
            if size is None or len(self.data) < size:
                return found
            unit = bytes(self.data[:size])
            del self.data[:size]
            found.append((kind(unit) if callable(kind) else kind, unit))


class ControlUnits(Units):
    """The preamble, then frames."""

    def __init__(self, _way=None):
        super().__init__()
        self.greeted = False

    def next_unit(self):
        if not self.greeted:
            if len(self.data) < PREAMBLE:
                return None, None
            self.greeted = True
            return PREAMBLE, None
        if len(self.data) < 4:
            return None, None
        return 4 + struct.unpack_from("<I", self.data)[0], lambda unit: message_name(unit[4:])


class PageUnits(Units):
    """A stream over TCP. `up` is the receiver's side: preamble, hello, replies. `down` the sender's: preamble, reply, pages."""

    def __init__(self, way):
        super().__init__()
        self.way, self.step = way, 0

    def next_unit(self):
        fixed = [PREAMBLE, HELLO] if self.way == "up" else [PREAMBLE, REPLY]
        if self.step < len(fixed):
            size = fixed[self.step]
            if len(self.data) < size:
                return None, None
            self.step += 1
            return size, None
        if self.way == "up":
            return (REPLY if len(self.data) >= REPLY else None), None
        if len(self.data) < PAGE_HEADER:
            return None, None
        return PAGE_HEADER + struct.unpack_from("<I", self.data, PAGE_BYTES_AT)[0], "page"
