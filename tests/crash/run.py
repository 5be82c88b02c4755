"""Disturbs training in every way that a machine can, and compares the results with undisturbed runs.

    python tests/crash/run.py --kills 100       kill -9, 40 of 100 inside a save; each run is resumed to its end
    python tests/crash/run.py --faults          every input and output call: a full disk, an error, half of the bytes
    python tests/crash/run.py --signals 50      SIGINT and SIGTERM at random moments, sometimes twice
    python tests/crash/run.py                   all three

Prints each failure and a line for each part; the exit code is 1 after a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.cli.running import Result, environment, nnc
from tests.crash.faulty import ERRORS, PARTIAL
from tests.crash.runs import copy, finish, has_checkpoint, one_error, place, run, start, state, trace, uninterrupted

INSIDE = 0.4  # of the kills
EPOCHS, EXAMPLES = 10, 3000  # of a run that takes about a second
FEW_EPOCHS, FEW_EXAMPLES = 3, 90  # of one that takes milliseconds
TRAIN = ["train", "points.nn", "--quiet"]
# Reports that Python has started: nnc is not responsible before that.
READY = "import sys; from compiler.__main__ import main; print('ready', flush=True); sys.exit(main())"


@dataclass
class Tally:
    """The number of trials by kind, and the failures."""

    tried: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def note(self, kind: str, label: str, failure: str) -> None:
        self.tried[kind] += 1
        if failure:
            self.failures.append(f"{label}: {failure}")
            print(f"FAILED {self.failures[-1]}", flush=True)

    def summary(self, title: str, result: str) -> str:
        number = sum(self.tried.values())
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.tried.items()))
        return f"{title}: {number - len(self.failures)} of {number} {result} ({kinds})"


# Killed ---------------------------------------------------------------------------------------------------------------


def kills(number: int, choice: random.Random) -> Tally:
    """kill -9, between saves and inside them; resumed in a new process and compared bit for bit."""
    tally, inside = Tally(), round(number * INSIDE)
    with place(FEW_EXAMPLES, FEW_EPOCHS):
        whole = uninterrupted()
        moments = list(moments_of_saves(trace([*TRAIN, "--out", "traced"])))
        chosen = choice.sample(moments, min(inside, len(moments)))
        chosen += choice.choices(moments, k=inside - len(chosen))
        for i, (at, call, when) in enumerate(chosen):
            folder = f"inside-{i}"
            done = run([*TRAIN, "--out", folder], {"at": at, "action": when})
            killed = "" if done.code == -signal.SIGKILL else f"was not killed, but exited with {done.code}"
            tally.note("inside a save", f"{when} call {at}, {call}", killed or finish(folder, FEW_EPOCHS, whole, run))
    with place(EXAMPLES, EPOCHS):
        whole, span = uninterrupted(), seconds_of_a_run()
        for i in range(number - inside):
            delay = kill_at_random(f"random-{i}", span, choice)
            failure = finish(f"random-{i}", EPOCHS, whole, run)
            tally.note("at random", f"killed {delay:.3f} s after the first checkpoint", failure)
    return tally


def moments_of_saves(calls: list[tuple[str, str]]) -> Iterator[tuple[int, str, str]]:
    """The moments in saves, after the first checkpoint, when a process can be killed: call, its name, and when."""
    first = calls.index(("replace", "traced/last.safetensors")) + 1
    for at, (kind, name) in enumerate(calls, 1):
        if at > first and (".safetensors" in name or name == "traced"):
            for when in ("before", "within", "after"):
                if kind in PARTIAL if when == "within" else kind != "open" or when == "after":
                    yield at, f"{kind} {name}", when


def seconds_of_a_run() -> float:
    """Seconds from the first checkpoint of a run to the end of its training."""
    process = start([*TRAIN, "--out", "timed"])
    await_checkpoint(process, Path("timed"))
    began = time.perf_counter()
    process.communicate(timeout=120)
    return time.perf_counter() - began


def await_checkpoint(process: subprocess.Popen[str], folder: Path) -> None:
    while process.poll() is None and not has_checkpoint(folder):
        time.sleep(0.001)


def kill_at_random(folder: str, span: float, choice: random.Random) -> float:
    """Kills a run after its first checkpoint and before its end; returns the seconds between."""
    for attempt in range(100):
        process = start([*TRAIN, "--out", folder])
        await_checkpoint(process, Path(folder))
        delay = choice.uniform(0, span * 0.95**attempt)
        time.sleep(delay)
        process.kill()
        process.communicate()
        if process.returncode == -signal.SIGKILL:
            return delay
        Path(folder).rename(f"{folder}-too-late-{attempt}")
    raise RuntimeError("every run ended before it was killed")


# Faults ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """A command, commands to run before it, and its result. `cold`: without compiled programs in the cache."""

    arguments: list[str]
    result: Callable[[Path], object]
    before: tuple[list[str], ...] = ()
    cold: bool = False
    sites: str = ""  # only calls on files whose names begin with this


def bytes_of(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).read_bytes()


def files_of(name: str) -> Callable[[Path], object]:
    return lambda folder: {path.name: path.read_bytes() for path in sorted((folder / name).iterdir())}


def nothing(folder: Path) -> object:
    return None


def trained(folder: Path) -> object:
    return state(folder / "run")


A_RUN = [*TRAIN, "--out", "run"]
RESUME = ["train", "--quiet", "--epochs", str(FEW_EPOCHS), "--resume", "run"]
PREDICT = ["predict", "run", "--input", "points.npy", "--output", "scores.npy"]
STANDALONE = ["emit", "points.nn", "--standalone", "alone.py"]
DUMP = ["emit", "points.nn", "--dump-dir", "stages"]
SCENARIOS = {
    "train": Scenario(A_RUN, trained),
    "train, compiling": Scenario(A_RUN, trained, cold=True, sites="cache"),
    "train --resume": Scenario(RESUME, trained, ([*A_RUN, "--epochs", "2"],)),
    "eval": Scenario(["eval", "run"], nothing, (A_RUN,)),
    "predict": Scenario(PREDICT, bytes_of("scores.npy"), (A_RUN, [*PREDICT, "--best"])),
    "emit --standalone": Scenario(STANDALONE, bytes_of("alone.py"), ([*STANDALONE, "--batch", "8"],)),
    "emit --dump-dir": Scenario(DUMP, files_of("stages")),
}


class Trial:
    """A scenario: run once without a fault, then with faults, each time in a new copy of its folder."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.scenario, self.folder, self.copy = scenario, folder, folder.with_name("copy")
        for arguments in scenario.before:
            assert nnc(*arguments).code == 0
        self.old = self.result(folder)
        with self.fresh():
            self.undisturbed = run(scenario.arguments)
            self.whole = self.result(self.copy)
        if not scenario.cold and (self.copy / "cache").exists():
            copy(self.copy / "cache", folder / "cache")
        with self.fresh():
            self.calls = trace(scenario.arguments)

    @contextlib.contextmanager
    def fresh(self) -> Iterator[None]:
        """Works in a new copy of the folder."""
        copy(self.folder, self.copy)
        with contextlib.chdir(self.copy):
            yield

    def result(self, folder: Path) -> object:
        """The result of the command; None if there is none yet."""
        try:
            return self.scenario.result(folder)
        except FileNotFoundError:
            return None

    def failure(self, at: int, action: str) -> str:
        """Makes a call fail; returns the problem with the outcome, or an empty text."""
        with self.fresh():
            done = run(self.scenario.arguments, {"at": at, "action": action})
            if done.code == 0:
                return self.wrong_success(done)
            if done.code != 2 or not one_error(done.err):
                return f"exit code {done.code}, {done.err}"
            return self.not_resumed() if self.scenario.result is trained else self.not_repeated()

    def wrong_success(self, done: Result) -> str:
        """A command that continues in spite of a fault must have its full result, or warn."""
        same = done.out == self.undisturbed.out or self.scenario.result is trained
        if (self.result(self.copy) == self.whole and same) or "warning:" in done.err:
            return ""
        return f"nothing is reported, and the result differs: {done.out}{done.err}"

    def not_resumed(self) -> str:
        """A checkpoint must still exist and be resumed; without one, --resume must report that."""
        if has_checkpoint(Path("run")):
            return finish("run", FEW_EPOCHS, self.whole, in_process)
        done = in_process(RESUME)
        return "" if done.code == 2 and one_error(done.err) else f"resumed from nothing: {done.out}{done.err}"

    def not_repeated(self) -> str:
        """A file must be all old or all new, and the command must work without a fault."""
        if self.result(self.copy) not in (self.old, self.whole):
            return "the result is neither old nor new"
        done = in_process(self.scenario.arguments)
        same = done.code == 0 and self.result(self.copy) == self.whole
        return "" if same else f"cannot be repeated: {done.out}{done.err}"


def in_process(arguments: list[str]) -> Result:
    return nnc(*arguments)


def faults(share: float, names: Iterable[str], choice: random.Random) -> Tally:
    """Every call of scenarios, or a share of them, fails once in each way."""
    tally = Tally()
    for name in names:
        scenario = SCENARIOS[name]
        with place(FEW_EXAMPLES, FEW_EPOCHS) as folder:
            trial = Trial(scenario, folder)
            for at, (kind, file) in enumerate(trial.calls, 1):
                for action in (*ERRORS, "short") if kind in PARTIAL else ERRORS:
                    if file.startswith(scenario.sites) and choice.random() < share:
                        label = f"{name}, {action} at call {at}, {kind} {file}"
                        tally.note(action, label, trial.failure(at, action))
    return tally


# Signals --------------------------------------------------------------------------------------------------------------


def signals(number: int, choice: random.Random) -> Tally:
    """SIGINT and SIGTERM at random moments of a command, every fifth time twice; then it is resumed, if possible."""
    tally = Tally()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with SIGINT ignored
    with place(EXAMPLES, EPOCHS):
        began = time.perf_counter()
        whole = uninterrupted()
        span = time.perf_counter() - began
        for i in range(number):
            folder, sent = f"run-{i}", choice.choice((signal.SIGINT, signal.SIGTERM))
            twice = i % 5 == 4
            delay, done = send_at_random(folder, sent, twice, span, choice)
            label = f"{sent.name}{' twice' if twice else ''} after {delay:.3f} s"
            tally.note(f"{sent.name}{' twice' if twice else ''}", label, wrong_end(folder, sent, done, whole))
    return tally


def send_at_random(
    folder: str, sent: signal.Signals, twice: bool, span: float, choice: random.Random
) -> tuple[float, Result]:
    """Sends a signal to a command before it ends; returns the seconds since its start, and its end."""
    for attempt in range(100):
        line = [sys.executable, "-c", READY, *TRAIN, "--out", folder]
        process = subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout and process.stdout.readline() == "ready\n"
        delay = 0.001 + choice.uniform(0, span * 0.95**attempt)
        time.sleep(delay)
        for _ in range(1 + twice):
            process.send_signal(sent)
            time.sleep(0.003)
        out, err = process.communicate(timeout=60)
        if process.returncode:
            return delay, Result(process.returncode, out, err)
        Path(folder).rename(f"{folder}-too-late-{attempt}")
    raise RuntimeError("every run ended before the signal")


def wrong_end(folder: str, sent: signal.Signals, done: Result, whole: dict[str, object]) -> str:
    """The problem with a command that a signal ended, or an empty text."""
    if done.code != 128 + sent or "Traceback" in done.err or "Exception" in done.err:
        return f"exit code {done.code}, {done.err}"
    if not has_checkpoint(Path(folder)):
        return "" if "is saved" not in done.err else f"not saved, but said: {done.err}"
    return finish(folder, EPOCHS, whole, run)


# --------------------------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, metavar="N", help="number of runs to kill")
    parser.add_argument("--faults", action="store_true", help="make every input and output call fail")
    parser.add_argument(
        "--share", type=float, default=1.0, help="share of the faults to try, chosen at random (default: 1)"
    )
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="only faults in this command (default: all)")
    parser.add_argument("--signals", type=int, metavar="N", help="number of runs that get a signal")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    everything = not (flags.kills or flags.faults or flags.signals)
    share, names = flags.share * (flags.faults or everything), flags.only or SCENARIOS
    parts = {
        "kill -9": (partial(kills, flags.kills or 100 * everything), "bitwise identical after resume"),
        "faults": (partial(faults, share, names), "repaired or reported once, and saved files load"),
        "signals": (partial(signals, flags.signals or 50 * everything), "saved, exited with 130 or 143, and resumed"),
    }
    failed = False
    for title, (disturb, result) in parts.items():
        if disturb.args[0]:
            began = time.perf_counter()
            tally = disturb(random.Random(flags.seed))
            print(f"{tally.summary(title, result)} in {time.perf_counter() - began:.0f} s", flush=True)
            failed |= bool(tally.failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
