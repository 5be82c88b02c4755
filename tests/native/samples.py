"""Every sample of every op as C: many graphs in one text, run by samples.c and compared with the interpreter.

Programs of their own, not libraries in this process, so that they can be for another machine, which an emulator runs.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from compiler.ir.graph import Value
from compiler.ir.interpreter import Arrays, interpret
from compiler.ir.op import Op, Sample
from compiler.ir.types import NUMPY_NAMES, at_batch
from compiler.ops import OPS
from compiler.passes.pipeline import run_pipeline
from compiler.planning.memory import Plan, plan_graph
from compiler.targets.c.writer import INCLUDES, GraphText
from compiler.targets.target import find_target
from tests.gpu.samples import BATCH, computed_on_the_host, draw_inputs, graph_of

SOURCE = Path(__file__).with_name("samples.c")
GRAPHS_IN_A_TEXT = 110
FUNCTION = re.compile(r"^(?:static |INLINE )?\w+ (\w+)\(const Step", re.MULTILINE)
NAN = 0xFF  # a byte; any float of such bytes is NaN


@dataclass(frozen=True)
class SampleGraph:
    """A sample as C, its functions named apart from those of other samples."""

    name: str
    text: str
    function: str
    workspace: int
    arena: bytes
    results: dict[str, tuple[int, str, tuple[int, ...]]]  # offsets, types and shapes
    expected: Arrays

    def case(self, number: int, parts: int) -> bytes:
        head = np.array([number, BATCH, parts, len(self.arena), self.workspace], np.int64)
        return head.tobytes() + self.arena

    def found(self, arena: bytes) -> Arrays:
        return {
            name: np.frombuffer(arena, dtype, int(np.prod(shape)), offset).reshape(shape)
            for name, (offset, dtype, shape) in self.results.items()
        }


@cache
def sample_graphs() -> list[SampleGraph]:
    return [
        sample_graph(f"{op.name}-{number}", op, sample)
        for op in OPS.values()
        for number, sample in enumerate(op.samples)
        if not computed_on_the_host(op, sample)
    ]


def sample_graph(name: str, op: Op, sample: Sample) -> SampleGraph:
    target = find_target("c")
    given = graph_of(op, sample)
    plan = plan_graph(run_pipeline({"sample": given}, target.pipeline)["sample"], BATCH, 0, {}, target.placement)
    writer = GraphText(plan, {})
    lines = writer.definition()[1:-1]  # those of C
    text = "\n".join(line for line in lines if not line.startswith("#include"))
    ending = re.sub(r"\W", "_", name)
    for function in set(FUNCTION.findall(text)):
        text = re.sub(rf"\b{function}\b", f"{function}_of_{ending}", text)
    inputs = draw_inputs(op, sample)
    outputs = plan.graph.outputs.items()
    return SampleGraph(
        name,
        f"// {name}\n{text}",
        f"sample_of_{ending}",
        writer.workspace,
        arena_of(plan, inputs),
        {key: (int(writer.place(value)), *kind_of(value)) for key, value in outputs if 0 not in kind_of(value)[1]},
        interpret(given, inputs, BATCH),
    )


def kind_of(value: Value) -> tuple[str, tuple[int, ...]]:
    return NUMPY_NAMES[value.type.dtype], at_batch(value.type.shape, BATCH)


def arena_of(plan: Plan, inputs: Arrays) -> bytes:
    """The arena with the inputs in place, and NaN elsewhere."""
    arena = bytearray([NAN]) * plan.size
    for value in plan.graph.inputs:
        raw = np.ascontiguousarray(inputs[value.name].astype(NUMPY_NAMES[value.type.dtype])).tobytes()
        offset = plan.block(value).offset
        arena[offset : offset + len(raw)] = raw
    return bytes(arena)


def text_of(graphs: Sequence[SampleGraph]) -> str:
    lines = [*(f'#include "{name}"' for name in INCLUDES), "", *(graph.text for graph in graphs)]
    names = ", ".join(graph.function for graph in graphs)
    return "\n".join([*lines, "", f"static const GraphFunction graphs[] = {{{names}}};", ""])


def texts() -> list[list[SampleGraph]]:
    graphs = sample_graphs()
    return [graphs[i : i + GRAPHS_IN_A_TEXT] for i in range(0, len(graphs), GRAPHS_IN_A_TEXT)]


def wrong_samples(command: Sequence[str], graphs: Sequence[SampleGraph], parts: int) -> list[str]:
    """The samples that a program computes wrongly, and why; raises CalledProcessError if it fails."""
    sent = b"".join(graph.case(number, parts) for number, graph in enumerate(graphs))
    arenas = subprocess.run([*command], input=sent, capture_output=True, check=True).stdout
    wrong, at = [], 0
    for graph in graphs:
        reason = difference(graph.found(arenas[at : at + len(graph.arena)]), graph)
        wrong += [f"{graph.name} with {parts} threads: {reason}"] if reason else []
        at += len(graph.arena)
    return wrong


def difference(found: Arrays, graph: SampleGraph) -> str:
    """Where results differ from those in f64 by more than the precision of f32; empty if nowhere."""
    for name, array in found.items():
        expected = graph.expected[name]
        if array.dtype.kind != "f":
            close = np.array_equal(array, expected)
        else:
            finite = expected[np.isfinite(expected)]
            scale = 1e-5 * max(1.0, float(np.abs(finite).max(initial=0.0)))
            close = np.allclose(array, expected, rtol=1e-4, atol=scale, equal_nan=True)
        if not close:
            return f"{name} is {array.ravel()[:4]}, not {expected.ravel()[:4]}"
    return ""
