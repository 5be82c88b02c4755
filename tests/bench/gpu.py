"""All measurements on a GPU, in one call: a report in Markdown and all figures as JSON, written after every part.

python tests/bench/gpu.py [--data-dir MNIST] [--out DIR] [--minutes 10] [--parts tests,steps] [--models cnn,bilstm]

    tests      the tests that need a GPU
    replay     a hundred steps: CUDA graphs against eager and against a second run, bit for bit; memory allocated
    steps      microseconds per step, next to PyTorch and JAX if they are installed, all in f32
    profile    time by kernel
    train      the five recipes in full, on MNIST (--data-dir, else $NNC_DATA), the cheapest first
    sanitizer  one step of each model under compute-sanitizer, if it is installed
    tf32       the steps again, with products in TF32 in frameworks that have them

A part ends when its time is over, and reports what it left out. If a peer is missing, fails or hangs, only its columns
are lost. `--emulate` tries out the script on a machine without a GPU, with tiny batches; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.accuracy import PUBLISHED, history  # noqa: E402  (as a script, this file finds them by the line above)
from tests.bench.gpu_processes import (  # noqa: E402
    ENVIRONMENT,
    NO_TIME,
    Done,
    Found,
    describe_machine,
    reason,
    replace_text,
    run,
)
from tests.bench.peers.gpu_protocol import BATCH, STEPS, PeerError, Session  # noqa: E402
from tests.bench.steps import MODELS, names_among, table  # noqa: E402

PEERS = {"nnc": "gpu_nnc", "torch": "gpu_torch", "JAX": "gpu_jax"}
OURS = "nnc graph"
PREPARING, MEASURING = 150, 60  # seconds until a peer counts as hung
BY_COST = ("softmax", "mlp", "separable_cnn", "cnn", "bilstm")  # from the cheapest recipe to the most expensive
CHECKERS = {"memcheck": r"ERROR SUMMARY: (\d+ errors?)", "racecheck": r"RACECHECK SUMMARY: (\d+ hazards?)"}


@dataclass
class Bench:
    """One run of the script: its flags, the machine, and the results so far."""

    flags: argparse.Namespace
    machine: Found
    began: float
    parts: dict[str, Found] = field(default_factory=dict)

    def save(self) -> None:
        """Writes both files, each atomically, with the results so far."""
        saved = {"machine": self.machine, "parts": self.parts}
        replace_text(self.flags.out / "gpu.json", json.dumps(saved, indent=2) + "\n")
        replace_text(self.flags.out / "gpu.md", "\n".join(report(self)) + "\n")

    def left(self) -> float:
        return self.began + 60 * self.flags.minutes - monotonic()

    def nnc(self, *arguments: str) -> list[str]:
        """The command for a task of peers/gpu_nnc.py."""
        emulated = ["--emulate", "--batch", "2"] if self.flags.emulate else []
        return [sys.executable, "-m", "tests.bench.peers.gpu_nnc", *emulated, *arguments]

    def log(self, text: str) -> None:
        print(f"{monotonic() - self.began:5.0f} s  {text}", file=sys.stderr, flush=True)


class Budget:
    """The time limit of a part."""

    def __init__(self, seconds: float):
        self.end = monotonic() + seconds

    @property
    def left(self) -> float:
        return max(self.end - monotonic(), 0)


@dataclass(frozen=True)
class Part:
    """`run` fills in its results, saving them as it goes; `show` formats them as Markdown."""

    title: str
    seconds: float  # at most
    run: Callable[[Bench, Found, Budget], None]
    show: Callable[[Found], list[str]]


def main() -> int:
    flags = read_flags()
    began = monotonic()
    flags.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(flags, {}, began)
    done = run(bench.nnc("device"), 120)
    if done.code != 0:
        message = reason(done) if "Traceback" in done.err else "; ".join(map(str.strip, done.err.strip().splitlines()))
        print(message, file=sys.stderr)
        return 2
    bench.machine.update(describe_machine(json.loads(done.out.splitlines()[-1])["device"]))
    for name, part in PARTS.items():
        if name in flags.parts:
            bench.log(part.title)
            found = bench.parts.setdefault(name, {})
            part.run(bench, found, Budget(min(part.seconds, bench.left())))
            found["done_after_seconds"] = round(monotonic() - began, 1)
            bench.save()
    print((flags.out / "gpu.md").read_text())
    return 0


def read_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default=os.environ.get("NNC_DATA"), help="a folder with the four MNIST files")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), metavar="DIR")
    parser.add_argument("--minutes", type=float, default=10, help="time limit for all parts")
    parser.add_argument("--parts", type=names_among(PARTS), default=list(PARTS), metavar="NAMES")
    parser.add_argument("--models", type=names_among(MODELS), default=list(MODELS), metavar="NAMES")
    parser.add_argument("--peers", type=names_among(PEERS), default=list(PEERS), metavar="NAMES")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--emulate", action="store_true", help="run on the host, to try out the script")
    flags = parser.parse_args()
    if flags.emulate:
        flags.peers, flags.rounds = ["nnc"], 1
    flags.out = flags.out.resolve()
    flags.data_dir = flags.data_dir and Path(flags.data_dir).resolve()  # processes run in another folder
    return flags


# Tests and replay -----------------------------------------------------------------------------------------------------


def run_tests(bench: Bench, found: Found, budget: Budget) -> None:
    if bench.flags.emulate:
        found["note"] = "not run: there is no GPU"
        return
    done = run([sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/gpu"], budget.left)
    (bench.flags.out / "tests.txt").write_text(done.out + done.err)
    found |= {"code": done.code, "note": reason(Done(done.code, "", done.out)) if done.out else reason(done)}


def run_replay(bench: Bench, found: Found, budget: Budget) -> None:
    for model in bench.flags.models:
        found[model] = NO_TIME
        if budget.left > 1:
            done = run(bench.nnc("compare", model), budget.left)
            found[model] = json.loads(done.out.splitlines()[-1]) if done.code == 0 else reason(done)
        bench.save()


def show_replay(found: Found) -> list[str]:
    rows = []
    for model, answer in models_in(found):
        if isinstance(answer, str):
            rows.append([model, "", "", "", answer])
        else:
            same = ["yes" if answer[key] else "NO" for key in ("same_as_eager", "same_again")]
            rows.append([model, str(answer["steps"]), *same, f"{answer['allocated_bytes']} bytes"])
    return table(["model", "steps", "same bits as eager", "same bits again", "allocated by replay"], rows)


# Steps ----------------------------------------------------------------------------------------------------------------


def run_steps(bench: Bench, found: Found, budget: Budget, *words: str) -> None:
    """Peers take turns, each in one process for all models."""
    found |= {"rounds": {}, "wrong": {}, "versions": {}}
    logs = bench.flags.out / "logs"
    logs.mkdir(exist_ok=True)
    sessions = {}
    for peer in bench.flags.peers:
        module = [sys.executable, "-m", f"tests.bench.peers.{PEERS[peer]}", *words]
        command = bench.nnc(*words, "serve") if peer == "nnc" else module
        log = logs / f"{'-'.join([peer, *words]).replace('--', '')}.txt"
        sessions[peer] = Session(command, log, ENVIRONMENT, ROOT)
    try:
        for model in bench.flags.models:
            bench.log(f"  {model}")
            measure_model(sessions, model, bench.flags.rounds, found, budget)
            bench.save()
    finally:
        for session in sessions.values():
            session.end()


def measure_model(sessions: Mapping[str, Session], model: str, rounds: int, found: Found, budget: Budget) -> None:
    figures: dict[str, list[float]] = found["rounds"].setdefault(model, {})
    wrong: dict[str, str] = found["wrong"].setdefault(model, {})
    columns = [
        (peer, column) for peer, session in sessions.items() for column in prepare(session, peer, model, found, budget)
    ]
    for _ in range(rounds):
        for peer, column in columns:
            title = f"{peer} {column}"
            if title in wrong:
                continue
            try:
                answer = sessions[peer].ask({"measure": column}, min(MEASURING, budget.left))
                figures.setdefault(title, []).append(answer["microseconds"])
            except PeerError as error:
                wrong[title] = str(error)
    for peer, session in sessions.items():
        if any(title.startswith(peer) for title in wrong):
            session.end()  # an error on a GPU may persist for as long as the process lives


def prepare(session: Session, peer: str, model: str, found: Found, budget: Budget) -> list[str]:
    """The columns of a peer that are ready to be measured."""
    wrong = found["wrong"][model]
    if budget.left < 1:
        wrong[peer] = NO_TIME
        return []
    try:
        answer = session.ask({"prepare": model}, min(PREPARING, budget.left))
    except PeerError as error:
        wrong[peer] = str(error)
        return []
    found["versions"] |= answer["versions"]
    wrong.update({f"{peer} {column}": text for column, text in answer["columns"].items() if text})
    return [column for column, text in answer["columns"].items() if not text]


def show_steps(found: Found) -> list[str]:
    medians = {
        model: {column: statistics.median(figures) for column, figures in columns.items()}
        for model, columns in found["rounds"].items()
    }
    titles = list(dict.fromkeys(column for columns in medians.values() for column in columns))
    rows = []
    for model, columns in medians.items():
        cells = [f"{columns[title]:.1f}" if title in columns else "-" for title in titles]
        rows.append([model, *cells, ratio(columns)])
    missing = [
        f"- {model}: {column}: {text}" for model, columns in found["wrong"].items() for column, text in columns.items()
    ]
    count = max((len(figures) for columns in found["rounds"].values() for figures in columns.values()), default=0)
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    note = f"Microseconds per training step, batch {BATCH}: median of {count} rounds of {STEPS} steps. {versions}."
    return [*table(["model", *titles, "nnc graph / best peer"], rows), "", note, *([""] if missing else []), *missing]


def ratio(columns: Mapping[str, float]) -> str:
    """Our step time divided by that of the fastest peer."""
    others = [figure for title, figure in columns.items() if not title.startswith("nnc ")]
    return f"{columns[OURS] / min(others):.2f}" if OURS in columns and others else "-"


# Profiles and training ------------------------------------------------------------------------------------------------


def run_profile(bench: Bench, found: Found, budget: Budget) -> None:
    steps = ["--steps", "1", "--batch", "2"] if bench.flags.emulate else ["--steps", "50"]
    for model in bench.flags.models:
        found[model] = NO_TIME
        if budget.left > 1:
            flags = ["--gpu", "--data", "digits", *steps]
            done = run(bench.nnc("command", "profile", f"models/{model}.nn", *flags), budget.left)
            found[model] = done.out if done.code == 0 else reason(done)
        bench.save()


def show_profile(found: Found) -> list[str]:
    return [line for _, text in models_in(found) for line in ("```", *text.rstrip().splitlines(), "```", "")]


def run_training(bench: Bench, found: Found, budget: Budget) -> None:
    if not bench.flags.data_dir:
        found["note"] = "not run: no MNIST; give its folder with --data-dir or NNC_DATA"
        return
    runs = Path(tempfile.mkdtemp(prefix="runs-", dir=bench.flags.out))
    for model in (model for model in BY_COST if model in bench.flags.models):
        found[model] = NO_TIME
        if budget.left > 5:
            bench.log(f"  {model}")
            data = ["--data", "mnist", "--data-dir", str(bench.flags.data_dir)]
            flags = ["--gpu", "--quiet", "--seed", "0", "--out", str(runs / model)]
            began = monotonic()
            done = run(bench.nnc("command", "train", f"models/{model}.nn", *data, *flags), budget.left)
            found[model] = trained(runs / model, model, monotonic() - began) or reason(done)
        bench.save()


def trained(folder: Path, model: str, wall: float) -> Found | None:
    """The results of a run, from its log; None if it did not finish an epoch."""
    epochs = history(folder)
    if not epochs:
        return None
    whole, needed = PUBLISHED[model][0], PUBLISHED[model][-1]
    last, first = epochs[-1], epochs[0]
    later = (last["seconds"] - first["seconds"]) / (len(epochs) - 1) if len(epochs) > 1 else last["seconds"]
    return {
        "epochs": len(epochs),
        "of": whole,
        "seconds": last["seconds"],
        "wall_seconds": wall,
        "seconds_per_epoch": later,
        "train_loss": last["train"]["loss"],
        "test_loss": last["test"]["loss"],
        "accuracy": last["test"]["accuracy"],
        "needed": needed,
    }


def show_training(found: Found) -> list[str]:
    rows = []
    for model, answer in models_in(found):
        if isinstance(answer, str):
            rows.append([model, *[""] * 6, answer])
            continue
        whole = answer["epochs"] == answer["of"]
        reached = ("yes" if answer["accuracy"] >= answer["needed"] else "no") if whole else "stopped: out of time"
        times = [f"{answer[key]:.2f}" for key in ("seconds", "seconds_per_epoch")]
        figures = [f"{answer[key]:.4f}" for key in ("train_loss", "test_loss", "accuracy")]
        rows.append([model, f"{answer['epochs']} of {answer['of']}", *times, *figures, f"{answer['needed']} {reached}"])
    titles = ["model", "epochs", "seconds", "per epoch", "train loss", "test loss", "test accuracy", "needed, reached"]
    return [
        *table(titles, rows),
        "",
        "Seed 0. Seconds include evaluation and checkpoints; those per epoch leave out the first epoch.",
    ]


# compute-sanitizer ----------------------------------------------------------------------------------------------------


def run_sanitizer(bench: Bench, found: Found, budget: Budget) -> None:
    tool = find_sanitizer()
    if tool is None or bench.flags.emulate:
        found["note"] = "not run: " + ("there is no GPU" if bench.flags.emulate else "there is no compute-sanitizer")
        return
    for checker, pattern in CHECKERS.items():
        for model in bench.flags.models:
            answer = NO_TIME
            if budget.left > 1:
                done = run([tool, "--tool", checker, "--error-exitcode", "9", *bench.nnc("once", model)], budget.left)
                (bench.flags.out / f"{checker}-{model}.txt").write_text(done.out + done.err)
                summary = re.search(pattern, done.out + done.err)
                answer = summary[1] if summary else reason(done)
            found.setdefault(model, {})[checker] = answer
            bench.save()


def find_sanitizer() -> str | None:
    name = "compute-sanitizer"
    places = sorted(Path("/usr/local").glob(f"cuda*/bin/{name}"))
    return shutil.which(name) or next((str(place) for place in places), None)


def show_sanitizer(found: Found) -> list[str]:
    rows = [[model, *(answer.get(checker, "") for checker in CHECKERS)] for model, answer in models_in(found)]
    return table(["model", *CHECKERS], rows)


# The report -----------------------------------------------------------------------------------------------------------


def models_in(found: Found) -> list[tuple[str, Any]]:
    return [(model, found[model]) for model in BY_COST if model in found]


def run_tf32(bench: Bench, found: Found, budget: Budget) -> None:
    run_steps(bench, found, budget, "--tf32")


def report(bench: Bench) -> list[str]:
    """All results so far, in Markdown."""
    machine = bench.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    lines = [f"# {machine['device']}", "", f"{machine['nvidia-smi']}; Python {machine['python']}, {versions}."]
    if bench.flags.emulate:
        lines += ["", "**Emulated on the host with batches of 2: the figures mean nothing.**"]
    for name, found in bench.parts.items():
        lines += ["", f"## {PARTS[name].title}", ""]
        lines += [found["note"]] if "note" in found else PARTS[name].show(found)
    return lines


PARTS = {
    "tests": Part("Tests on the device", 100, run_tests, lambda found: []),
    "replay": Part("CUDA graphs against eager, bit for bit", 80, run_replay, show_replay),
    "steps": Part("Step times, f32", 240, run_steps, show_steps),
    "profile": Part("Time by kernel", 80, run_profile, show_profile),
    "train": Part("Accuracy on MNIST", 180, run_training, show_training),
    "sanitizer": Part("compute-sanitizer", 90, run_sanitizer, show_sanitizer),
    "tf32": Part("Step times, TF32", 240, run_tf32, show_steps),
}

if __name__ == "__main__":
    sys.exit(main())
