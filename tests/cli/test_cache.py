"""The cache of compiled programs: hits, misses and their reasons, and that no wrong entry is ever run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.cli import cache
from compiler.cli.cache import Cache, Key
from tests.cli.conftest import PROGRAM
from tests.cli.running import environment, nnc
from tests.programs import ROOT

TRAIN = ("train", "points.nn", "--epochs", "1", "--timings", "--quiet", "--out")
RUNS = count()


@pytest.fixture
def cached(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an empty cache next to the program."""
    monkeypatch.setenv("NNC_CACHE", str(place / "cache"))
    return place


def cached_as(*arguments: str | Path) -> str:
    """The message of the cache when training, each time in a new folder."""
    result = nnc(*TRAIN, f"run-{next(RUNS)}", *arguments)
    assert (result.code, result.err) == (0, ""), result.err
    match = re.match(r"cache: (.*)\n", result.out)
    assert match
    return match[1]


def entries(place: Path) -> list[Path]:
    return sorted((place / "cache").iterdir())


def test_the_second_time_is_a_hit(cached: Path):
    assert cached_as() == "miss, no entry"
    (entry,) = entries(cached)
    assert cached_as() == f"hit {entry.stem}"
    assert entries(cached) == [entry]


def test_a_hit_trains_evaluates_and_predicts_the_same(cached: Path):
    results = []
    for name in ("first", "second"):
        trained = nnc("train", "points.nn", "--epochs", "2", "--out", name)
        assert trained.code == 0
        assert nnc("predict", name, "--input", "points.npy", "--output", f"{name}.npy").code == 0
        folder = cached / name
        weights = (folder / "last.safetensors").read_bytes()[-400:]
        results.append(
            (
                folder.joinpath("program.nn").read_text(),
                weights,
                nnc("eval", name).out,
                np.load(f"{name}.npy").tobytes(),
            )
        )
    assert results[0] == results[1]
    assert nnc("train", "--resume", "second", "--epochs", "3").code == 0


def test_a_hit_needs_no_compiler(cached: Path):
    """Neither the parser nor the passes are imported."""
    assert nnc("eval", "points.nn").code == 0
    script = """
import sys, time
from compiler.cli.run import run
code = run(["eval", "points.nn"], time.perf_counter())
print(code, sorted(name for name in sys.modules if name in ("lark", "compiler.driver", "compiler.ops")))
"""
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_changes_of_the_model(cached: Path):
    cached_as()
    Path("points.nn").write_text(PROGRAM.replace("Dense(8)", "Dense(9)"))
    assert cached_as() == "miss, the model file changed"
    assert cached_as().startswith("hit ")
    Path("points.nn").write_text(PROGRAM)
    assert cached_as().startswith("hit ")
    Path("points.nn").write_text(PROGRAM + "# the end\n")
    assert cached_as() == "miss, the model file changed"


def test_flags(cached: Path):
    cached_as()
    for flags in (["--batch", "8"], ["--set", "optimizer=Adam"], ["--disable", "fusion"], ["--seed", "3"]):
        assert cached_as(*flags) == "miss, no entry"
        assert cached_as(*flags).startswith("hit ")
    assert cached_as().startswith("hit ")


def test_changes_of_imported_files(cached: Path):
    (cached / "inner.nn").write_text("fn half(x) { return 0.5 * x }\n")
    (cached / "parts.nn").write_text('import "inner.nn"\n')
    Path("points.nn").write_text('import "parts.nn"\n' + PROGRAM.replace("relu", "half"))
    assert cached_as() == "miss, no entry" and cached_as().startswith("hit ")
    (cached / "inner.nn").write_text("fn half(x) { return x / 2 }\n")
    assert cached_as() == "miss, inner.nn changed"
    assert cached_as().startswith("hit ")
    (cached / "parts.nn").write_text("fn half(x) { return x / 2 }\n")
    assert cached_as() == "miss, parts.nn changed"
    (cached / "parts.nn").unlink()
    assert nnc("train", "points.nn").code == 2


def test_changes_of_the_compiler(cached: Path, monkeypatch: pytest.MonkeyPatch):
    cached_as()
    monkeypatch.setattr(cache, "compiler_hash", lambda: "another")
    assert cached_as() == "miss, the compiler changed"
    Path("points.nn").write_text(PROGRAM + "# the end\n")
    assert cached_as() == "miss, the model file changed"


def test_the_hash_of_the_compiler_is_that_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It depends on contents and names, not on dates."""
    for name in ("compiler/a.py", "compiler/std/b.nn", "compiler/__pycache__/a.pyc", "runtime/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "compiler/cli/cache.py"))
    known = cache.compiler_hash()
    os.utime(tmp_path / "compiler/a.py", (1, 1))
    (tmp_path / "compiler/__pycache__/a.pyc").write_text("other")
    assert cache.compiler_hash() == known
    for change in (
        lambda: (tmp_path / "compiler/std/b.nn").write_text("COMPILER/std/b.nn"),
        lambda: (tmp_path / "runtime/c.py").rename(tmp_path / "runtime/d.py"),
        lambda: (tmp_path / "compiler/e.py").write_text(""),
    ):
        change()
        assert cache.compiler_hash() != known
        known = cache.compiler_hash()


def test_changes_of_the_data(cached: Path):
    cached_as()
    with np.load("points.npz") as arrays:
        point, label = arrays["point"], arrays["label"]
    np.savez("points.npz", point=point[:50], label=label[:50])
    assert cached_as().startswith("hit ")
    np.savez("points.npz", point=point, label=label.astype(np.uint8))
    assert cached_as() == "miss, the data set is stored differently now"
    np.savez("points.npz", point=point[:, :3], label=label.astype(np.uint8))
    result = nnc("eval", "points.nn")
    assert result.code == 2 and 'array "point" does not have the shape' in result.err


def damaged(text: str) -> dict[str, str]:
    """Entries that are not as they were written."""
    _, _, body = text.partition("\n")
    other = body.replace("np.exp", "np.log")
    return {
        "cut": text[: len(text) // 2],
        "empty": "",
        "changed": text.replace("import numpy as np", "import numpy as no"),
        "something else": "{}",
        "a list": f"{cache.digest('[]')}\n[]",
        "other keys": f"{cache.digest('{}')}\n{{}}",
        "another manifest": (lambda b: f"{cache.digest(b)}\n{b}")(body.replace('"classes"', '"clauses"')),
        "not UTF-8": "\udcff" + other,
    }


@pytest.mark.parametrize("damage", damaged("a\nb"))
def test_damaged_entries_are_replaced(cached: Path, damage: str):
    cached_as()
    (entry,) = entries(cached)
    whole = entry.read_bytes()
    entry.write_bytes(damaged(whole.decode())[damage].encode(errors="surrogateescape"))
    assert cached_as().startswith("miss, damaged entry: ")
    assert entry.read_bytes() == whole
    assert cached_as().startswith("hit ")


def tampered(change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the only entry, and makes its hash match again."""
    (entry,) = entries(Path())
    values = json.loads(entry.read_text().partition("\n")[2])
    change(values["entry"])
    text = json.dumps(values)
    entry.write_text(f"{cache.digest(text)}\n{text}")


@pytest.mark.parametrize(
    ("text", "line"), [("import os; os.mkdir('owned')", 2), ("v = open('owned', 'w')", 2), ("\0", 0)]
)
def test_a_source_that_was_not_generated_is_not_run(cached: Path, text: str, line: int):
    cached_as()
    tampered(lambda entry: entry["build"]["executable"].update(source=f"import numpy as np\n{text}\n"))
    assert cached_as() == f"miss, its source was not generated by nnc, line {line}"
    assert cached_as().startswith("hit ")
    assert not (cached / "owned").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.update(files={"points.nn": 1}),
        lambda entry: entry.update(storage={"point": 1}),
        lambda entry: entry["build"].update(data=["digits"]),
        lambda entry: entry["build"]["executable"].update(source=1),
        lambda entry: entry["build"]["executable"].update(arena_bytes=-1),
        lambda entry: entry["build"]["executable"].update(arena_bytes="many"),
        lambda entry: entry["build"]["executable"].update(batch=True),
        lambda entry: entry["build"]["manifest"].update(metrics=[1]),
        lambda entry: entry["build"]["manifest"].update(classes={"label": "3"}),
        lambda entry: entry["build"]["manifest"].update(totals={"f1.hits": "mean"}),
        lambda entry: entry["build"]["manifest"]["settings"].update(epochs=1e999),
        lambda entry: entry["build"]["manifest"]["inputs"][0].update(shape=[None, "4"]),
    ],
    ids=range(12),
)
def test_values_of_another_type_are_damage(cached: Path, change: Callable[[dict[str, Any]], object]):
    cached_as()
    tampered(change)
    assert cached_as().startswith("miss, damaged entry: ")
    assert cached_as().startswith("hit ")


def test_an_entry_of_another_user_is_not_run(cached: Path, monkeypatch: pytest.MonkeyPatch):
    cached_as()
    monkeypatch.setattr("os.getuid", lambda: os.stat(".").st_uid + 1)
    assert cached_as() == "miss, damaged entry: it belongs to another user"


def test_off_and_places_that_cannot_be_written(cached: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NNC_CACHE", "off")
    assert cached_as() == "off" and cached_as() == "off" and not (cached / "cache").exists()
    monkeypatch.setenv("NNC_CACHE", "points.nn/cache")
    assert cached_as() == "miss, no entry" and cached_as() == "miss, no entry"


def test_the_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("NNC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Cache.of_user().folder == tmp_path / "nnc/programs"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Cache.of_user().folder == tmp_path / "home/.cache/nnc/programs"


def test_the_oldest_entries_go(cached: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache, "MOST_ENTRIES", 3)
    (cached / "cache").mkdir()
    left = cached / "cache/.left.99.tmp"
    left.write_text("by a process that was killed")
    os.utime(left, (1, 1))
    for number in range(1, 5):
        cached_as("--seed", str(number))
        for age, path in enumerate(sorted(entries(cached), key=lambda path: path.stat().st_mtime_ns)):
            os.utime(path, (age, age))
        assert cached_as("--seed", "1").startswith("hit ")  # an entry that was used is not old
    assert len(entries(cached)) == 3 and not left.exists()
    assert cached_as("--seed", "1").startswith("hit ") and cached_as("--seed", "2") == "miss, no entry"


def test_a_file_that_changes_while_it_is_compiled_is_not_stored(cached: Path):
    key = Key.of("points.nn", [])
    assert key
    cached_as()
    choices = [True, [["--epochs", "1"]], "points.nn", None, "numpy", None, [], []]
    entry, _ = Cache(cached / "cache").load(Key.of("points.nn", choices))
    assert entry
    changed = Key(key.path, key.choices, "of another text", key.compiler)
    before = entries(cached)
    Cache(cached / "cache").store(changed, entry)
    assert entries(cached) == before


def test_an_entry_is_text(cached: Path):
    cached_as()
    (entry,) = entries(cached)
    digest, _, text = entry.read_text().partition("\n")
    values = json.loads(text)
    assert digest == cache.digest(text) and values["entry"]["build"]["executable"]["source"].startswith("# points.nn: ")
    assert str(ROOT) not in text
