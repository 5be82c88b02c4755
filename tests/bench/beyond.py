"""Milliseconds per training step of models beyond the five recipes, nnc next to PyTorch; explained in README.md here.

python tests/bench/beyond.py [--models unet,gpt_tiny] [--batches 1,32] [--rounds 3] [--threads 2]
                            [--modes default,max-autotune-no-cudagraphs] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.bench.peer_processes import (  # noqa: E402  (as a script, it adds its own path first)
    NATIVE,
    PeerFailed,
    ask,
    cpu_name,
    failures,
    has_native,
    installed,
    progress,
)
from tests.bench.peers.beyond_data import BEYOND  # noqa: E402
from tests.bench.steps import AUTOTUNE, Column, Results, names_among, number, table  # noqa: E402

NATIVE_TITLE, NUMPY_TITLE, EAGER, COMPILED = "native", "NumPy", "torch eager", "torch compile"
TITLES = (NATIVE_TITLE, NUMPY_TITLE, EAGER, COMPILED)  # a title is the prefix of its columns: the fastest one counts
MODES = ("default", AUTOTUNE)


def main() -> None:
    options = parse_options()
    torch = list(installed(["torch"]))
    targets = [*([(NATIVE_TITLE, NATIVE)] if has_native() else []), (NUMPY_TITLE, "numpy")]
    results = Results()
    machine = f"{cpu_name()}, {options.threads} of {os.cpu_count()} threads"
    for turn in range(options.rounds):
        for model in options.models:
            for batch in options.batches or BEYOND[model].batches:
                for column in columns_of(model, targets, options.modes if torch else None):
                    progress(f"round {turn + 1} of {options.rounds}: {model}, batch {batch}, {column.title}")
                    measure(results, model, batch, column, options.threads)
                if options.json:
                    save(results, machine, options.json)
    progress("")
    print("\n".join(comparison(results, options.rounds, machine)))


def save(results: Results, machine: str, path: Path) -> None:
    """Writes all figures so far: a run takes long, and may be stopped."""
    saved = {
        "machine": machine,
        "python": platform.python_version(),
        "versions": results.versions,
        "rounds": results.rounds,
        "failed": failures(results.failed),
    }
    path.write_text(json.dumps(saved, indent=2) + "\n")


def columns_of(model: str, targets: Sequence[tuple[str, str]], modes: Sequence[str] | None) -> Iterator[Column]:
    """nnc for each target, and PyTorch in its layouts and modes; none of PyTorch if `modes` is None."""
    for title, target in targets:
        yield Column(title, "nnc", (target,))
    if modes is None:
        return
    layouts = [(), ("channels_last",)] if BEYOND[model].convolutional else [()]
    for layout in layouts:
        yield Column(" ".join([EAGER, *layout]), "torch", layout)
        for mode in modes:
            yield Column(" ".join([COMPILED, mode, *layout]), "torch", (mode, *layout))
    if BEYOND[model].sparse:
        yield Column(f"{EAGER} sparse", "torch", ("sparse",))


def measure(results: Results, model: str, batch: int, column: Column, threads: int) -> None:
    """One figure of a column; what fails is left out from then on, and named below the table."""
    row = row_of(model, batch)
    if (row, column.title) in results.failed:
        return
    try:
        answer = ask(f"beyond_{column.peer}", threads, model, str(batch), str(threads), *column.words)
    except PeerFailed as error:
        results.failed[row, column.title] = str(error)
    else:
        results.add(row, column.title, answer)


def row_of(model: str, batch: int) -> str:
    return f"{model}, {batch}"


def comparison(results: Results, rounds: int, machine: str) -> list[str]:
    """The table in Markdown, with the geometric means of the ratios, and the setup it was measured with."""
    rows: list[list[str]] = []
    gains: dict[str, list[float]] = {NATIVE_TITLE: [], NUMPY_TITLE: []}
    for row in results.rounds:
        best = fastest(results.medians(row))
        peer = min((best[title] for title in (EAGER, COMPILED) if title in best), default=None)
        found = {title: peer / best[title] if peer and title in best else None for title in gains}
        for title, gain in found.items():
            gains[title] += [gain] if gain else []
        rows.append([row, *(f"{best[title]:.3g}" if title in best else "-" for title in TITLES)])
        rows[-1] += [number(gain) for gain in found.values()]
    means = [number(statistics.geometric_mean(each) if each else None) for each in gains.values()]
    rows.append(["geometric mean", *("" for _ in TITLES), *means])
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return [
        *table(["model, batch", *TITLES, *(f"{title}: times as fast" for title in gains)], rows),
        "",
        *failures(results.failed),
        f"Milliseconds per training step; median of {rounds} round{'s' if rounds > 1 else ''}; PyTorch in its fastest "
        f"layout and mode. {machine}. Python {platform.python_version()}, {versions}.",
    ]


def fastest(medians: Mapping[str, float]) -> dict[str, float]:
    """The smallest figure among the columns of each title."""
    found: dict[str, float] = {}
    for title in TITLES:
        figures = [figure for column, figure in medians.items() if column.startswith(title)]
        found |= {title: min(figures)} if figures else {}
    return found


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Milliseconds per training step of models beyond the five recipes.")
    parser.add_argument("--models", type=names_among(BEYOND), default=list(BEYOND), metavar="NAMES")
    parser.add_argument("--batches", type=numbers, metavar="N,N", help="default: those that make sense for each model")
    parser.add_argument("--modes", type=names_among(MODES), default=["default"], help="of torch.compile; may be empty")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    main()
