"""Separate processes for the peers of a benchmark, all with the same environment, and what of it is missing here."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from compiler.targets.registry import TARGETS

ROOT = Path(__file__).resolve().parents[2]
THREAD_SETTINGS = (
    *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "PJRT_NPROC", "NPROC", "NNC_THREADS"),
)
REMOVED_SETTINGS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # for users, OpenBLAS detects the processor itself
# In a new process glibc gives large tensors pages of their own and returns them after each use, so that every step
# waits for new ones; a process that has loaded and freed large data keeps them. With these settings all processes do.
ALLOCATOR_SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}
SECONDS = 900  # a peer that takes longer has failed: some compile for minutes
PEERS = {
    "torch": "pip install torch==2.13.0",
    "jax": "pip install jax",
    "keras": "pip install keras tensorflow-cpu",
}
NATIVE = "c"  # the target of `--native`


class PeerFailed(Exception):
    """What a peer printed before it ended with an error."""


def has_native() -> bool:
    """Whether this version of nnc can generate C and run it; if not, that is printed."""
    if NATIVE in TARGETS and find_spec(f"{TARGETS[NATIVE]}.running"):
        return True
    print("nnc native: this version cannot run the target c, so it is skipped", file=sys.stderr)
    return False


def installed(peers: Sequence[str]) -> Iterator[str]:
    """The peers that this Python can import; how to install the others is printed."""
    for peer in peers:
        if find_spec(peer):
            yield peer
        else:
            print(f"{peer} is not installed, so it is skipped: {PEERS[peer]}", file=sys.stderr)


def environment(threads: int) -> dict[str, str]:
    """That of this process without settings of OpenBLAS, and with the threads and the allocator of all peers."""
    kept = {key: value for key, value in os.environ.items() if key not in REMOVED_SETTINGS}
    settings = dict.fromkeys(THREAD_SETTINGS, str(threads)) | ALLOCATOR_SETTINGS | {"PYTHONPATH": str(ROOT)}
    if threads == 1:
        settings["XLA_FLAGS"] = f"{kept.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    return kept | settings


def ask(module: str, threads: int, *words: str) -> dict[str, Any]:
    """The answer of a module of tests.bench.peers from a new process, free of memory of other peers.

    Raises PeerFailed if it ends with an error or takes too long.
    """
    command = [sys.executable, "-m", f"tests.bench.peers.{module}", *words]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment(threads),
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise PeerFailed(f"{' '.join(command[2:])} took more than {SECONDS} s") from None
    if done.returncode:
        raise PeerFailed(f"{' '.join(command[2:])} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def cpu_name() -> str:
    """As Linux reports it, otherwise as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def progress(text: str) -> None:
    """A line that the next one overwrites, only on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{text:<78}\r", end="", file=sys.stderr, flush=True)


def failures(failed: Mapping[tuple[str, str], str]) -> list[str]:
    """A line for each row and column whose peer failed: the last line that it printed."""
    return [f"{row}, {column}: failed: {text.strip().splitlines()[-1]}" for (row, column), text in failed.items()]
