"""`--gpu` on machines without a GPU: one error, at once; without the flag, CuPy is not imported."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from compiler.cli.cache import executable_from
from compiler.cli.devices import choose_device
from compiler.cli.memory_check import check_memory
from compiler.cli.memory_limit import Memory
from compiler.diagnostics import UserError
from compiler.driver import compile_file
from runtime.errors import RuntimeUserError
from runtime.gpu import cuda
from runtime.program import Executable
from tests.cli.running import Result, environment, nnc, process

COMMANDS = [
    ("train", "points.nn"),
    ("eval", "points.nn"),
    ("predict", "run", "--input", "points.npy", "--output", "out.npy"),
]
IN_PROCESS = """
import sys, time
{before}
from compiler.cli.run import run
code = run({arguments!r}, time.perf_counter())
print(code, [name for name in ("cupy", "runtime.gpu.cuda", "compiler.driver") if name in sys.modules])
"""


def run_in_process(arguments: list[str], before: str = "") -> Result:
    """Runs a command in a separate process that prints which modules it has loaded."""
    script = IN_PROCESS.format(before=before, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True)
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("command", COMMANDS)
def test_without_cupy(command: tuple[str, ...], place: Path) -> None:
    """It is reported before anything is compiled or read."""
    done = run_in_process([*command, "--gpu"], before="sys.modules['cupy'] = None")
    assert done.out == "2 ['cupy', 'runtime.gpu.cuda']\n"
    assert done.err.startswith("error: --gpu needs CuPy\n  expected: an installed CuPy\n  found: import of cupy halted")
    assert "  hint: pip install 'cupy-cuda13x[ctk]>=14', or 'cupy-cuda12x[ctk]>=14' for a driver of CUDA 12" in done.err
    assert done.err.count("error") == 1 and "Traceback" not in done.err


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="needs CuPy, but no driver")
def test_without_a_driver(place: Path) -> None:
    if cuda.cupy.cuda.runtime.driverGetVersion():
        pytest.skip("there is a driver")
    done = process("train", "points.nn", "--gpu", folder=place)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: --gpu needs the NVIDIA driver\n  expected: a driver for CUDA ")
    assert "  found: no driver\n  hint: install the driver of the GPU; then, if need be, pip install" in done.err


@pytest.mark.parametrize("command", COMMANDS[:2])
def test_nothing_of_the_gpu_is_loaded_without_the_flag(command: tuple[str, ...], place: Path) -> None:
    assert run_in_process([*command]).out.splitlines()[-1] == "0 ['compiler.driver']"


@pytest.mark.parametrize("flag", ["--no-graph", "--tf32"])
def test_flags_that_need_the_gpu(flag: str, place: Path) -> None:
    for command in COMMANDS:
        result = nnc(*command, flag)
        assert (result.code, result.out) == (2, "")
        expected = f"error: {flag} needs --gpu\n  expected: --gpu {flag}\n  found: {flag} without --gpu\n"
        assert result.err == expected


def test_a_mistyped_flag() -> None:
    assert 'did you mean "--tf32"?' in nnc("train", "points.nn", "--tf23").err


# Errors of CUDA ----------------------------------------------------------------------------------------------------


class CudaError(RuntimeError):
    def __init__(self, status: int):
        super().__init__(f"status {status}")
        self.status = status


class CompileException(Exception):
    pass


def cupy_that_says(status: int = 0, devices: int = 1, driver: int = 13000, kernel: Exception | None = None) -> Any:
    """The part of CuPy that is used before the first array is created; its kernels fail."""

    def count() -> int:
        if status:
            raise CudaError(status)
        return devices

    def run(*_: object) -> None:
        assert kernel
        raise kernel

    runtime = SimpleNamespace(
        CUDARuntimeError=CudaError,
        getDeviceCount=count,
        runtimeGetVersion=lambda: 13020,
        driverGetVersion=lambda: driver,
    )
    cuda = SimpleNamespace(
        runtime=runtime,
        compiler=SimpleNamespace(CompileException=CompileException),
        Stream=lambda non_blocking: SimpleNamespace(use=lambda: None),
    )
    return SimpleNamespace(cuda=cuda, zeros=np.zeros, ElementwiseKernel=lambda *_, **__: run)


@pytest.mark.parametrize(
    ("cupy", "message"),
    [
        (
            cupy_that_says(35, driver=0),
            "--gpu needs the NVIDIA driver\n  expected: a driver for CUDA 13 or later, which the installed CuPy needs\n"
            "  found: no driver\n  hint: install the driver of the GPU; then, if need be, pip install",
        ),
        (
            cupy_that_says(35, driver=12040),
            "the NVIDIA driver is too old\n  expected: a driver for CUDA 13 or later, which the installed CuPy needs\n"
            "  found: a driver for CUDA 12.4\n  hint: update the driver, or install a CuPy for this one: pip install",
        ),
        (cupy_that_says(100), "--gpu needs an NVIDIA GPU\n  expected: a device\n  found: none\n  hint: nvidia-smi"),
        (cupy_that_says(devices=0), "--gpu needs an NVIDIA GPU\n  expected: a device\n  found: none\n  hint: nvidia"),
        (cupy_that_says(999), "the GPU cannot be used\n  expected: a device that answers\n  found: status 999"),
        (
            cupy_that_says(kernel=RuntimeError("libnvrtc.so.13 was not found\nand more lines")),
            "CuPy cannot run a kernel\n  expected: a device that answers, NVRTC, and the headers of CUDA\n"
            "  found: libnvrtc.so.13 was not found\n"
            "  hint: the parts of CUDA are installed together with CuPy by pip install",
        ),
        (cupy_that_says(kernel=CompileException("no cuda_fp16.h")), "found: no cuda_fp16.h\n  hint: the parts of CUDA"),
    ],
)
def test_what_is_missing(cupy: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "cupy", cupy)
    monkeypatch.setattr(cuda, "streams", cuda.streams.__wrapped__)
    monkeypatch.setattr(cuda, "copy_elements", cuda.copy_elements.__wrapped__)
    with pytest.raises(RuntimeUserError) as caught:
        choose_device(SimpleNamespace(target="cupy"))  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_too_little_memory_names_the_largest_tensors(place: Path) -> None:
    compiled = compile_file("points.nn")
    with pytest.raises(UserError) as caught:
        check_memory(compiled, Memory(100, "this GPU has"))
    first, *lines = str(caught.value).splitlines()
    assert first == "error: Points needs more memory than this GPU has (graph train_step)"
    assert lines[0] == "  expected: at most 100 B"
    assert len([line for line in lines if "note:" in line]) == 6
    assert lines[-1].startswith("  note: a smaller batch does not help: --batch 1 needs ")


def test_the_cache_keeps_what_initializes_a_program() -> None:
    inner = Executable("source of init", "<init>", 64, 8, "numpy")
    whole = Executable("source", "<whole>", 128, 8, "cupy", initializer=inner)
    assert executable_from(json.loads(json.dumps(asdict(whole)))) == whole
    assert executable_from(json.loads(json.dumps(asdict(inner)))) == inner
