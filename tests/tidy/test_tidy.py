"""Each rule of tidy.py on the tree, and on a planted fault that it must find."""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import tidy  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tree():
    return tidy.Tree(ROOT)


@pytest.mark.parametrize("rule", tidy.RULES, ids=lambda rule: rule.__name__)
def test_the_tree_is_tidy(tree, rule):
    found = [f"{finding.path}:{finding.line}: {finding.text}" for finding in rule(tree)]
    assert not found, f"{len(found)} findings; {found[0]}\n" + "\n".join(found)


def test_the_tree_is_formatted(tree):
    done = tidy.clang_format(tree, "--dry-run", "-Werror")
    assert done.returncode == 0, "run tests/tidy/tidy.py --fix\n" + done.stderr


def test_a_file_that_is_not_formatted_is_found(tmp_path):
    (tmp_path / ".clang-format").write_text((ROOT / ".clang-format").read_text())
    (tmp_path / "a.cc").write_text("int  f( ) { return 1; }\n")
    assert "a.cc:1:" in tidy.clang_format(tidy.Tree(tmp_path), "--dry-run", "-Werror").stderr
    tidy.clang_format(tidy.Tree(tmp_path), "-i")
    assert (tmp_path / "a.cc").read_text() == "int f() { return 1; }\n"


def test_the_include_graph_is_printed(tree, capsys):
    graph = tidy.IncludeGraph(tree, tidy.PRODUCT)
    with capsys.disabled():
        print("\nincludes, by folder:\n" + "\n".join(graph.table()))
    assert len(graph.includes) == sum(len(found) for found in graph.edges.values()) > 500
    assert set(tidy.PRODUCT) == {tidy.top_of(folder) for folder in graph.folders}


def found_in(tmp_path, rule, files):
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return [(finding.path, finding.line) for finding in rule(tidy.Tree(tmp_path))]


NOTE = "TO" + "DO"
HOME = "/ro" + "ot/x"
HOST = "py" + "pi.org"
FAULTS = [
    (tidy.banned_calls, {"services/a.cc": "auto text = body.dump();\n"}, ("services/a.cc", 1)),
    (tidy.include_directions, {"model/a.cc": '#include "actors/b.h"\n'}, ("model/a.cc", 1)),
    (tidy.include_directions, {"kernels/a.cc": '\n#include "model/b.h"\n'}, ("kernels/a.cc", 2)),
    (tidy.include_directions, {"base/a.h": '#include "tests/b.h"\n'}, ("base/a.h", 1)),
    (tidy.include_cycles, {"services/x/a.h": '#include "services/y/b.h"\n', "services/y/b.h": '#include "services/z/c.h"\n',
                           "services/z/c.h": '\n#include "services/x/a.h"\n'}, ("services/z/c.h", 2)),
    (tidy.include_cycles, {"actors/a.h": '#include "actors/x/b.h"\n', "actors/x/b.h": '#include "actors/a.h"\n'},
     ("actors/x/b.h", 1)),
    (tidy.include_cycles, {"model/a.h": "int x;\n", "model/weights/b.h": '#include "model/a.h"\n'}, ("model", 1)),
    (tidy.folders_apart, {"actors/worker/a.h": '#include "actors/coordinator/b.h"\n', "actors/coordinator/b.h": ""},
     ("actors/worker/a.h", 1)),
    (tidy.unrelated_files, {"base/x/a.h": "", "base/x/b.h": '#include "base/x/a.h"\n', "base/x/c.h": "", "base/x/c.cc": ""},
     ("base/x/c.cc", 1)),
    (tidy.unrelated_files, {"services/http/http_client.h": "", "services/http/b.h": '#include "services/http/http_client.h"\n'},
     ("services/http/http_client.h", 1)),
    (tidy.library_homes, {"planner/a.cc": "#include <google/protobuf/message.h>\n"}, ("planner/a.cc", 1)),
    (tidy.library_homes, {"services/a.cc": '#include "proto/control.pb.h"\n'}, ("services/a.cc", 1)),
    (tidy.library_homes, {"transport/tcp.cc": "#include <ucp/api/ucp.h>\n"}, ("transport/tcp.cc", 1)),
    (tidy.library_homes, {"actors/a.cc": "#include <boost/beast/http.hpp>\n"}, ("actors/a.cc", 1)),
    (tidy.library_homes, {"model/a.cc": "#include <immintrin.h>\n"}, ("model/a.cc", 1)),
    (tidy.banned_calls, {"base/a.cc": "std::regex pattern;\n"}, ("base/a.cc", 1)),
    (tidy.banned_calls, {"tests/a.cc": "int x = atoi(text);\n"}, ("tests/a.cc", 1)),
    (tidy.banned_calls, {"base/a.cc": "int x = rand();\n"}, ("base/a.cc", 1)),
    (tidy.banned_calls, {"base/a.cc": "sprintf(out, format);\n"}, ("base/a.cc", 1)),
    (tidy.banned_calls, {"planner/a.cc": "auto t = std::chrono::steady_clock::now();\n"}, ("planner/a.cc", 1)),
    (tidy.banned_calls, {"model/a.cc": 'auto* home = std::getenv("HOME");\n'}, ("model/a.cc", 1)),
    (tidy.banned_calls, {"actors/a.cc": "std::mutex mutex_;\n"}, ("actors/a.cc", 1)),
    (tidy.banned_calls, {"actors/a.cc": "Step step{.a = 1,\n          .b = TRY(parse(x))};\n"}, ("actors/a.cc", 2)),
    (tidy.unused_exceptions, {"model/weights/weights.cc": "int x;\n"}, ("model/weights/weights.cc", 1)),
    (tidy.line_lengths, {"base/a.cc": "\n//" + "x" * (tidy.LINE_COLUMNS_MAX - 1) + "\n"}, ("base/a.cc", 2)),
    (tidy.file_lengths, {"base/a.cc": "//\n" * 601}, ("base/a.cc", 601)),
    (tidy.dead_sources, {"model/extra/a.cc": "int x;\n", "model/CMakeLists.txt": "runahead_library(model)\n"},
     ("model/extra/a.cc", 1)),
    (tidy.dead_headers, {"base/a.h": "int x;\n", "base/b.cc": '#include "base/c.h"\n'}, ("base/a.h", 1)),
    (tidy.dead_headers, {"base/a.h": "", "base/a.cc": '#include "base/a.h"\n', "tests/b.cc": '#include "base/a.h"\n'},
     ("base/a.h", 1)),
    (tidy.pragma_once, {"base/a.h": "int x;\n"}, ("base/a.h", 1)),
    (tidy.notes_to_self, {"docs/a.md": f"{NOTE}: write this\n"}, ("docs/a.md", 1)),
    (tidy.machine_traces, {"docs/a.md": f"see {HOME}\n"}, ("docs/a.md", 1)),
    (tidy.machine_traces, {"deploy/a.sh": f"pip install --index-url {HOST}\n"}, ("deploy/a.sh", 1)),
    (tidy.cited_paths, {"base/a.h": "// Measured in docs/gone.md.\n"}, ("base/a.h", 1)),
    (tidy.cited_paths, {"docs/a.md": "as `reference/" + "paper.md` says\n"}, ("docs/a.md", 1)),
    (tidy.crlf_and_tail, {"base/a.cc": "int x;"}, ("base/a.cc", 1)),
]


@pytest.mark.parametrize(("rule", "files", "expected"), FAULTS,
                         ids=[f"{fault[0].__name__}-{i}" for i, fault in enumerate(FAULTS)])
def test_a_planted_fault_is_found(tmp_path, rule, files, expected):
    assert expected in found_in(tmp_path, rule, files)


CLEAN = [
    (tidy.include_directions, {"actors/a.cc": '#include "planner/b.h"\n#include "kernels/compute_mode.h"\n'}),
    (tidy.include_cycles, {"actors/a.h": "", "actors/x/b.h": '#include "actors/a.h"\n#include "base/c.h"\n', "base/c.h": ""}),
    (tidy.unrelated_files, {"model/x/a.h": '#include "model/b.h"\n', "model/b.h": '#include "model/x/c.h"\n',
                            "model/x/c.h": "", "model/x/c.cc": "", "base/d.h": "", "base/e.h": ""}),
    (tidy.library_homes, {"transport/kv/ucx_kv_transport.cc": "#include <ucp/api/ucp.h>\n"}),
    (tidy.library_homes, {"base/boost_impl.cc": "#include <boost/beast/src.hpp>\n"}),
    (tidy.library_homes, {"tests/e2e/a.cc": "#include <boost/beast/http.hpp>\n"}),
    (tidy.banned_calls, {"model/a.cc": "// not std::mutex, not atoi(x)\nstrand(x); z.rand(1);\nsnprintf(a, 9, b);\n"}),
    (tidy.banned_calls, {"services/a.cc": "auto t = std::chrono::steady_clock::now();\n"}),
    (tidy.banned_calls, {"actors/a.cc": "step.b = TRY(parse(x));\n"}),
    (tidy.cited_paths, {"base/a.h": "// See base/a and base/b.cc, base/*.h, proto/x.pb.h.\n", "base/b.cc": ""}),
    (tidy.dead_sources, {"model/a.cc": "", "model/CMakeLists.txt": "runahead_library(model)\n"}),
    (tidy.dead_sources, {"model/x/a.cc": "", "model/CMakeLists.txt": "runahead_library(model FOLDERS x LINKS base)\n"}),
    (tidy.dead_sources, {"tests/fuzz/frame_fuzz.cc": "", "tests/fuzz/CMakeLists.txt": "runahead_fuzzer(frame_fuzz)\n"}),
    (tidy.dead_sources, {"kernels/cpu/gemm.cc": "", "kernels/CMakeLists.txt": "runahead_isa(cpu/gemm.cc)\n"}),
]


@pytest.mark.parametrize(("rule", "files"), CLEAN, ids=[f"{c[0].__name__}-{i}" for i, c in enumerate(CLEAN)])
def test_what_is_right_is_not_blamed(tmp_path, rule, files):
    assert found_in(tmp_path, rule, files) == []
