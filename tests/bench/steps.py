"""Milliseconds per training step, nnc next to the installed frameworks; explained in README.md in this folder.

python tests/bench/steps.py [--models softmax,mlp] [--peers torch,jax] [--rounds 5] [--threads 2]
                           [--no-peak] [--json FILE] [--plot FILE.svg]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.bench.peer_processes import (  # noqa: E402  (as a script, it adds its own path first)
    NATIVE,
    PEERS,
    PeerFailed,
    ask,
    cpu_name,
    failures,
    has_native,
    installed,
    progress,
)

MODELS = ("softmax", "mlp", "cnn", "separable_cnn", "bilstm")
CONVOLUTIONAL = ("cnn", "separable_cnn")
NUMPY_TITLE, NATIVE_TITLE = "nnc NumPy", "nnc native"
AUTOTUNE = "max-autotune-no-cudagraphs"


@dataclass(frozen=True)
class Column:
    """One way to run a training step: the peer, the arguments after MODEL and THREADS, and the models it is for."""

    title: str
    peer: str
    words: tuple[str, ...] = ()
    models: Sequence[str] = MODELS


COLUMNS = (
    Column(NUMPY_TITLE, "nnc", ("numpy",)),
    Column(NATIVE_TITLE, "nnc", (NATIVE,)),
    Column("torch eager", "torch"),
    Column("torch channels_last", "torch", ("channels_last",), CONVOLUTIONAL),
    Column("torch compile", "torch", ("default",)),
    Column("torch compile channels_last", "torch", ("default", "channels_last"), CONVOLUTIONAL),
    Column("torch max-autotune", "torch", (AUTOTUNE,)),
    Column("JAX jit", "jax"),
    Column("JAX scan", "jax", ("scan",), ("softmax", "mlp", "bilstm")),  # convolutions: many times slower than jit
    Column("Keras", "keras"),
)
# A ratio's title: the prefix of its columns
RATIOS = {"NumPy / best torch": "torch", "NumPy / best JAX": "JAX", "NumPy / Keras": "Keras"}


@dataclass
class Results:
    """Milliseconds by model and column, one figure per round."""

    rounds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    failed: dict[tuple[str, str], str] = field(default_factory=dict)  # model and column: what the peer printed
    peaks: list[float] = field(default_factory=list)  # GFLOP/s of the processor, one figure per round
    operations: dict[str, int] = field(default_factory=dict)  # of the products in a step, by model

    def add(self, model: str, column: str, answer: Mapping[str, Any]) -> None:
        self.rounds.setdefault(model, {}).setdefault(column, []).append(answer["milliseconds"])
        self.versions |= answer["versions"]

    def medians(self, model: str) -> dict[str, float]:
        return {column: statistics.median(figures) for column, figures in self.rounds[model].items()}

    @property
    def peak(self) -> float | None:
        """The best of the rounds: whatever else ran meanwhile can only lower it."""
        return max(self.peaks, default=None)


def main() -> None:
    options = parse_options()
    peers = ["nnc", *installed(options.peers)]
    native = has_native()
    columns = [column for column in COLUMNS if column.peer in peers and (native or column.title != NATIVE_TITLE)]
    results = Results()
    for turn in range(options.rounds):
        if options.peak:
            measure_peak(results, options)
        for model in options.models:
            for column in columns:
                if model in column.models and (model, column.title) not in results.failed:
                    progress(f"round {turn + 1} of {options.rounds}: {model}, {column.title}")
                    measure(results, model, column, options.threads)
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
        figures = {"milliseconds": medians, "rounds": results.rounds, "failed": failures(results.failed)}
        speed = {"peak": results.peaks, "operations": results.operations}
        saved = {**machine, "versions": results.versions, **figures, **speed}
        options.json.write_text(json.dumps(saved, indent=2) + "\n")


def measure(results: Results, model: str, column: Column, threads: int) -> None:
    """One figure of a column. Without NumPy code there is nothing to compare; what else fails is left out and named."""
    try:
        answer = ask(f"{column.peer}_steps", threads, model, str(threads), *column.words)
    except PeerFailed as error:
        if column.title == NUMPY_TITLE:
            raise SystemExit(str(error)) from None
        results.failed[model, column.title] = str(error)
    else:
        results.add(model, column.title, answer)


def measure_peak(results: Results, options: argparse.Namespace) -> None:
    """The peak of the processor in this round, and at first the operations of each model's step."""
    from tests.bench.fma_peak import fma_peak, product_operations
    from tests.bench.peers.common import BATCH
    from tests.bench.peers.nnc_steps import compile_model

    peak = fma_peak(options.threads)
    if peak is None:
        print("no C compiler, so the peak of the processor is not measured", file=sys.stderr)
        options.peak = False
        return
    results.peaks.append(peak)
    for model in options.models:
        if model not in results.operations:
            results.operations[model] = product_operations(compile_model(model), BATCH)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Milliseconds per training step, nnc next to other frameworks.")
    parser.add_argument("--models", type=names_among(MODELS), default=list(MODELS), metavar="NAMES")
    parser.add_argument("--peers", type=names_among(PEERS), default=list(PEERS), metavar="NAMES", help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-peak", dest="peak", action="store_false", help="leave out the share of the FMA peak")
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


def comparison(results: Results, titles: Sequence[str], machine: Mapping[str, Any], rounds: int) -> list[str]:
    """The tables in Markdown and the setup they were measured with."""
    ratios = {title: peer for title, peer in RATIOS.items() if any(column.startswith(peer) for column in titles)}
    rows = []
    for model in results.rounds:
        medians = results.medians(model)
        cells = [f"{medians[title]:.3g}" if title in medians else "-" for title in titles]
        rows.append([model, *cells, *(number(ratio(medians, peer)) for peer in ratios.values())])
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return [
        *table(["model", *titles, *ratios], rows),
        "",
        *speeds(results),
        *failures(results.failed),
        f"Milliseconds per training step, batch 128; median of {rounds} round{'s' if rounds > 1 else ''}. "
        f"{machine['cpu']}, {machine['threads']} of {machine['cores']} threads. "
        f"Python {machine['python']}, {versions}.",
    ]


def speeds(results: Results) -> list[str]:
    """How many times as fast as the fastest peer nnc is, and the share of the processor's peak that it reaches."""
    titles = [title for title in (NUMPY_TITLE, NATIVE_TITLE) if any(title in row for row in results.rounds.values())]
    gains: dict[str, list[float]] = {title: [] for title in titles}
    rows = []
    for model in results.rounds:
        medians = results.medians(model)
        fastest = fastest_peer(medians)
        row = [model, f"{fastest} {medians[fastest]:.3g}" if fastest else "-"]
        for title in titles:
            gain = medians[fastest] / medians[title] if fastest and title in medians else None
            gains[title] += [gain] if gain else []
            row += [number(gain), number(share_of_peak(results, model, medians.get(title)))]
        rows.append(row)
    if len(rows) > 1:
        means = [statistics.geometric_mean(each) if each else None for each in gains.values()]
        rows.append(["geometric mean", "", *(cell for mean in means for cell in (number(mean), ""))])
    heads = [head for title in titles for head in (f"{title}: times as fast", "share of peak")]
    measured = f"The peak of the processor is {results.peak:.0f} GFLOP/s." if results.peak else ""
    lines = [*table(["model", "fastest peer, ms", *heads], rows), ""]
    return lines + ([measured] if measured else [])


def fastest_peer(medians: Mapping[str, float]) -> str | None:
    """The column of the fastest peer in the best of its modes and layouts."""
    peers = {title: figure for title, figure in medians.items() if title not in (NUMPY_TITLE, NATIVE_TITLE)}
    return min(peers, key=peers.__getitem__, default=None)


def share_of_peak(results: Results, model: str, milliseconds: float | None) -> float | None:
    """The operations of a step's products, per second, divided by those that the processor can do."""
    if not milliseconds or not results.peak or model not in results.operations:
        return None
    return results.operations[model] / (milliseconds * 1e6) / results.peak


def ratio(medians: Mapping[str, float], peer: str) -> float | None:
    """The time of our NumPy code divided by that of a peer's fastest column; None where all of them failed."""
    fastest = min((figure for title, figure in medians.items() if title.startswith(peer)), default=None)
    return medians[NUMPY_TITLE] / fastest if fastest else None


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def plot(medians: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """One group of bars per model: steps per second, relative to the NumPy code of nnc."""
    from matplotlib.figure import Figure

    titles = list(dict.fromkeys(title for figures in medians.values() for title in figures))
    axes = (figure := Figure(figsize=(9, 4))).subplots()
    for i, title in enumerate(titles):
        here = [(place, figures) for place, figures in enumerate(medians.values()) if title in figures]
        places = [place + (i - (len(titles) - 1) / 2) * 0.8 / len(titles) for place, _ in here]
        axes.bar(places, [figures[NUMPY_TITLE] / figures[title] for _, figures in here], 0.8 / len(titles), label=title)
    axes.set_xticks(range(len(medians)), list(medians))
    axes.axhline(1, color="black", linewidth=0.5)
    axes.set_ylabel("training steps per second, nnc NumPy = 1")
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
