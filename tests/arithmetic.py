"""Special cases of arithmetic that all targets compute alike: graphs, inputs and the right results.

Tested in tests/targets (interpreter, NumPy) and tests/gpu (CuPy).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Value
from compiler.ir.types import TensorType, parse_type

INF, NAN = float("inf"), float("nan")


@dataclass(frozen=True)
class Case:
    """An op on arrays of a dtype; equal within rounding to the results, NaN to NaN."""

    name: str
    op: str
    dtype: str
    operands: tuple[tuple, ...]
    expected: tuple
    attributes: tuple[tuple[str, object], ...] = ()

    def graph(self) -> Graph:
        graph = Graph("case")
        builder = Builder(graph)
        inputs: list[Value] = []
        for i, operand in enumerate(self.operands):
            inputs.append(builder.input(f"x{i}", parse_type(f"{self.dtype}{list(np.shape(operand))}"), "input"))
        graph.outputs = {"y": builder.emit(self.op, inputs, dict(self.attributes))}
        return graph

    def inputs(self) -> dict[str, np.ndarray]:
        """Floats as the float64 of what the dtype can hold."""
        types = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64, "u8": np.uint8}
        arrays = {f"x{i}": np.array(operand, types[self.dtype]) for i, operand in enumerate(self.operands)}
        return {name: x.astype(np.float64) if x.dtype.kind == "f" else x for name, x in arrays.items()}

    def check(self, found: np.ndarray) -> None:
        type = TensorType(self.dtype)
        expected = np.array(self.expected, np.float64 if type.is_float else np.int64)
        if type.is_float:
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

CASES = [
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
