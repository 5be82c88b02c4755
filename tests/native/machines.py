"""C for other compilers and processors: what runs, and what is only compiled. Prints the table of docs/native.md.

    python tests/native/machines.py              every compiler that is found here, every processor
    python tests/native/machines.py --short      as in CI: without old compilers and other systems

All samples of ops (samples.py), with 1 and 3 threads, and the cases of test_products.py and test_convolutions.py.
Programs for arm64 run in the emulator of `qemu-user` if it is installed; those for macOS are compiled and linked by
ziglang. The exit code is 1 if anything does not compile or is wrong.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from shutil import which
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from runtime.native.compilers import FLAGS, HEADERS, described, zig_command  # noqa: E402
from tests.native import samples, test_convolutions, test_products  # noqa: E402

OLD_COMPILERS = ("gcc-9", "gcc-10", "gcc-11", "clang-12", "clang-13", "clang-14")
WIDE = "-mprefer-vector-width=512"
PROCESSORS = {  # of this machine: flags
    "AVX-512": ("-march=x86-64-v4", WIDE),
    "AVX2": ("-march=haswell", WIDE),
    "SSE2": ("-march=x86-64", WIDE),
    "one lane": ("-march=native", WIDE, "-DNNC_SCALAR"),
}
MUSL_ARM = ("-target", "aarch64-linux-musl", "-static")
EMULATOR = "qemu-aarch64"
OF_FEATURE = {"AVX-512": "avx512f", "AVX2": "avx2"}  # what a processor needs, as /proc/cpuinfo names it
RANDOM_CASES = 60
THREADS = (1, 3)


@dataclass(frozen=True)
class Machine:
    """A compiler and the machine that it compiles for; `runner` is the command that runs programs, if they can run."""

    compiler: str
    target: str
    command: tuple[str, ...]
    flags: tuple[str, ...]
    runner: tuple[str, ...] | None = ()


@dataclass
class Outcome:
    """What happened to the programs of a machine: those compiled, those that ran, and what went wrong."""

    compiled: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def verdict(self) -> str:
        if self.wrong:
            return f"**wrong**: {self.wrong[0].splitlines()[0][:160]}"
        return "ran" if self.ran else "compiled"


def machines(short: bool) -> Iterator[Machine]:
    """Those that can be compiled for with the compilers found here."""
    zig, cc = zig_command(), which("cc") or which("gcc") or which("clang")
    for path in [cc, *(() if short else map(which, OLD_COMPILERS))]:
        if path:
            name = f"{Path(path).name}: {described([path]).version}" if path == cc else Path(path).name
            yield from (Machine(name, *processor) for processor in of_this_machine((path,)))
    if not zig:
        return
    quiet = "-fno-sanitize=all"
    for target, command, flags, runner in of_this_machine(zig):
        if not short or target in ("AVX2", "SSE2"):
            named = [flag.replace("=x86-64", "=x86_64").replace("-v4", "_v4") for flag in flags]  # as zig names them
            yield Machine("zig", target, command, (*named, quiet), runner)
    if short:
        return
    emulated = (EMULATOR,) if which(EMULATOR) else None
    for target, flags, runner in (
        ("Linux arm64, NEON", MUSL_ARM, emulated),
        ("Linux arm64, one lane", (*MUSL_ARM, "-DNNC_SCALAR"), emulated),
        ("Linux arm64, glibc 2.28", ("-target", "aarch64-linux-gnu.2.28"), None),
        ("Linux x86-64, musl", ("-target", "x86_64-linux-musl", "-static", "-march=haswell"), ()),
        ("macOS arm64", ("-target", "aarch64-macos", "-mcpu=apple_m1"), None),
        ("macOS x86-64", ("-target", "x86_64-macos", "-march=haswell"), None),
    ):
        yield Machine("zig", target, zig, (*flags, quiet), runner)


def of_this_machine(command: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...], Any]]:
    """Processors like this one, with fewer features or all; only compiled for, if it lacks some."""
    known = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    for name, flags in PROCESSORS.items():
        feature = OF_FEATURE.get(name, "")
        yield name, command, flags, () if feature in known else None


# Programs -------------------------------------------------------------------------------------------------------------


def compile_program(machine: Machine, source: Path, to: Path, *more: str) -> None:
    flags = [flag for flag in FLAGS if flag not in ("-shared", "-fPIC")]
    arguments = [*flags, *machine.flags, *more, f"-I{HEADERS}", str(source), "-o", str(to), "-lpthread"]
    subprocess.run([*machine.command, *arguments], capture_output=True, check=True, stdin=subprocess.DEVNULL)


def runnable(machine: Machine, program: Path) -> Path:
    """The program, or a script that runs it in the emulator."""
    if not machine.runner:
        return program
    script = program.with_suffix(".sh")
    script.write_text(f'#!/bin/sh\nexec {" ".join(machine.runner)} "{program}"\n')
    script.chmod(0o755)
    return script


def check_products(program: Path) -> None:
    random = Random("machines")
    test_products.check(program, test_products.LARGE)
    test_products.check(program, [test_products.random_case(random) for _ in range(RANDOM_CASES)])
    test_products.check(program, [test_products.random_case(random) for _ in range(RANDOM_CASES)], wide=True)


def check_convolutions(program: Path) -> None:
    random = Random("machines")
    test_convolutions.check(program, test_convolutions.MODELS)
    test_convolutions.check(program, [test_convolutions.random_case(random) for _ in range(RANDOM_CASES)])
    test_convolutions.check(program, [test_convolutions.random_case(random) for _ in range(RANDOM_CASES)], wide=True)


def check_samples(graphs: Sequence[samples.SampleGraph]) -> Callable[[Path], None]:
    def check(program: Path) -> None:
        wrong = [text for parts in THREADS for text in samples.wrong_samples([str(program)], graphs, parts)]
        assert not wrong, "; ".join(wrong)

    return check


def programs(folder: Path) -> Iterator[tuple[str, Path, tuple[str, ...], Callable[[Path], None]]]:
    """Names, sources, flags, and what runs and checks the program."""
    yield "products", test_products.SOURCE, (), check_products
    yield "convolutions", test_convolutions.SOURCE, (), check_convolutions
    for number, graphs in enumerate(samples.texts()):
        text = folder / f"samples_{number}.h"
        text.write_text(samples.text_of(graphs))
        yield f"samples {number + 1}", samples.SOURCE, (f'-DSAMPLES="{text}"',), check_samples(graphs)


def outcome_of(machine: Machine, folder: Path) -> Outcome:
    outcome, begun = Outcome(), time.perf_counter()

    def compile_and_run(number: int, name: str, source: Path, flags: Sequence[str], check: Any) -> None:
        program = folder / f"program_{number}"
        try:
            compile_program(machine, source, program, *flags)
            outcome.compiled.append(name)
            if machine.runner is not None:
                check(runnable(machine, program))
                outcome.ran.append(name)
        except subprocess.CalledProcessError as error:
            said = (error.stderr or b"").decode(errors="replace")
            lines = [line for line in said.splitlines() if "error" in line.lower()] or said.splitlines()
            outcome.wrong.append(f"{name}: {(lines or [f'exit code {error.returncode}'])[0]}")
        except AssertionError as error:
            outcome.wrong.append(f"{name}: {error}")

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(compile_and_run, i, *program) for i, program in enumerate(programs(folder))]:
            future.result()
    outcome.seconds = time.perf_counter() - begun
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="without old compilers and other systems")
    parser.add_argument("--only", default="", help="only compilers or machines whose names contain this text")
    options = parser.parse_args()
    failed = False
    print("| compiler | machine | | seconds |\n|---|---|---|--:|")
    for machine in machines(options.short):
        if options.only not in f"{machine.compiler} {machine.target}":
            continue
        with tempfile.TemporaryDirectory() as folder:
            outcome = outcome_of(machine, Path(folder))
        row = (machine.compiler, machine.target, outcome.verdict(), f"{outcome.seconds:.0f}")
        print(f"| {' | '.join(row)} |", flush=True)
        for text in outcome.wrong:
            print(f"{machine.compiler}, {machine.target}: {text}", file=sys.stderr)
        failed |= bool(outcome.wrong)
    return failed


if __name__ == "__main__":
    sys.exit(main())
