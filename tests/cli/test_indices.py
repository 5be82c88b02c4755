"""Indices that leave their tables, from the command line: the error names the line and the row of the data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from runtime.training.captures import read_dump, write_dump
from tests.cli.running import Result, nnc

TEXT = """\
model N(word: i32[B]) { return word - 1 |> Embedding(4, 3) }
train N {
  data = "words.npz"
  loss = mean_squared_error
  optimizer = SGD(lr=0.1)
  batch = 4
  epochs = 2
}
"""
PLACE = """\
words.nn:1:44: error: an index is outside its table
 1 | model N(word: i32[B]) { return word - 1 |> Embedding(4, 3) }
   |                                            ^
  expected: 0 … 3, the rows of the table
"""


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("words.nn").write_text(TEXT)
    return tmp_path


def store(train: list[int], test: list[int], name: str = "words.npz") -> None:
    parts = {"word": train, "word_test": test}
    arrays = {name: np.array(part, np.int32) for name, part in parts.items()}
    targets = {name.replace("word", "target"): np.zeros((len(part), 3), "f4") for name, part in parts.items()}
    np.savez(name, **arrays, **targets)


def check(result: Result, found: str, *, file: str = "words.nn") -> None:
    assert result.code == 2
    assert result.err == PLACE.replace("words.nn", file) + found


@pytest.mark.parametrize("flags", [(), ("--check-numerics",)])
@pytest.mark.parametrize(("batch", "step", "steps"), [(1, 9, 9), (4, 3, 3), (64, 1, 1)])
def test_train(words: Path, batch: int, step: int, steps: int, flags: tuple[str, ...]):
    """Also in a smaller last batch."""
    store([1, 2, 3, 4, 1, 2, 3, 4, 0], [1, 2])
    set_flags = ("--set", "train.shuffle=false", "--batch", str(batch))
    result = nnc("train", "words.nn", "--quiet", "--out", "run", *set_flags, *flags)
    found = "  found: -1, in row 8 of the training data\n"
    note = f"  note: in embedding_1, epoch 1, step {step} of {steps}\n  hint: epoch 0 is saved and intact\n"
    check(result, found + note)
    assert nnc("eval", "run").code == 0


def test_test_data(words: Path):
    store([1, 2, 3, 4], [1, 2, 3, 4, 4, 5])
    result = nnc("train", "words.nn", "--quiet", "--out", "run")
    note = "  note: in embedding_1, epoch 1, batch 2 of 2\n  hint: epoch 0 is saved and intact\n"
    check(result, "  found: 4, in row 5 of the test data\n" + note)
    result = nnc("eval", "words.nn")
    check(result, "  found: 4, in row 5 of the test data\n  note: in embedding_1, batch 2 of 2\n")


def test_an_index_of_the_optimizer(words: Path):
    """The step as an index belongs to no row. A resumed run says which epoch is saved."""
    table = "optimizer Table(p, g, step) { return p - gather(full([5], 0.1), step) * g }\n"
    Path("words.nn").write_text(TEXT.replace("SGD(lr=0.1)", "Table") + table)
    store([1, 2, 3, 4] * 3, [1, 2])
    ending = "  found: 5\n  note: in embedding_1.table, epoch 2, step 3 of 3\n  hint: epoch 1 is saved and intact\n"
    for flags in (("words.nn", "--out", "run"), ("--resume", "run")):
        result = nnc("train", *flags, "--quiet")
        assert result.code == 2 and result.err.endswith(ending), result.err


def test_predict(words: Path):
    store([1, 2, 3, 4], [1, 2])
    assert nnc("train", "words.nn", "--quiet", "--out", "run").code == 0
    np.savez("other.npz", word=np.array([1, 2, 9, 4], np.int32))
    result = nnc("predict", "run", "--input", "other.npz", "--output", "y.npz")
    assert result.code == 2
    assert "found: 8, in row 2 of the given data\n  note: in embedding_1, batch 1 of 1\n" in result.err
    assert not Path("y.npz").exists()


def test_an_input_that_is_an_index_is_checked_when_it_is_loaded(words: Path):
    Path("words.nn").write_text(TEXT.replace("word - 1 ", "word "))
    store([0, 1, 2, 3, 4], [1, 2])
    result = nnc("train", "words.nn", "--quiet", "--out", "run")
    assert result.code == 2
    assert "row 4 of array" in result.err and "is not a row of the table" in result.err
    assert "check_index" not in nnc("emit", "words.nn").out


@pytest.mark.parametrize(
    ("word", "value", "found"),
    [
        ("word - 1", 0, "found: -1, in row {row} of the test data\n  note: in embedding_1, epoch 1, batch 1 of 1\n"),
        ("word", -1, 'found: "inputs: word, whose values must be from 0 to 3"\n'),
    ],
)
def test_replay(words: Path, word: str, value: int, found: str):
    """A dump with an index outside its table: computed, or as it is in the data."""
    Path("words.nn").write_text(TEXT.replace("word - 1", word).replace("lr=0.1", "lr=1e30"))
    store([1, 2, 3, 3], [1, 2])
    assert nnc("train", "words.nn", "--quiet", "--out", "run").code == 2
    (path,) = Path("run").glob("numerics-*")
    capture, recipe = read_dump(path)
    capture.inputs["word"][1] = value
    write_dump(path, capture, recipe)
    result = nnc("replay", path)
    assert (result.code, result.out) == (2, "")
    assert found.format(row=capture.indices[1]) in result.err
    if value == 0:
        assert result.err.startswith(
            "run/program.nn:2:22: error: an index is outside its table\n 2 |   return word - 1 |>"
        )


def test_profile_of_random_data(words: Path):
    """Without its data."""
    result = nnc("profile", "words.nn", "--steps", "1")
    assert result.code == 2
    assert ", in random data\n" in result.err and "hint: name the data with --data\n" in result.err
    store([1, 2, 3, 4], [1, 2])
    assert nnc("profile", "words.nn", "--steps", "1").code == 0
    assert nnc("annotate", "words.nn", "--steps", "1").code == 0


def test_a_standalone_script(words: Path):
    store([1, 2, 3, 4, 0], [1, 2])
    assert nnc("emit", "words.nn", "--standalone", "train.py").code == 0
    done = subprocess.run([sys.executable, "train.py"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout.startswith("5 rows to train, 2 to test; ") and "step" not in done.stdout
    assert "words.nn:1:44: error: an index is outside its table\n" in done.stderr
    assert "found: -1, in row 4 of the training data\n" in done.stderr
    store([1, 2, 3, 4], [1, 5])
    done = subprocess.run([sys.executable, "train.py"], capture_output=True, text=True)
    assert done.returncode == 1 and "found: 4, in row 1 of the test data\n" in done.stderr
    store([1, 2, 3, 4], [1, 2])
    assert subprocess.run([sys.executable, "train.py"], capture_output=True).returncode == 0


def test_names_in_the_source_are_only_text(words: Path):
    """A file name with quotes reaches the source and the message as text."""
    name = "wo'rds\".nn"
    Path(name).write_text(TEXT)
    store([0, 2, 3, 4], [1, 2])
    result = nnc("train", name, "--quiet", "--out", "run", "--set", "train.shuffle=false")
    note = "  note: in embedding_1, epoch 1, step 1 of 1\n  hint: epoch 0 is saved and intact\n"
    check(result, "  found: -1, in row 0 of the training data\n" + note, file=name)


def test_floats_that_become_indices_are_checked_as_indices(words: Path):
    """Between -1 and 0 they are the index 0; loading does not know that a float is an index."""
    text = TEXT.replace("word: i32[B]", "word: f32[B]").replace("word - 1", 'cast(word, "i32")')
    Path("words.nn").write_text(text)
    values, target = np.array([-0.9, 3.9, 1.5], np.float32), np.zeros((3, 3), np.float32)
    np.savez("words.npz", word=values, word_test=values, target=target, target_test=target)
    assert nnc("train", "words.nn", "--quiet", "--out", "run").code == 0
    np.savez("words.npz", word=values + 0.1, word_test=values, target=target, target_test=target)
    result = nnc("train", "words.nn", "--quiet", "--out", "other")
    assert result.code == 2
    assert "  expected: 0 … 3, the rows of the table\n  found: 4, in row 1 of the training data\n" in result.err
