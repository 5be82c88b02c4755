"""Kernels compiled by g++: all that exist at the first launch are compiled together, since g++ needs a second to start.

Libraries are stored in a folder, named after the hash of their source.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tests.gpu.cupy_inside import header_folder

HERE = Path(__file__).parent
FLAGS = [
    *("-std=c++17", "-O1", "-w", "-shared", "-fPIC", "-fvisibility=hidden"),
    *("-ffp-contract=off", "-fno-exceptions", "-U_FORTIFY_SOURCE"),  # longjmp leaves fibers
    *("-fsanitize=bounds", "-fsanitize-undefined-trap-on-error"),  # arrays of fixed size, in shared memory too
]
WORTH_A_PROCESS = 8  # kernels


class Order(ctypes.Structure):
    """Index k of n is (first + k * step) mod n."""

    _fields_ = (("first", ctypes.c_ssize_t), ("step", ctypes.c_ssize_t))


class Launch(ctypes.Structure):
    """`emulation::Launch` of threads.h."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("indices", Order),
        ("blocks", Order),
        ("threads", Order),
    )


class Fault(ctypes.Structure):
    """`emulation::Fault` of threads.h."""

    _fields_ = (
        ("kind", ctypes.c_int),
        ("line", ctypes.c_int),
        ("address", ctypes.c_size_t),
        ("index", ctypes.c_ssize_t),
        ("block", ctypes.c_uint * 3),
        ("thread", ctypes.c_uint * 3),
    )


class CompileError(Exception):
    """g++ does not accept the source of a kernel."""


class Compiled:
    """A kernel as C++ and, from its first launch, as a function of a library."""

    def __init__(self, name: str, source: str, fibers: bool):
        self.name = name
        self.source = re.sub(r'extern\s+"C"\s+', "", source)  # each kernel has its namespace
        self.parameters = read_parameters(name, self.source)
        self.fibers = fibers
        self.result: Launcher | CompileError | None = None
        pending.append(weakref.ref(self))

    @property
    def function(self) -> Launcher:
        if self.result is None:
            compile_pending()
        assert self.result is not None
        if isinstance(self.result, CompileError):
            raise self.result
        return self.result


class Launcher:
    """The function of a library that launches one kernel."""

    def __init__(self, library: ctypes.CDLL, number: int):
        self._launch = library[f"launch_{number}"]
        self._fault = library.last_fault
        self._fault.restype = ctypes.POINTER(Fault)

    def __call__(self, cells: Sequence[int], launch: Launch) -> Fault | None:
        """Runs the kernel on arguments, given by the addresses of their values; returns a fault, if there is one."""
        if not self._launch((ctypes.c_void_p * len(cells))(*cells), ctypes.byref(launch)):
            return None
        return self._fault().contents


pending: list[weakref.ref[Compiled]] = []  # not compiled yet


def read_parameters(name: str, source: str) -> list[tuple[str, str]]:
    """Type and name of each parameter of a kernel."""
    found = re.search(rf"__global__[^;{{]*?\b{name}\s*\(([^)]*)\)\s*\{{", source)
    assert found, f"no kernel {name} in its source"
    declarations = re.split(r",(?![^<]*>)", re.sub(r"//.*", "", found[1]))
    split = [re.fullmatch(r"(.*[\s*>])(\w+)", text.strip(), re.S) for text in declarations if text.strip()]
    assert all(split), f"{name}: cannot read the parameters {found[1]}"
    return [(part[1].strip(), part[2]) for part in split if part]


def compile_pending() -> None:
    """Compiles all pending kernels; one by one if g++ does not accept one of them."""
    kernels = [kernel for reference in pending if (kernel := reference()) is not None]
    pending.clear()
    try:
        build(kernels)
    except CompileError:
        for kernel in kernels:
            try:
                build([kernel])
            except CompileError as error:
                kernel.result = error


def build(kernels: Sequence[Compiled]) -> None:
    """Builds libraries for some kernels, in several processes if there are many."""
    parts = max(1, min(os.cpu_count() or 1, len(kernels) // WORTH_A_PROCESS))
    chunks = [kernels[i::parts] for i in range(parts)]
    builds = [Build(write_source(chunk)) for chunk in chunks]
    logs = [each.wait() for each in builds]
    if any(logs):
        raise CompileError("\n".join(logs)[:4000])
    for chunk, each in zip(chunks, builds, strict=True):
        library = ctypes.CDLL(str(each.path))
        for number, kernel in enumerate(chunk):
            kernel.result = Launcher(library, number)


class Build:
    """A run of g++, unless the library already exists."""

    def __init__(self, source: str):
        key = hashlib.sha256((" ".join(FLAGS) + source).encode() + headers()).hexdigest()[:24]
        self.path = library_folder() / f"{key}.so"
        self.text, self.part = (self.path.with_suffix(f".{os.getpid()}.{end}") for end in ("cpp", "so"))
        self.process: subprocess.Popen[str] | None = None
        if not self.path.exists():
            self.text.write_text(source)
            folders = ["-I", str(HERE), "-I", str(header_folder())]
            command = ["g++", *FLAGS, *folders, "-o", str(self.part), str(self.text)]
            self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def wait(self) -> str:
        """The errors of g++; empty if there are none."""
        if self.process is None:
            return ""
        _, log = self.process.communicate()
        self.text.unlink()
        if self.process.returncode:
            return log
        self.part.replace(self.path)
        return ""


def library_folder() -> Path:
    """The folder for the libraries of all runs, or else one for this run."""
    return Path(os.environ.get("NNC_TEST_LIBRARIES") or temporary_folder().name)


@cache
def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="nnc-emulation-")


@cache
def headers() -> bytes:
    return b"".join((HERE / name).read_bytes() for name in ("device.h", "threads.h"))


@cache
def checked_arrays() -> str:
    """CuPy's CArray and CIndexer with two changes: indices are checked, and the loop has a given order."""
    text = (header_folder() / "cupy" / "carray.cuh").read_text()
    direct = "return data_[idx];"
    assert text.count(direct) == 1, "CuPy's CArray has changed"
    text = text.replace(direct, "return data_[emulation::checked(idx, size_, data_)];").replace("#pragma once", "")
    return f"""{text}
#undef CUPY_FOR
#define CUPY_FOR(i, n) \\
  for (ptrdiff_t i = emulation::launch->indices.first, left_ = (n); left_ > 0; \\
       i = emulation::launch->indices.next(i, (n)), left_--)
"""


def write_source(kernels: Sequence[Compiled]) -> str:
    """One translation unit: the headers, and each kernel in its namespace with a function that launches it."""
    parts = ['#include "threads.h"', checked_arrays(), "#include <cupy/math_constants.h>"]
    parts += [write_kernel(number, kernel) for number, kernel in enumerate(kernels)]
    return "\n".join(parts)


def write_kernel(number: int, kernel: Compiled) -> str:
    values = ", ".join(f"*({type}*)emulation::arguments[{i}]" for i, (type, _) in enumerate(kernel.parameters))
    return f"""
#undef SHARED_SECTION
#define SHARED_SECTION "shared_{number}"
static IN_SHARED_MEMORY emulation::Fence before_{number};
namespace kernel_{number} {{ namespace {{
#line 1 "{kernel.name}"
{kernel.source}
}} }}
static IN_SHARED_MEMORY emulation::Fence after_{number};
static void body_{number}() {{ kernel_{number}::{kernel.name}({values}); }}
EXPORTED int launch_{number}(void** arguments, const emulation::Launch* launch) {{
  return emulation::run(body_{number}, {int(kernel.fibers)}, {{&before_{number}, &after_{number}}}, arguments, launch);
}}"""
