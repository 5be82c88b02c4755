"""The C compiler of this machine: which one, its flags, and how a text becomes a shared library.

$CC if it is set; else the first of cc, gcc, clang, and the compiler of the package `ziglang`, that compiles the pool of
threads. Flags are for the processor of this machine. For tests, NNC_MARCH names another processor, and NNC_SCALAR=1
switches vectors off.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from runtime.errors import printable

HEADERS = Path(__file__).resolve().parent
FLAGS = (
    "-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fwrapv",
    "-fopenmp-simd", "-w", "-shared", "-fPIC",
)  # fmt: skip
TEMPLATES = "-DNNC_TEMPLATES"  # graphs call functions of the library templates.c
NAMES = ("cc", "gcc", "clang")
ZIG = (
    "ziglang"  # a package with a C compiler; it needs to be asked for wide vectors, and for undefined behavior as in C
)
VECTORS = re.compile(r"(sse|ssse|avx|fma|f16c|amx|asimd|neon|sve|sme2?$|bf16|i8mm)")  # features of processors
LONGEST = 200  # characters of a compiler's message that are shown


@dataclass(frozen=True)
class Compiler:
    """A C compiler, and what it says its version is."""

    command: tuple[str, ...]
    version: str
    flags: tuple[str, ...]

    @property
    def name(self) -> str:
        return shlex.join(self.command)

    def identity(self) -> str:
        """Everything but the text that a library depends on: compiler, flags, processor and headers."""
        return "\n".join([*self.command, self.version, *self.flags, processor(), hash_of_headers()])

    def arguments(self, library: str) -> list[str]:
        """The command that compiles the text in its input to a shared library."""
        return [*self.command, *self.flags, f"-I{HEADERS}", "-xc", "-", "-o", library, "-lpthread"]


def candidates() -> Iterator[tuple[str, ...]]:
    """The commands of compilers that may exist, the best first; only $CC if it is set."""
    chosen = os.environ.get("CC", "").strip()
    if chosen:
        yield chosen_command(chosen)
        return
    seen = set()
    for name in NAMES:
        path = shutil.which(name)
        if path and os.path.realpath(path) not in seen:  # cc is often gcc
            seen.add(os.path.realpath(path))
            yield (path,)
    if zig := zig_command():
        yield zig


def chosen_command(text: str) -> tuple[str, ...]:
    """The words of $CC; ("",) if its quotes do not match."""
    try:
        words = tuple(shlex.split(text))
    except ValueError:
        return (text,)
    return zig_command() or words if words[1:] == ("-m", ZIG, "cc") else words


def zig_command() -> tuple[str, ...]:
    """The compiler in the package `ziglang`, started without Python; empty if it is not installed."""
    found = find_spec(ZIG)
    program = Path(found.origin).with_name("zig") if found and found.origin else None
    return (str(program), "cc") if program and program.exists() else ()


def described(command: Sequence[str]) -> Compiler:
    """The compiler of a command; raises OSError or subprocess.SubprocessError if it does not tell its version."""
    is_zig = os.path.basename(command[0]).startswith("zig")
    question = [command[0], "version"] if is_zig else [*command, "--version"]
    shown = subprocess.run(question, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=True)
    return Compiler(tuple(command), shown.stdout.decode(errors="replace").split("\n")[0], flags_for(is_zig))


def flags_for(is_zig: bool) -> tuple[str, ...]:
    march = os.environ.get("NNC_MARCH") or "native"
    if is_zig:
        march = march.replace("-", "_")  # zig reads a minus as "without this feature"
    machine = platform.machine().lower()
    flags: list[str] = [*FLAGS, TEMPLATES]
    if platform.system() == "Darwin":
        flags.append("-Wl,-undefined,dynamic_lookup")  # those functions are found when the library is loaded
    if machine in ("arm64", "aarch64"):
        flags.append(f"-mcpu={march}")
    else:
        flags.append(f"-march={march}")
    if machine in ("x86_64", "amd64"):
        flags.append("-mprefer-vector-width=512")  # for AVX-512, without which it changes nothing
    if is_zig:
        flags.append("-fno-sanitize=all")
    if os.environ.get("NNC_SCALAR", "") not in ("", "0"):
        flags.append("-DNNC_SCALAR")
    return tuple(flags)


@cache
def processor() -> str:
    """The model and the features of the processor: the folder of libraries may be shared with other machines."""
    found = [platform.system(), platform.machine()]
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if not line.strip():
                    break  # the others are the same
                if line.startswith(("model name", "flags", "Features", "CPU implementer", "CPU part")):
                    found.append(line.strip())
    except OSError:
        found.append(processor_of_macos())
    return "\n".join(found)


def vector_features() -> list[str]:
    """The model of the processor, and its features that change how numbers are computed: `avx2`, `fma`, `neon`."""
    model = ""
    words: list[str] = []
    for line in processor().splitlines():
        name, _, value = line.partition(":")
        model = value.strip() if name.strip() == "model name" else model
        words += value.split() if name.strip() in ("flags", "Features") else []
    return [model or processor(), *sorted(filter(VECTORS.match, words))]


def processor_of_macos() -> str:
    try:
        question = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(question, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return platform.processor()


@cache
def hash_of_headers() -> str:
    result = hashlib.sha256()
    for path in sorted(HEADERS.glob("*.h")):
        result.update(path.name.encode() + b"\0" + path.read_bytes())
    return result.hexdigest()


def first_error(output: bytes) -> str:
    """The line of a compiler's output that says what is wrong; empty if there is none."""
    lines = [printable(line.strip()) for line in output.decode(errors="replace").splitlines() if line.strip()]
    wrong = [line for line in lines if "error" in line.lower() or "no space" in line.lower()]
    return (wrong or lines or [""])[0][:LONGEST]
