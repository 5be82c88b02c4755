"""The allow-list of generated source: everything that nnc generates passes, and nothing harmful does."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.diagnostics import UserError
from compiler.ir.op import Op, Sample
from compiler.ir.types import NUMPY_NAMES
from compiler.ops.randomness import DISTRIBUTIONS
from compiler.passes.pipeline import run_pipeline
from compiler.reports.profile import with_clock
from compiler.targets.numpy.ops import UFUNCS
from compiler.targets.registry import TARGETS
from compiler.targets.running import find_runtime
from compiler.targets.target import find_target
from runtime.allowed import CPU_PROGRAMS, DTYPES, RefusedSource, checked_code
from runtime.program import Executable, load_functions
from tests.gpu.samples import BATCH, graph_of
from tests.programs import MODELS, compile_text, compiled_model
from tests.targets.test_against_interpreter import SAMPLES


def passes(source: str, target: str) -> None:
    checked_code(source, "<test>", find_runtime(target).allowed)


# Generated source -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("model", MODELS)
def test_models(model: str, target: str):
    executable = compiled_model(model, target).executable
    for each in filter(None, (executable, executable.initializer)):
        passes(each.source, each.target)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("inside", [False, True])
def test_with_a_clock(target: str, inside: bool):
    passes(with_clock(compiled_model("bilstm", target), "train_step", inside)[0].source, target)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("op", "sample"), SAMPLES)
def test_op_samples(op: Op, sample: Sample, target: str):
    chosen = find_target(target)
    module = run_pipeline({"sample": graph_of(op, sample)}, chosen.pipeline)
    plans, variables = chosen.plan(module, BATCH)
    try:
        source = chosen.generate("a test", plans, variables)
    except UserError:  # an op that this target does not have
        return
    passes(source, target)


def test_names_of_a_model_do_not_matter():
    names = ("tiles", "tick", "clock", "ValueError", "Clock", "run_tiles", "copy", "eval", "__class__", "bind_run")
    inputs = ", ".join(f"{name}_: f32[B, 2]" for name in names)
    layers = "".join(f"layer {n}()(x: f32[B, n]) {{ param {n}: f32[n] = ones\n return x * {n} }}\n" for n in names)
    chain = " |> ".join(["tiles_", *names])
    text = f"{layers}model M({inputs}) {{ return {chain} }}\ntrain M {{ loss = mean_squared_error; optimizer = SGD }}"
    passes(compile_text(text).executable.source, "numpy")


def test_the_list_has_what_the_generators_write():
    assert CPU_PROGRAMS.members["np"] >= set(UFUNCS.values())
    assert set(NUMPY_NAMES.values()) == DTYPES
    assert CPU_PROGRAMS.words["distribution"] == set(DISTRIBUTIONS)
    assert all(hasattr(np, name) for name in CPU_PROGRAMS.members["np"])


# Other source ---------------------------------------------------------------------------------------------------------

MODULE = """
import os
import numpy
import numpy as os
import numpy as np, os
from os import system
from runtime import program
from runtime.cpu import kernels as np
from runtime.cpu.kernels import *
from .kernels import view
from __future__ import annotations
global np
x = 1
x: int = 1
x = y = "text"
x = eval("1")
x = np.copyto("1")
x = ElementwiseKernel(open("/etc/passwd"), "")
from runtime.gpu.cuda import RawKernel; x = RawKernel("text", name="x")
from runtime.gpu.cuda import RawKernel; x = RawKernel("text" * 9, "x")
from runtime.gpu.cuda import RawKernel; x = RawKernel(f"{1}", "x")
from runtime.cpu.profiler import Clock; view = Clock()
from runtime.cpu.profiler import Clock; clock = Clock(1)
_ = "text"
np = "text"
ValueError = "text"
print(1)
"text"
del np
class bind_x: pass
async def bind_x(arena, B): pass
def other(arena, B): pass
def bind_x(arena, B=print): pass
def bind_x(*arena): pass
def bind_x(**arena): pass
def bind_x(arena, *, B): pass
def bind_x(arena: print(1)): pass
def bind_x(arena) -> print(1): pass
def bind_x(np): pass
def bind_x(_): pass
@print
if 1: pass
for x in (): pass
while 1: pass
with open("x"): pass
try: pass
assert print(1)
match 1:
raise ValueError(1)
x = "text" if 1 else "text"
"""
BODY = """
import os
from runtime.cpu import kernels
global B
nonlocal B
open("x")
exec("x")
eval("x")
print(B)
getattr(np, "x")
__import__("os")
__builtins__
B.__class__
B.__class__()
().__class__.__bases__
B.real
B.base
B.ctypes
B.tofile("x")
B.dump("x")
np.load("x")
np.save("x", B)
np.fromfile("x")
np.memmap("x")
np.lib.format
np.ctypeslib
np.testing
np.frompyfunc(B, 1, 1)
np.zeros(9)
kernels.basic
kernels.np
kernels.__dict__
clock.__init__
np.add.__self__
np.add.reduce(B)
np = 1
B = np.load
ValueError = 1
_ = 1
B.shape = 1
np.add = 1
B += 1
B: int = 1
(B := 1)
v = w = 1
v, w = 1, 2
[v] = B
v = unknown
v = [B for B in B]
v = {B for B in B}
v = {B: B for B in B}
v = (B for B in B)
v = [1]
v = {1}
v = {**B}
v = {B: B}
v = {f"x": B}
v = lambda: B
v = (lambda: B)()
v = f"{B}"
v = f"{open('x')}"
v = "text"
v = "text" * 9
v = b"text"
v = 1j
v = B if B else B
v = B and B
v = not B
v = B < B
v = ~B
v = B % B
v = B @ B
v = B << 9
v = 9 ** 9
v = B ** 99999
v = B ** B
v = 9 ** 9 ** 9
v = "text" + "text"
v = (1,) * 9
v = B(1)
v = B()()
v = B[0]()
v = kernels.view()()
v = view(*B)
v = view(**B)
v = view("text")
v = view(B, text="text")
np.copyto(B, B, casting="text")
kernels.random(B, distribution="text")
np.einsum(B, "text")
v = yield
yield B
await B
v = (yield from B)
return "text"
del B
while 1: pass
with B: pass
assert B
try: pass
if B: pass
if B < 1: pass
if B < 1 < 2: raise ValueError("x")
raise B
raise SystemExit(1)
raise ValueError(open("x"))
raise ValueError("x") from B
raise
for v in B: pass
for v, in B.x: pass
for v, in view(B): pass
for v, in (1, 2): pass
for B.x, in B: pass
for np, in B: pass
for v, in B: break
def np(): pass
def f(x=B): pass
@B
class x: pass
B; import os
pass; open("x")
B.T
B.T()
B.nbytes()
...
B
"text"
v = B[open("x")]
v = B["text"]
v = B[lambda: 1]
v = B.reshape(open("x"))
v = B.fill.__self__
"""
HEAD = "import numpy as np\nfrom runtime.cpu import kernels\nfrom runtime.cpu.kernels import view\n"


def completed(line: str, indent: str = "") -> str:
    """A line with the rest that Python's syntax requires."""
    rest = {
        "@": f"\n{indent}def bind_y(arena, B): pass",
        "try": f"\n{indent}finally: pass",
        "match": f"\n{indent} case 1: pass",
    }
    return line + next((text for start, text in rest.items() if line.startswith(start)), "")


@pytest.mark.parametrize("line", MODULE.strip().splitlines())
def test_a_module_is_refused(line: str):
    refused(completed(line), line)


@pytest.mark.parametrize("line", BODY.strip().splitlines())
def test_a_body_is_refused(line: str):
    refused(f"{HEAD}def bind_x(arena, B):\n    {completed(line, ' ' * 4)}\n    return None, {{}}, {{}}\n", line)


def refused(source: str, line: str) -> None:
    for target in TARGETS:
        with pytest.raises(RefusedSource) as error:
            passes(source, target)
        text = str(error.value)
        assert text.startswith("error: internal error: the generated source <test> has code that nnc does not generate")
        assert "\n  found: line " in text and len(text) < 300, line


@pytest.mark.parametrize(
    "source",
    ["(" * 10_000, "-" * 100_000 + "1", "x = 1\0", "x = " + "1" * 5_000, "x = (", "\ud800", "x" * 10_000, "1\\"],
    ids=range(8),
)
def test_what_is_not_python_is_refused(source: str):
    refused(source, "")


def test_nothing_runs_of_what_is_refused(monkeypatch: pytest.MonkeyPatch):
    ran: list[int] = []
    monkeypatch.setattr("runtime.cpu.profiler.Clock", lambda: ran.append(1))
    source = "from runtime.cpu.profiler import Clock\nclock = Clock()\n"
    load_functions(Executable(source, "<test>", 0, 1, "numpy"))
    with pytest.raises(RefusedSource):
        load_functions(Executable(f"{source}import os\n", "<test>", 0, 1, "numpy"))
    assert ran == [1]


def test_the_line_is_shown_as_printable_text():
    with pytest.raises(RefusedSource, match=r"line 2: '\\x1b\[2J'$"):
        passes("import numpy as np\n'\x1b[2J'\n", "numpy")
