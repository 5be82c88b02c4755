"""What `gpu.py` needs from the machine: processes with a time limit, atomic writes, and installed versions."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.bench.peers.gpu_protocol import end_group

ROOT = Path(__file__).resolve().parents[2]
NO_TIME = "not run: out of time"
PACKAGES = ("numpy", "cupy-cuda13x", "cupy-cuda12x", "nvidia-cublas", "torch", "nvidia-cudnn-cu13", "jax")
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.1",  # JAX takes most of the memory by default
}
Found = dict[str, Any]  # the results of a part, as JSON


def replace_text(path: Path, text: str) -> None:
    """Replaces a file atomically: a process that is killed meanwhile leaves the old one."""
    part = path.with_name(f".{path.name}.tmp")
    part.write_text(text)
    part.replace(path)


@dataclass(frozen=True)
class Done:
    """How a process ended; its code is None if it ran out of time."""

    code: int | None
    out: str
    err: str


def run(command: Sequence[str], seconds: float) -> Done:
    """Runs a process; when its time is over, ends it and all processes that it started."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=max(seconds, 1))
        return Done(process.returncode, out, err)
    except subprocess.TimeoutExpired as late:
        end_group(process)
        return Done(None, as_text(late.stdout), as_text(late.stderr))


def as_text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def reason(done: Done) -> str:
    """Why a process failed, in one line."""
    if done.code is None:
        return NO_TIME
    lines = [line.strip() for line in (done.err or done.out).splitlines() if line.strip()]
    return (lines[-1] if lines else f"exit code {done.code}")[:200]


def describe_machine(device: str) -> Found:
    """The device, its driver, and the versions of installed packages."""
    query = "name,driver_version,memory.total,clocks.max.sm"
    tool = shutil.which("nvidia-smi")
    smi = run([tool, f"--query-gpu={query}", "--format=csv,noheader"], 30).out.strip() if tool else ""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"device": device, "nvidia-smi": smi, "python": platform.python_version(), "versions": versions}
