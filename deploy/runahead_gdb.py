"""gdb: what our types mean instead of what they are made of. In gdb: source deploy/runahead_gdb.py

Result<T> (std::expected of GCC 12), Error, AttemptId, PageRange and TokenRange, KvLease, KvPool.
"""
import gdb
import gdb.printing


def text(value):
    """A std::string without gdb's libstdc++ printers."""
    begin, size = value["_M_dataplus"]["_M_p"], int(value["_M_string_length"])
    return begin.string("utf-8", "replace", size) if size else ""


def error(value):
    code = str(value["code"]).rsplit("::", 1)[-1]
    param = text(value["param"])
    return f'{code} "{text(value["message"])}"' + (f" ({param})" if param else "")


class Summary:
    """A printer that is one line."""

    def __init__(self, value):
        self.value = value


class ErrorPrinter(Summary):
    def to_string(self):
        return "Error " + error(self.value)


class ResultPrinter(Summary):
    def to_string(self):
        if not bool(self.value["_M_has_value"]):
            return "failed: " + error(self.value["_M_unex"])
        if self.value.type.strip_typedefs().template_argument(0).code == gdb.TYPE_CODE_VOID:
            return "ok"
        return f"ok: {self.value['_M_val']}"


class AttemptIdPrinter(Summary):
    def to_string(self):
        return f"attempt {int(self.value['request'])}.{int(self.value['attempt'])} of epoch {int(self.value['epoch'])}"


class RangePrinter(Summary):
    def to_string(self):
        return f"[{int(self.value['begin'])}, {int(self.value['end'])})"


class LeasePrinter(Summary):
    def to_string(self):
        shape = self.value["shape_"]
        layers = shape["layers"]["_M_impl"]
        num_layers = int(layers["_M_finish"] - layers["_M_start"])
        shared = int(shape["shared"])
        state = f", {shared} shared" if shared else ""
        return f"KvLease {num_layers} layers x {int(shape['num_pages'])} pages{state}"


class PoolPrinter(Summary):
    def to_string(self):
        usage = self.value["usage_"]
        parts = [f"{int(usage[name])} {name}" for name in ("free", "kept", "leased", "quarantined")]
        return f"KvPool {int(usage['total'])} pages of {int(self.value['page_bytes_'])} bytes: " + ", ".join(parts)


def printers():
    collection = gdb.printing.RegexpCollectionPrettyPrinter("runahead")
    collection.add_printer("Error", r"^runahead::Error$", ErrorPrinter)
    collection.add_printer("Result", r"^std::expected<.*, runahead::Error>$", ResultPrinter)
    collection.add_printer("AttemptId", r"^runahead::AttemptId$", AttemptIdPrinter)
    collection.add_printer("Range", r"^runahead::(Token|Page|Row)Range$", RangePrinter)
    collection.add_printer("KvLease", r"^runahead::KvLease$", LeasePrinter)
    collection.add_printer("KvPool", r"^runahead::KvPool$", PoolPrinter)
    return collection


gdb.printing.register_pretty_printer(gdb.current_objfile(), printers(), replace=True)
