"""The meaning of single ops in special cases: ties, poles, padding, order; each checked against plain NumPy."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from compiler.gradient.autodiff import gradients
from compiler.ir.builder import Builder, literal
from compiler.ir.graph import Graph, Value
from compiler.ir.interpreter import interpret
from compiler.ir.types import Batch, TypeRuleError, parse_type
from compiler.ops import OPS
from compiler.ops.rules import sum_to


class Calculator:
    """A graph with arrays as inputs, for immediate evaluation."""

    def __init__(self, *arrays: Any, batch: int = 1):
        self.graph, self.batch = Graph("test"), batch
        self.builder = Builder(self.graph)
        self.arrays = {f"x{i}": np.asarray(array) for i, array in enumerate(arrays)}
        dtypes = {"f": "f64", "i": "i32", "b": "bool"}
        self.inputs = [
            self.builder.input(name, parse_type(f"{dtypes[array.dtype.kind]}{list(array.shape)}"), "input")
            for name, array in self.arrays.items()
        ]

    def value(self, value: Value) -> np.ndarray:
        self.graph.outputs = {"y": value}
        return interpret(self.graph, self.arrays, self.batch)["y"]

    def gradients(self, value: Value) -> list[np.ndarray | None]:
        """The gradients of the sum of the value with respect to each input."""
        ones = self.builder.broadcast(self.builder.cast(1.0, dtype=value.type.dtype), shape=value.type.shape)
        found = gradients(self.builder, {value: ones}, self.inputs)
        return [None if gradient is None else self.value(gradient) for gradient in found]


def test_ties_of_max_and_min_go_to_the_second_operand():
    for name, first in (("max", [0.0, 0.0, 1.0]), ("min", [1.0, 0.0, 0.0])):
        calculator = Calculator([-1.0, 0.0, 2.0], [0.0, 0.0, 0.0])
        x, y = calculator.gradients(calculator.builder.emit(name, calculator.inputs, {}))
        np.testing.assert_array_equal(x, first)
        np.testing.assert_array_equal(y, 1.0 - np.array(first))


def test_relu_has_no_slope_at_zero():
    calculator = Calculator([-1.0, 0.0, 2.0])
    (slope,) = calculator.gradients(calculator.builder.max(calculator.inputs[0], 0.0))
    np.testing.assert_array_equal(slope, [0.0, 0.0, 1.0])


def test_reduce_max_shares_its_gradient_among_ties():
    calculator = Calculator([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    (slope,) = calculator.gradients(calculator.builder.reduce_max(calculator.inputs[0], axes=(1,)))
    np.testing.assert_allclose(np.asarray(slope), [[0.0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]])


def test_argmax_takes_the_first():
    calculator = Calculator([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    np.testing.assert_array_equal(calculator.value(calculator.builder.argmax(calculator.inputs[0], axis=1)), [1, 0])


@pytest.mark.parametrize(
    "exponent, value, slope",
    [
        (2.0, [4.0, 0.0, 9.0], [-4.0, 0.0, 6.0]),
        (3.0, [-8.0, 0.0, 27.0], [12.0, 0.0, 27.0]),
        (1.0, [-2.0, 0.0, 3.0], [1.0, 1.0, 1.0]),
        (0.0, [1.0, 1.0, 1.0], None),
    ],
)
def test_pow_with_a_literal_exponent(exponent: float, value: list[float], slope: list[float] | None):
    calculator = Calculator([-2.0, 0.0, 3.0])
    y = calculator.builder.pow(calculator.inputs[0], exponent)
    np.testing.assert_array_equal(calculator.value(y), value)
    (found,) = calculator.gradients(y)
    assert found is None if slope is None else np.array_equal(np.asarray(found), slope)


def test_pow_is_finite_where_base_or_exponent_is_zero():
    calculator = Calculator([0.0, 0.0, 2.0, -2.0], [0.0, 2.0, 0.0, 2.0])
    x, y = calculator.gradients(calculator.builder.pow(*calculator.inputs))
    np.testing.assert_allclose(np.asarray(x), [0.0, 0.0, 0.0, -4.0])
    np.testing.assert_allclose(np.asarray(y), [0.0, 0.0, np.log(2.0), 0.0])


def test_cast_truncates_and_stops_gradients_of_integers():
    calculator = Calculator([-1.7, 0.0, 2.9])
    whole = calculator.builder.cast(calculator.inputs[0], dtype="i32")
    np.testing.assert_array_equal(calculator.value(whole), [-1, 0, 2])
    np.testing.assert_array_equal(
        calculator.value(calculator.builder.cast(calculator.inputs[0], dtype="bool")), [True, False, True]
    )
    assert calculator.gradients(calculator.builder.cast(whole, dtype="f64")) == [None]


@pytest.mark.parametrize("stride, padding, dilation, groups", [
    ((1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    ((2, 1), ((1, 0), (0, 2)), (1, 2), 1),
    ((1, 3), ((0, 1), (2, 1)), (2, 1), 2),
    ((1, 1), ((1, 1), (1, 1)), (1, 1), 4),
])  # fmt: skip
def test_conv2d_is_the_sum_that_its_file_states(stride: Any, padding: Any, dilation: Any, groups: int):
    generator = np.random.default_rng(0)
    x, w = generator.normal(size=(2, 6, 7, 4)), generator.normal(size=(3, 2, 4 // groups, 8))
    y = OPS["conv2d"].reference(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)
    for n, p, q, o in np.ndindex(y.shape):
        group, total = o // (8 // groups), 0.0
        for i, j, c in np.ndindex(w.shape[:3]):
            row, column = p * stride[0] + i * dilation[0], q * stride[1] + j * dilation[1]
            row, column = row - padding[0][0], column - padding[1][0]
            if 0 <= row < 6 and 0 <= column < 7:
                total += x[n, row, column, group * (4 // groups) + c] * w[i, j, c, o]
        assert y[n, p, q, o] == pytest.approx(total)
    rows = (6 + sum(padding[0]) - (2 * dilation[0] + 1)) // stride[0] + 1
    columns = (7 + sum(padding[1]) - (dilation[1] + 1)) // stride[1] + 1
    assert y.shape == (2, rows, columns, 8)


def test_pooling_ignores_padding_and_passes_gradients_to_the_first_maximum():
    image = np.array([[-3.0, -3.0, -5.0], [-3.0, -4.0, -1.0], [-2.0, -2.0, -1.0]]).reshape(1, 3, 3, 1)
    calculator = Calculator(image)
    attributes = {"window": (2, 2), "stride": (2, 2), "padding": ((1, 0), (0, 1))}
    y = calculator.builder.max_pool2d(calculator.inputs[0], **attributes)
    np.testing.assert_array_equal(calculator.value(y)[0, :, :, 0], [[-3.0, -5.0], [-2.0, -1.0]])
    (slope,) = calculator.gradients(y)
    np.testing.assert_array_equal(np.asarray(slope)[0, :, :, 0], [[1, 0, 1], [0, 0, 1], [1, 0, 0]])


def test_patches_against_indexing():
    x = np.arange(2.0 * 4 * 5 * 3).reshape(2, 4, 5, 3)
    parts = OPS["patches"].reference(x, window=(2, 3), stride=(1, 2), padding=((1, 0), (0, 0)), dilation=(2, 1))
    assert parts.shape == (2, 3, 2, 2, 3, 3)
    for p, q, i, j in product(range(3), range(2), range(2), range(3)):
        row, column = p + 2 * i - 1, 2 * q + j
        np.testing.assert_array_equal(parts[:, p, q, i, j], x[:, row, column] if row >= 0 else 0.0)


def test_scatter_add_adds_up_equal_indices():
    calculator = Calculator(np.array([2, 0, 2]), [1.0, 10.0, 100.0])
    result = calculator.builder.scatter_add(*calculator.inputs, size=4)
    np.testing.assert_array_equal(calculator.value(result), [10.0, 0.0, 101.0, 0.0])


def test_pad_and_slice_undo_each_other():
    calculator = Calculator([1.0, 2.0, 3.0])
    padded = calculator.builder.pad(calculator.inputs[0], low=(1,), high=(2,), interior=(1,), value=9.0)
    np.testing.assert_array_equal(calculator.value(padded), [9.0, 1.0, 9.0, 2.0, 9.0, 3.0, 9.0, 9.0])
    back = calculator.builder.slice(padded, start=(1,), stop=(6,), step=(2,))
    np.testing.assert_array_equal(calculator.value(back), [1.0, 2.0, 3.0])


def test_integer_sums_keep_their_dtype():
    calculator = Calculator(np.array([2**31 - 1, 1], np.int32))
    with np.errstate(over="ignore"):
        assert calculator.value(calculator.builder.sum(calculator.inputs[0], axes=(0,))) == -(2**31)


def test_extent_counts_at_the_batch_of_the_run():
    calculator = Calculator(batch=5)
    count = calculator.builder.count((Batch(), 28, Batch(2)))
    assert isinstance(count, Value) and calculator.value(count) == 28 * 2 * 25
    assert calculator.builder.count((3, 4)) == 12


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (1, 1)])
def test_orthogonalize_gives_orthonormal_rows_or_columns(shape: tuple[int, int]):
    x = np.random.default_rng(3).normal(size=shape)
    q = OPS["orthogonalize"].reference(x)
    assert q.shape == shape
    small = q.T @ q if shape[0] >= shape[1] else q @ q.T
    np.testing.assert_allclose(small, np.eye(min(shape)), atol=1e-12)
    # With a positive diagonal of R the decomposition is unique: scaling x changes nothing, its sign turns the result.
    np.testing.assert_allclose(OPS["orthogonalize"].reference(3.0 * x), q, atol=1e-12)
    np.testing.assert_allclose(OPS["orthogonalize"].reference(-x), -q, atol=1e-12)


def test_sum_to_undoes_broadcasting():
    calculator = Calculator(np.ones((2, 3, 4)))
    for text, expected in (("f64[3,1]", np.full((3, 1), 8.0)), ("f64[]", np.array(24.0)), ("f64[1,3,4]", None)):
        total = calculator.value(sum_to(calculator.builder, calculator.inputs[0], parse_type(text)))
        np.testing.assert_array_equal(total, np.full((1, 3, 4), 2.0) if expected is None else expected)


def test_attributes_are_checked_for_names_and_presence():
    builder = Calculator([1.0]).builder
    with pytest.raises(TypeRuleError, match="sum has no attribute axis"):
        builder.sum(builder.graph.inputs[0], axis=0)
    with pytest.raises(TypeRuleError, match="sum needs the attribute axes"):
        builder.sum(builder.graph.inputs[0])


@pytest.mark.parametrize("value, dtype", [
    (0.5, "i32"), (2**31, "i32"), (-1, "u8"), (float("inf"), "i64"), (float("nan"), "i32"), (1e39, "f32"),
    pytest.param(10**5000, "f64", id="huge"),
])  # fmt: skip
def test_numbers_that_a_dtype_cannot_represent_are_refused(value: float, dtype: str):
    with pytest.raises(TypeRuleError, match="does not fit"):
        literal(value, dtype)
