"""Special cases of arithmetic that all targets compute alike: graphs, inputs and the right results.

Tested in tests/targets (interpreter, NumPy) and tests/gpu (CuPy).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compiler.gradient.autodiff import gradients
from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Value
from compiler.ir.types import TensorType, parse_type

Attributes = tuple[tuple[str, object], ...]
INF, NAN = float("inf"), float("nan")


@dataclass(frozen=True)
class Case:
    """An op on arrays of a dtype; equal within rounding to the results, NaN to NaN."""

    name: str
    op: str
    dtype: str
    operands: tuple[tuple, ...]
    expected: tuple
    attributes: Attributes = ()
    result: int = 0  # its number, for ops with several
    gradient_of: int | None = None  # the number of an operand: the result is the gradient of the sum with respect to it

    def graph(self) -> Graph:
        graph = Graph("case")
        builder = Builder(graph)
        inputs: list[Value] = []
        for i, operand in enumerate(self.operands):
            inputs.append(builder.input(f"x{i}", parse_type(f"{self.dtype}{list(np.shape(operand))}"), "input"))
        builder.emit(self.op, inputs, dict(self.attributes))
        value = graph.nodes[-1].results[self.result]
        if self.gradient_of is not None:
            ones = builder.broadcast(builder.cast(1.0, dtype=value.type.dtype), shape=value.type.shape)
            (found,) = gradients(builder, {value: ones}, [inputs[self.gradient_of]])
            assert found is not None
            value = found
        graph.outputs = {"y": value}
        return graph

    def inputs(self) -> dict[str, np.ndarray]:
        """Floats as the float64 of what the dtype can hold."""
        types = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64, "u8": np.uint8}
        arrays = {f"x{i}": np.array(operand, types[self.dtype]) for i, operand in enumerate(self.operands)}
        return {name: x.astype(np.float64) if x.dtype.kind == "f" else x for name, x in arrays.items()}

    def check(self, found: np.ndarray) -> None:
        is_float = TensorType(self.dtype).is_float and found.dtype.kind == "f"
        expected = np.array(self.expected, np.float64 if is_float else np.int64)
        if is_float:
            np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=1e-6, atol=0, err_msg=self.name)
        else:
            np.testing.assert_array_equal(np.asarray(found, np.int64), expected, err_msg=self.name)


def in_python(dtype: str, pairs: list[tuple[float, float]]) -> list[Case]:
    """`//` and `%` as Python computes them with the numbers that the dtype can hold."""
    numbers = [(float(np.float32(x)), float(np.float32(y))) if dtype == "f32" else (x, y) for x, y in pairs]
    if dtype not in ("f32", "f64"):
        numbers = [(int(x), int(y)) for x, y in pairs]
    xs, ys = tuple(x for x, _ in numbers), tuple(y for _, y in numbers)
    quotients, rests = tuple(x // y for x, y in numbers), tuple(x % y for x, y in numbers)
    return [
        Case(f"{dtype} //", "floor_div", dtype, (xs, ys), quotients),
        Case(f"{dtype} %", "mod", dtype, (xs, ys), rests),
    ]


QUOTIENTS: list[tuple[float, float]] = [
    (1.0, 0.1), (-1.0, 0.1), (1.0, -0.1), (-1.0, -0.1), (7.5, 2.0), (-7.5, 2.0), (7.5, -2.0), (-7.5, -2.0), (6.0, 3.0),
    (-6.0, 3.0), (1e10, 3.0), (-1e10, 3.0), (3.0, INF), (-3.0, INF), (3.0, -INF), (-3.0, -INF), (0.0, 3.0), (0.3, 0.1),
    (1e-30, 1.0), (-1e-30, 1.0), (2.0**24 - 1, 0.5), (0.7, 0.1), (5.0, 1e20), (1e20, 7.0),
]  # fmt: skip
WHOLE: list[tuple[float, float]] = [(7, 2), (-7, 2), (7, -2), (-7, -2), (6, 3), (-6, 3), (0, 5), (2**31 - 1, -2)]

LEFT, RIGHT = (1.0, 2.0, 2.0, NAN, 1.0, NAN), (2.0, 1.0, 2.0, 1.0, NAN, NAN)
ROWS = (
    (1.0, NAN, 3.0, NAN),
    (3.0, 1.0, 3.0, 2.0),
    (NAN, 1.0, 2.0, 3.0),
    (-INF, -INF, -INF, -INF),
    (1.0, INF, 2.0, NAN),
)
IMAGE = tuple(  # [2, 2, 6, 1]: windows of 2 x 2 with no NaN, with one at each tap, and with two
    tuple(tuple((x,) for x in row) for row in image)
    for image in (
        ((1.0, 4.0, NAN, 4.0, 1.0, NAN), (4.0, 2.0, 3.0, 2.0, 3.0, 2.0)),
        ((1.0, 4.0, 1.0, 4.0, NAN, 4.0), (NAN, 2.0, 3.0, NAN, NAN, 2.0)),
    )
)
POOLING: Attributes = (("window", (2, 2)), ("stride", (2, 2)))
IMAGE_GRADIENT = tuple(
    tuple(tuple((x,) for x in row) for row in image)
    for image in (
        ((0, 1, 1, 0, 0, 1), (0, 0, 0, 0, 0, 0)),
        ((0, 0, 0, 0, 1, 0), (1, 0, 0, 1, 0, 0)),
    )
)
LAST: Attributes = (("axes", (1,)),)
NANS = [
    Case("NaN in max", "max", "f32", (LEFT, RIGHT), (2, 2, 2, NAN, NAN, NAN)),
    Case("NaN in min", "min", "f32", (LEFT, RIGHT), (1, 1, 2, NAN, NAN, NAN)),
    Case("NaN in max, first gradient", "max", "f32", (LEFT, RIGHT), (0, 1, 0, 0, 0, 0), gradient_of=0),
    Case("NaN in max, second gradient", "max", "f32", (LEFT, RIGHT), (1, 0, 1, 1, 1, 1), gradient_of=1),
    Case("NaN in min, first gradient", "min", "f32", (LEFT, RIGHT), (1, 0, 0, 0, 0, 0), gradient_of=0),
    Case("NaN in min, second gradient", "min", "f32", (LEFT, RIGHT), (0, 1, 1, 1, 1, 1), gradient_of=1),
    Case("NaN in clip", "clip", "f32", ((NAN, 3.0, -3.0),), (NAN, 1, -1), (("low", -1.0), ("high", 1.0))),
    Case("NaN in sign", "sign", "f32", ((NAN, -2.0, 0.0),), (NAN, -1, 0)),
    Case("NaN in abs", "abs", "f32", ((NAN, -2.0, 0.0),), (NAN, 2, 0)),
    Case("NaN in floor", "floor", "f32", ((NAN, -2.5, INF),), (NAN, -3, INF)),
    Case("NaN in reduce_max", "reduce_max", "f32", (ROWS,), (NAN, 3, NAN, -INF, NAN), LAST),
    Case(
        "NaN in reduce_max, gradient", "reduce_max", "f32", (ROWS,),
        ((NAN,) * 4, (0.5, 0, 0.5, 0), (NAN,) * 4, (0.25,) * 4, (NAN,) * 4), LAST, gradient_of=0,
    ),
    Case("NaN in argmax", "argmax", "f32", (ROWS,), (1, 0, 0, 0, 3), (("axis", 1),)),
    Case(
        "NaN in max_pool2d", "max_pool2d", "f32", (IMAGE,),
        ((((4,), (NAN,), (NAN,)),), (((NAN,), (NAN,), (NAN,)),)), POOLING,
    ),
    Case("NaN in max_pool2d, gradient", "max_pool2d", "f32", (IMAGE,), IMAGE_GRADIENT, POOLING, gradient_of=0),
    Case(
        "NaN in max_pool2d_with_index", "max_pool2d_with_index", "f32", (IMAGE,),
        ((((1,), (0,), (1,)),), (((2,), (3,), (0,)),)), POOLING, result=1,
    ),
]  # fmt: skip

CASES = [
    *NANS,
    *in_python("f32", QUOTIENTS),
    *in_python("f64", QUOTIENTS),
    *in_python("i32", [*WHOLE, (-(2**31), 3)]),
    *in_python("i64", [*WHOLE, (2**62 + 1, 3), (-(2**62) - 1, 7)]),
    *in_python("u8", [(7, 2), (255, 255), (254, 255), (200, 7), (0, 3)]),
    *(Case(f"{dtype} // 0", "floor_div", dtype, ((1, 0, 255), (0, 0, 0)), (0, 0, 0)) for dtype in ("i32", "i64", "u8")),
    *(Case(f"{dtype} % 0", "mod", dtype, ((1, 0, 255), (0, 0, 0)), (0, 0, 0)) for dtype in ("i32", "i64", "u8")),
    Case("negative // 0", "floor_div", "i32", ((-1, -(2**31)), (0, 0)), (0, 0)),
    Case("negative % 0", "mod", "i32", ((-1, -(2**31)), (0, 0)), (0, 0)),
    Case("the least i32 // -1", "floor_div", "i32", ((-(2**31), 5), (-1, -1)), (-(2**31), -5)),
    Case("the least i32 % -1", "mod", "i32", ((-(2**31), 5), (-1, -1)), (0, 0)),
    Case("the least i64 // -1", "floor_div", "i64", ((-(2**63), 5), (-1, -1)), (-(2**63), -5)),
    Case("the least i64 % -1", "mod", "i64", ((-(2**63), 5), (-1, -1)), (0, 0)),
    Case(
        "floats // 0",
        "floor_div",
        "f32",
        ((1.0, -1.0, 0.0, NAN, INF), (0.0, 0.0, 0.0, 1.0, 2.0)),
        (INF, -INF, NAN, NAN, NAN),
    ),
    Case("floats % 0", "mod", "f32", ((1.0, -1.0, 0.0, NAN, INF), (0.0, 0.0, 0.0, 1.0, 2.0)), (NAN,) * 5),
]
