"""Data sets from files: splits, types, the memory they need, and checks against a model."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from runtime.datasets import describe, footprint, load
from runtime.datasets.checks import check, check_values
from runtime.datasets.dataset import ArrayInfo, Dataset, Split
from runtime.datasets.npy import IN_MEMORY
from runtime.errors import RuntimeUserError, did_you_mean, quoted
from runtime.program import TensorSpec
from tests.runtime.test_built_in_data import nobodys_machine  # noqa: F401

IMAGE = TensorSpec("image", "f32", (None, 28, 28, 1), "input")
LABEL = TensorSpec("label", "i32", (None,), "target")
INFO = {"image": ArrayInfo("u8", (28, 28), 1 / 255), "label": ArrayInfo("u8", (), 1.0)}


def save(path: Path, form: str, **arrays: np.ndarray) -> Path:
    """Writes arrays in one of the three forms; returns the path to pass to `load`."""
    if form == "folder":
        path.mkdir()
        for name, array in arrays.items():
            np.save(path / f"{name}.npy", array)
        return path
    target = path.with_suffix(".npz")
    (np.savez if form == "npz" else np.savez_compressed)(target, **arrays)  # pyright: ignore
    return target


FORMS = ["folder", "npz", "compressed npz"]


@pytest.mark.parametrize("form", FORMS)
def test_a_sixth_is_drawn_by_the_seed(tmp_path: Path, form: str):
    x, y = np.arange(26, dtype=np.float32).reshape(13, 2), np.arange(13, dtype=np.int32)
    path = save(tmp_path / "data", form, x=x, y=y)
    assert describe(path) == {"x": ArrayInfo("f32", (2,)), "y": ArrayInfo("i32", ())}
    data = load(path, seed=3)
    assert data.name == path.name and data.drawn
    train, test = data.train.arrays["y"].tolist(), data.test.arrays["y"].tolist()
    assert (len(train), len(test)) == (11, 2) and sorted(train + test) == list(range(13))
    assert train == sorted(train) and test == sorted(test) != [11, 12]
    for split in (data.train, data.test):
        assert np.array_equal(split.arrays["x"], x[split.arrays["y"]])
        assert [split.place(row) for row in range(len(split))] == split.arrays["y"].tolist()
    assert load(path, seed=3).test.arrays["y"].tolist() == test
    assert {tuple(load(path, seed=seed).test.arrays["y"]) for seed in range(9)} != {tuple(test)}
    assert load(path, seed=None).test.arrays["y"].tolist() == [11, 12]  # as before


def test_many_rows_are_moved_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("runtime.datasets.splitting.MOVED_AT_ONCE", 7)
    y = np.arange(1000)
    data = load(save(tmp_path / "data", "npz", y=y), seed=5).with_validation(0.1, 5)
    parts = {name: split.arrays["y"] for name, split in data.splits.items()}
    assert {name: len(part) for name, part in parts.items()} == {"training": 751, "validation": 83, "test": 166}
    assert sorted(np.concatenate(list(parts.values()))) == y.tolist()
    for name, split in data.splits.items():
        assert np.array_equal(np.sort(parts[name]), parts[name]) and np.array_equal(split.places, parts[name])


def test_two_rows_are_one_for_each_purpose(tmp_path: Path):
    data = load(save(tmp_path / "data", "npz", y=np.arange(2)))
    assert (len(data.train), len(data.test)) == (1, 1)
    with pytest.raises(RuntimeUserError, match="too few rows"):
        data.with_validation(0.5, 0)


@pytest.mark.parametrize("form", FORMS)
def test_test_arrays_are_used_where_there_are_any(tmp_path: Path, form: str):
    path = save(tmp_path / "data", form, x=np.zeros((5, 3)), x_test=np.ones((1, 3)))
    assert list(describe(path)) == ["x"]
    data = load(path)
    assert (len(data.train), len(data.test)) == (5, 1)
    assert data.test.arrays["x"].tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ("?", "bool"), ("u1", "uint8"), ("u2", "int32"), ("i1", "int32"), (">i2", "int32"), ("<i4", "int32"),
        (">i8", "int64"), ("f2", "float32"), (">f4", "float32"), ("f8", "float64"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("form", FORMS)
def test_values_survive_widening_and_layout(tmp_path: Path, stored: str, expected: str, order: str, form: str):
    values = np.arange(24).reshape(4, 3, 2).astype(stored, order=order)  # pyright: ignore
    data = load(save(tmp_path / "data", form, x=values, x_test=values))
    array = data.train.arrays["x"]
    assert array.dtype.name == expected
    assert array.flags.c_contiguous
    assert np.array_equal(array, values)


def test_long_arrays_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("runtime.datasets.files.BLOCK", 7)
    values = np.arange(100, dtype=np.int16).reshape(50, 2)
    data = load(save(tmp_path / "data", "compressed npz", x=values, x_test=values))
    assert np.array_equal(data.train.arrays["x"], values)


def test_f64_is_kept_or_converted_once(tmp_path: Path):
    values = np.array([[0.1], [1e300], [-0.5]])
    path = save(tmp_path / "data", "npz", x=values, x_test=values)
    assert describe(path)["x"].dtype == "f64"
    assert load(path, dtypes={"x": "f64"}).train.arrays["x"].tolist() == values.tolist()
    with pytest.raises(RuntimeUserError, match=r'row 1 of array "x" in .* is too large for f32') as error:
        load(path, dtypes={"x": "f32"})
    assert error.value.found == "1e+300" and "declared f64" in str(error.value)
    for order in ("C", "F"):
        small = np.array([[0.1, 1e-50], [2.5, -np.inf]]).astype(np.float64, order=order)  # pyright: ignore
        array = load(save(tmp_path / order, "npz", x=small), dtypes={"x": "f32"}).train.arrays["x"]
        assert array.dtype == np.float32 and array.tolist() == small[:1].astype(np.float32).tolist()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("dtype", "value", "shown"),
    [
        ("i32", 0.7, "0.7"), ("i32", 1e10, "1e+10"), ("i32", -(2.0**31) - 1, "-2.14748e+09"), ("i32", np.nan, "nan"),
        ("i64", 2.0**63, "9.22337e+18"), ("i64", -np.inf, "-inf"), ("u8", -1.0, "-1"), ("bool", 2.0, "2"),
    ],
)  # fmt: skip
def test_floats_feed_whole_numbers_only_if_they_are_whole(
    tmp_path: Path, form: str, order: str, dtype: str, value: float, shown: str
):
    values = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).astype(np.float64, order=order)  # pyright: ignore
    array = load(save(tmp_path / "whole", form, y=values, y_test=values), dtypes={"y": dtype}).train.arrays["y"]
    assert array.dtype == IN_MEMORY[dtype] and np.array_equal(array, values)
    values[2, 0] = value
    with pytest.raises(RuntimeUserError, match=rf'row 2 of array "y" in .* is no value of {dtype}') as error:
        load(save(tmp_path / "bad", form, y=values, y_test=values), dtypes={"y": dtype})
    assert error.value.found == shown


def test_only_arrays_of_the_model_are_read(tmp_path: Path):
    path = save(tmp_path / "data", "npz", x=np.zeros((6, 2)), other=np.zeros((6, 1000)))
    assert list(load(path, dtypes={"x": "f32"}).train.arrays) == ["x"]
    assert footprint(path, dtypes={"x": "f32"}).arrays == 6 * 2 * 4 and footprint(path).arrays == 6 * 1002 * 8


@pytest.mark.parametrize("dtype", ["u8", "i32", "i64", "bool"])
@pytest.mark.filterwarnings("error")
def test_half_floats_become_whole_numbers(tmp_path: Path, dtype: str):
    values = np.array([0, 1, 1, 0, 1, 0], np.float16)
    array = load(save(tmp_path / "whole", "npz", y=values, y_test=values), dtypes={"y": dtype}).train.arrays["y"]
    assert array.dtype == IN_MEMORY[dtype] and np.array_equal(array, values)
    for value in (np.inf, -np.inf, np.nan, 0.5):
        values[3] = value
        with pytest.raises(RuntimeUserError, match=f"row 3 of array .* is no value of {dtype}"):
            load(save(tmp_path / "bad", "npz", y=values, y_test=values), dtypes={"y": dtype})


@pytest.mark.parametrize(
    ("stored", "declared", "good", "bad"),
    [
        ("i8", "i32", 2**31 - 1, 2**31),
        ("i8", "i32", -(2**31), -(2**31) - 1),
        ("i8", "u8", 255, 2**40),
        ("i4", "u8", 0, -1),
        ("u2", "u8", 255, 256),
        ("i1", "u8", 127, -128),
        (">i2", "u8", 1, 300),
    ],
)
def test_whole_numbers_that_the_input_does_not_have(tmp_path: Path, stored: str, declared: str, good: int, bad: int):
    values = np.array([1, 2, good], stored)
    array = load(save(tmp_path / "good", "npz", y=values, y_test=values), dtypes={"y": declared}).train.arrays["y"]
    assert array.dtype == IN_MEMORY[declared] and np.array_equal(array, values)
    values[2] = bad
    with pytest.raises(RuntimeUserError, match=f"row 2 of array .* is no value of {declared}") as error:
        load(save(tmp_path / "bad", "npz", y=values, y_test=values), dtypes={"y": declared})
    assert error.value.found == f"{bad}"


STORED = {
    "f64 for f32": lambda x: x,
    "i64": lambda x: (x * 9).astype(np.int64),
    "bytes": lambda x: (x * 9).astype(np.uint8),
    "column by column": lambda x: np.asfortranarray(x.astype(np.float32)),
    "column by column, of f64": np.asfortranarray,
}


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("form", ["folder", "npz"])  # unzipping needs a few more buffers of a constant size
def test_loading_needs_no_more_memory_than_the_footprint(tmp_path: Path, stored: str, form: str):
    x = STORED[stored](np.random.default_rng(0).random((300_000, 16)))
    path, dtypes = save(tmp_path / "data", form, x=x), {"x": "f32"}
    del x
    expected = footprint(path, dtypes=dtypes)
    tracemalloc.start()
    load(path, dtypes=dtypes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.1 * (expected.arrays + expected.loading) + 300_000 * 3 * 8  # and numbers of rows


def test_paths_are_also_searched_for_below_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path / "data", "npz", x=np.zeros(6))
    monkeypatch.chdir("/")
    assert len(load("data.npz", tmp_path).train) == 5


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(RuntimeUserError) as error:
        load("minst")
    assert error.value.hint == 'did you mean "mnist"?'
    assert "digits, mnist" in str(error.value)


# Types and values against a model


@pytest.mark.parametrize(
    ("data", "model"),
    [
        ((28, 28), (28, 28, 1)),
        ((784,), (28, 28, 1)),
        ((28, 28), (784,)),
        ((1,), ()),
        ((), (1,)),
        ((1, 28, 28), (28, 28)),
    ],
)
def test_shapes_that_fit(data: tuple[int, ...], model: tuple[int, ...]):
    check({"image": ArrayInfo("u8", data, 1.0)}, [TensorSpec("image", "f32", (None, *model), "input")])


@pytest.mark.parametrize(
    ("data", "model"), [((28, 28), (28, 27)), ((14, 56), (28, 28)), ((3, 8), (8, 3)), ((783,), (28, 28)), ((), (2,))]
)
def test_shapes_that_do_not_fit(data: tuple[int, ...], model: tuple[int, ...]):
    with pytest.raises(RuntimeUserError, match='array "image" does not have the shape') as error:
        check({"image": ArrayInfo("u8", data, 1.0)}, [TensorSpec("image", "f32", (None, *model), "input")])
    assert f"f32{list(model)} per example" in str(error.value)
    assert f"u8{list(data)}" in str(error.value)


def test_an_array_that_is_missing():
    check(INFO, [IMAGE, LABEL])
    with pytest.raises(RuntimeUserError) as error:
        check(INFO, [TensorSpec("images", "f32", (None, 28, 28), "input"), LABEL])
    assert str(error.value) == (
        'error: the data set has no array for the model\'s input "images"\n'
        '  expected: an array "images", f32[28, 28] per example\n'
        "  found: image: u8[28, 28], label: u8[]\n"
        '  hint: did you mean "image"?'
    )


def test_floats_that_are_not_whole_do_not_feed_whole_numbers(tmp_path: Path):
    path = save(tmp_path / "data", "npz", label=np.array([0.0, 0.7]))
    check(describe(path), [LABEL])  # types are not enough to know
    with pytest.raises(RuntimeUserError, match='row 1 of array "label"'):
        load(path, dtypes={"label": LABEL.dtype})


def dataset(**arrays: np.ndarray) -> Dataset:
    """The same arrays for training and testing."""
    return Dataset("data", Split(arrays), Split(arrays))


def test_words_outside_the_table_are_no_classes():
    word = TensorSpec("word", "i32", (None,), "input")
    with pytest.raises(RuntimeUserError, match=r'row 1 of array "word" \(training\) is not a row of the table'):
        check_values(dataset(word=np.array([0, 10])), [word], {"word": 10})


@pytest.mark.parametrize("model", [(784, 1), (1, 784), (784,), (784, 1, 1)])
def test_images_are_reshaped_to_any_flat_shape(model: tuple[int, ...]):
    spec = TensorSpec("image", "f32", (None, *model), "input")
    check({"image": ArrayInfo("u8", (28, 28, 1), 1.0)}, [spec])
    check({"image": ArrayInfo("f32", (28, 28), 1.0)}, [spec])
    with pytest.raises(RuntimeUserError, match="does not have the shape"):
        check({"image": ArrayInfo("u8", (28, 27), 1.0)}, [spec])


def test_labels_outside_the_classes():
    good, bad = np.arange(10, dtype=np.uint8), np.array([3, 9, 10, 11], np.uint8)
    check_values(dataset(label=good), [LABEL], {"label": 10})
    data = Dataset("data", Split({"label": good}), Split({"label": bad}))
    with pytest.raises(RuntimeUserError) as error:
        check_values(data, [LABEL], {"label": 10})
    assert error.value.message == 'row 2 of array "label" (test) is not a class of the model'
    assert (error.value.expected, error.value.found) == ("whole numbers 0 … 9", "10")
    with pytest.raises(RuntimeUserError, match="row 1"):
        check_values(dataset(label=np.array([0, -1])), [LABEL], {"label": 10})


def test_whole_numbers_outside_the_dtype():
    check_values(dataset(label=np.array([0, 2**31 - 1])), [LABEL], {})
    with pytest.raises(RuntimeUserError, match="does not fit the model's i32"):
        check_values(dataset(label=np.array([0, 2**31])), [LABEL], {})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_found_by_row(value: float):
    image = np.zeros((5000, 2, 2), np.float32)
    spec = TensorSpec("image", "f32", (None, 2, 2), "input")
    check_values(dataset(image=image), [spec], {})
    image[4321, 1, 0] = value
    with pytest.raises(RuntimeUserError, match="row 4321 of array") as error:
        check_values(dataset(image=image), [spec], {})
    assert error.value.found == str(value)


# Errors


def test_an_error_prints_the_parts_that_it_has():
    assert str(RuntimeUserError("it broke")) == "error: it broke"
    assert (
        str(RuntimeUserError("it broke", found="shards", hint="glue"))
        == "error: it broke\n  found: shards\n  hint: glue"
    )


def test_names_from_outside_cannot_steer_a_terminal():
    assert quoted("a\x1b[2Jb\n\u202e") == r'"a\x1b[2Jb\n\u202e"'
    assert quoted("größe") == '"größe"'
    assert len(quoted("x" * 10_000)) < 300
    assert did_you_mean("anything", []) == ""
