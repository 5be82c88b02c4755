"""Milliseconds per training step, nnc next to the installed frameworks; explained in README.md in this folder.

python tests/bench/steps.py [--models softmax,mlp] [--peers torch,jax] [--rounds 5] [--threads 2]
                           [--json FILE] [--plot FILE.svg]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("softmax", "mlp", "cnn", "separable_cnn", "bilstm")
THREAD_SETTINGS = (
    *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "PJRT_NPROC", "NPROC"),
)
REMOVED_SETTINGS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # for users, OpenBLAS detects the processor itself


@dataclass(frozen=True)
class Column:
    """One way to run a training step: the peer, the arguments after MODEL and THREADS, and the models it is for."""

    title: str
    peer: str
    words: tuple[str, ...] = ()
    models: Sequence[str] = MODELS


COLUMNS = (
    Column("nnc", "nnc"),
    Column("torch eager", "torch"),
    Column("torch channels_last", "torch", ("channels_last",), ("cnn", "separable_cnn")),
    Column("JAX jit", "jax"),
    Column("JAX scan", "jax", ("scan",), ("softmax", "mlp", "bilstm")),  # convolutions: many times slower than jit
    Column("Keras", "keras"),
)
PEERS = {
    "torch": "pip install torch==2.13.0",
    "jax": "pip install jax",
    "keras": "pip install keras tensorflow-cpu",
}
RATIOS = {"nnc / best torch": "torch", "nnc / best JAX": "JAX", "nnc / Keras": "Keras"}  # title: prefix of its columns


@dataclass
class Results:
    """Milliseconds by model and column, one figure per round."""

    rounds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def add(self, model: str, column: str, answer: Mapping[str, Any]) -> None:
        self.rounds.setdefault(model, {}).setdefault(column, []).append(answer["milliseconds"])
        self.versions |= answer["versions"]

    def medians(self, model: str) -> dict[str, float]:
        return {column: statistics.median(figures) for column, figures in self.rounds[model].items()}


def main() -> None:
    options = parse_options()
    peers = ["nnc", *installed(options.peers)]
    columns = [column for column in COLUMNS if column.peer in peers]
    results = Results()
    for turn in range(options.rounds):
        for model in options.models:
            for column in columns:
                if model in column.models:
                    progress(f"round {turn + 1} of {options.rounds}: {model}, {column.title}")
                    results.add(model, column.title, ask(column.peer, model, options.threads, *column.words))
    progress("")
    machine = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "python": platform.python_version(),
    }
    print("\n".join(comparison(results, [column.title for column in columns], machine, options.rounds)))
    if options.plot:
        plot({model: results.medians(model) for model in results.rounds}, options.plot)
    if options.json:
        medians = {model: results.medians(model) for model in results.rounds}
        saved = {**machine, "versions": results.versions, "milliseconds": medians, "rounds": results.rounds}
        options.json.write_text(json.dumps(saved, indent=2) + "\n")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Milliseconds per training step, nnc next to other frameworks.")
    parser.add_argument("--models", type=names_among(MODELS), default=list(MODELS), metavar="NAMES")
    parser.add_argument("--peers", type=names_among(PEERS), default=list(PEERS), metavar="NAMES", help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the table (needs matplotlib)")
    return parser.parse_args()


def names_among(known: Sequence[str] | Mapping[str, str]):
    """A parser for names separated by commas; an empty text means no names."""

    def read(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}")
        return names

    return read


def installed(peers: Sequence[str]) -> Iterator[str]:
    """The peers that this Python can import; how to install the others is printed."""
    for peer in peers:
        if find_spec(peer):
            yield peer
        else:
            print(f"{peer} is not installed, so it is skipped: {PEERS[peer]}", file=sys.stderr)


def ask(peer: str, model: str, threads: int, *words: str) -> dict[str, Any]:
    """The answer of a peer from a new process, free of settings and memory of other peers."""
    environment = {key: value for key, value in os.environ.items() if key not in REMOVED_SETTINGS}
    environment |= dict.fromkeys(THREAD_SETTINGS, str(threads)) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"tests.bench.peers.{peer}_steps", model, str(threads), *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[2:])} failed:\n{done.stderr[-3000:]}")
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
        print(f"\r{text:<72}\r", end="", file=sys.stderr, flush=True)


def comparison(results: Results, titles: Sequence[str], machine: Mapping[str, Any], rounds: int) -> list[str]:
    """The table in Markdown and the setup it was measured with."""
    ratios = {title: peer for title, peer in RATIOS.items() if any(column.startswith(peer) for column in titles)}
    rows = []
    for model in results.rounds:
        medians = results.medians(model)
        cells = [f"{medians[title]:.3g}" if title in medians else "-" for title in titles]
        rows.append([model, *cells, *(f"{ratio(medians, peer):.2f}" for peer in ratios.values())])
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return [
        *table(["model", *titles, *ratios], rows),
        "",
        f"Milliseconds per training step, batch 128; median of {rounds} round{'s' if rounds > 1 else ''}. "
        f"{machine['cpu']}, {machine['threads']} of {machine['cores']} threads. "
        f"Python {machine['python']}, {versions}.",
    ]


def ratio(medians: Mapping[str, float], peer: str) -> float:
    """Our step time divided by that of a peer's fastest column."""
    return medians["nnc"] / min(figure for title, figure in medians.items() if title.startswith(peer))


def plot(medians: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """One group of bars per model: steps per second, relative to nnc."""
    from matplotlib.figure import Figure

    titles = list(dict.fromkeys(title for figures in medians.values() for title in figures))
    axes = (figure := Figure(figsize=(9, 4))).subplots()
    for i, title in enumerate(titles):
        here = [(place, figures) for place, figures in enumerate(medians.values()) if title in figures]
        places = [place + (i - (len(titles) - 1) / 2) * 0.8 / len(titles) for place, _ in here]
        axes.bar(places, [figures["nnc"] / figures[title] for _, figures in here], 0.8 / len(titles), label=title)
    axes.set_xticks(range(len(medians)), list(medians))
    axes.axhline(1, color="black", linewidth=0.5)
    axes.set_ylabel("training steps per second, nnc = 1")
    axes.legend()
    figure.savefig(path, bbox_inches="tight")


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table with padded columns: names on the left, figures aligned to the right."""
    widths = [max(map(len, cells)) for cells in zip(titles, *rows, strict=True)]
    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]

    def line(cells: Sequence[str]) -> str:
        aligned = (f"{cell:{'<' if i == 0 else '>'}{widths[i]}}" for i, cell in enumerate(cells))
        return f"| {' | '.join(aligned)} |"

    return [line(cells) for cells in (titles, rule, *rows)]


if __name__ == "__main__":
    main()
