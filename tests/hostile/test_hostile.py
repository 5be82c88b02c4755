"""A sample of damaged files of every kind, files of earlier findings, and a test that the watch detects misdeeds."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from runtime.errors import RuntimeUserError
from tests.hostile import workers
from tests.hostile.attempts import Kind, Wrong, accepted
from tests.hostile.kinds import KINDS, reseal_checkpoint
from tests.hostile.mutations import MOST_BYTES, mutated
from tests.hostile.run import SHARES
from tests.hostile.workers import Tally, Watch, replay, tried, try_all

SAMPLE = {
    "nn": 100,
    "ir": 100,
    "npy": 200,
    "npz": 200,
    "idx": 200,
    "checkpoint": 150,
    "cache": 40,
    "run": 20,
    "dump": 30,
    "flags": 150,
    "data": 200,
}
SEED = 4
FOUND = sorted(Path(__file__).with_name("found").glob("*-*"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_is_accepted_or_refused(kind: str):
    tally = Tally()
    for part in try_all(kind, SEED, range(SAMPLE[kind]), jobs=2):
        tally.add(part)
    assert not tally.findings, tally.findings[0].why
    assert tally.inputs == SAMPLE[kind] and tally.accepted < tally.inputs


def test_every_kind_has_its_share():
    assert set(SAMPLE) == set(SHARES) == set(KINDS) and sum(SHARES.values()) == 100


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_files_of_earlier_findings(path: Path):
    kind, _, file = path.name.partition("-")
    replay(kind, file.partition("~")[0], path.read_bytes())


def test_damage_is_the_same_for_a_seed_and_is_damage():
    content, words = b'{"shape": (4, 2)} [1, 2] \x00\xff' * 20, [b"word"]
    damaged = [mutated(content, [content], words, random.Random(seed)) for seed in range(200)]
    assert damaged == [mutated(content, [content], words, random.Random(seed)) for seed in range(200)]
    assert len(set(damaged)) > 150 and all(len(each) <= MOST_BYTES for each in damaged)
    assert sum(each == content for each in damaged) < 20


def test_checkpoints_are_sealed_again(tmp_path: Path):
    (path,) = KINDS["checkpoint"].make(tmp_path)
    content, choose = path.read_bytes(), random.Random(0)
    changed = content[:-1] + bytes([content[-1] ^ 1])
    outcomes = []
    for each in (content, changed, reseal_checkpoint(changed)):
        path.write_bytes(each)
        outcomes.append(KINDS["checkpoint"].attempt(path, choose))
    assert outcomes == [True, False, True]


# The watch ------------------------------------------------------------------------------------------------------------


def fills_memory() -> None:
    assert len(bytearray(b"x" * (1 << 20)) * 200)


def runs_forever() -> None:
    while True:
        pass


def raises() -> None:
    raise KeyError("a mistake")


def runs_code() -> None:
    exec(compile("1", "a-stranger", "exec"))


MISDEEDS = {
    "KeyError: 'a mistake'": raises,
    "open ../outside": lambda: Path("../outside").write_text(""),
    "os.mkdir ../outside-folder": lambda: os.mkdir("../outside-folder"),
    "subprocess.Popen": lambda: subprocess.run(["true"], check=False),
    "ran a-stranger": runs_code,
    "took more than": runs_forever,
    "took ": fills_memory,  # the last one: it would count against all that follow
}


def commit_misdeeds(place: Path, results: Connection) -> None:
    """Runs in a new process, since a watch cannot be removed."""
    workers.LONGEST = 0.5
    workers.MOST_MEMORY = workers.most_resident() + (100 << 20)
    path = place / "files" / "file"
    path.parent.mkdir()
    os.chdir(path.parent)
    watch = Watch(path.parent)
    for misdeed in [lambda: Path("inside").write_text(""), *MISDEEDS.values()]:
        KINDS["planted"] = Kind(lambda folder: [], lambda path, choose, misdeed=misdeed: misdeed() is None)
        tally = tried("planted", 0, path, b"", watch, random.Random(0))
        results.send([finding.why for finding in tally.findings])


def test_the_watch_detects_misdeeds(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=commit_misdeeds, args=(tmp_path, theirs))
    process.start()
    theirs.close()
    assert ours.recv() == []
    for words in MISDEEDS:
        (why,) = ours.recv()
        assert words in why
    process.join(30)


def test_a_worker_that_dies_is_followed_by_another(monkeypatch: pytest.MonkeyPatch):
    """The first worker is silent for too long."""
    monkeypatch.setattr(workers, "LONGEST_WAIT", 0.0)
    lane = workers.Lane(workers.Work("idx", 0, 0, 3))
    deadline = time.monotonic() + 60
    try:
        while lane.current.value < 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        (lost,) = [part for part in lane.follow("was silent") if part.findings]
        assert lost.findings[0].why == "was silent" and lost.findings[0].index >= 0
    finally:
        lane.end()


def test_output_must_not_control_the_terminal():
    class Raw(RuntimeUserError):
        def __str__(self) -> str:
            return "\x1b[2J"

    def fails() -> None:
        raise Raw("")

    with pytest.raises(Wrong, match="control the terminal"):
        accepted(fails)
    assert (
        str(RuntimeUserError("no \x1b[2J", found="\ufeff\r\nsecond"))
        == "error: no \\x1b[2J\n  found: \\ufeff\\r\nsecond"
    )
