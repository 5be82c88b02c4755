"""Small graphs that expose bugs of a pass, the memory plan or the printer that no model would expose.

Each was added for a planted bug that no test had found (tests/planted).
"""

from __future__ import annotations

from compiler.ir.graph import Graph
from tests.programs import read_graph

DELICATE = {
    "a view of a variable is read after its new value is there": """
graph step(%w: f32[4,3] param, %x: f32[B,3] input) {
  %0: f32[3,4] = transpose(%w, permutation=[1,0])
  %1: f32[4,3] = mul(%w, 0.5)
  %2: f32[B,4] = matmul(%x, %0)
  return w=%1, y=%2
}""",
    "a region reads an operand after it has written a result": """
graph step(%x: f32[B,8] input, %w: f32[8,2048] param) {
  %0: f32[B,2048] = matmul(%x, %w)
  %1: f32[B,2048] = exp(%0)
  %2: f32[B,2048] = mul(%0, %1)
  return y=%1, z=%2
}""",
    "tiles of a length with few divisors": """
graph step(%x: f32[B,8] input, %w: f32[8,2049] param) {
  %0: f32[B,2049] = matmul(%x, %w)
  %1: f32[B,2049] = exp(%0)
  %2: f32[B,2049] = tanh(%1)
  %3: f32[2049] = sum(%2, axes=[0], keepdims=false)
  return y=%2, s=%3
}""",
    "two draws of one shape": """
graph step(%x: f32[B,3] input, %seed: i64[] counter, %step: i32[] counter) {
  %0: f32[B,3] = random(%seed, %step, shape=[B,3], distribution="uniform", stream=1)
  %1: f32[B,3] = random(%seed, %step, shape=[B,3], distribution="uniform", stream=2)
  %2: f32[B,3] = sub(%0, %1)
  %3: f32[B,3] = mul(%2, %x)
  return y=%3
}""",
    "a sum of what is the same all along": """
graph step(%b: f32[3] param) {
  %0: f32[B,4,3] = broadcast(%b, shape=[B,4,3])
  %1: f32[4,3] = sum(%0, axes=[0], keepdims=false)
  return y=%1
}""",
    "numbers of other dtypes": """
graph step(%n: i64[B] input, %x: f64[B] input) {
  %0: i64[B] = add(%n, 3:i64)
  %1: f64[B] = mul(%x, 0.1:f64)
  return y=%0, z=%1
}""",
    "numbers that become another type": """
graph step(%x: f32[B] input) {
  %0: bool[] = lt(2.0, 3.0)
  %1: i32[] = cast(2.5, dtype="i32")
  return c=%0, n=%1, x=%x
}""",
    "bytes of a wide product of few rows": """
graph step(%x: f32[B,8] input, %w: f32[8,1100] param) {
  %0: f32[B,1100] = matmul(%x, %w)
  %1: bool[B,1100] = lt(0.0, %0)
  %2: f32[B,1100] = max(%0, 0.0)
  return m=%1, y=%2
}""",
    "states that change places": """
graph step(%a: f32[4] state, %b: f32[4] state) {
  %0: f32[4] = mul(%a, 0.5)
  return a=%b, b=%0
}""",
}


def delicate_graph(name: str) -> Graph:
    return read_graph(DELICATE[name])
