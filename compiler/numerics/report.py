"""The report of a step that went wrong: the first bad op with its place, its numbers, and the batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from compiler.ir.graph import Literal, Node
from compiler.numerics.blame import Blame, Seen, find
from compiler.numerics.runs import Run
from runtime.errors import shortened
from runtime.training.captures import Capture
from runtime.training.numerics import Range, show_names

MOST_INDICES = 16


@dataclass(frozen=True)
class Places:
    """For showing places in the model: texts by file, and the names of parameters, to recognize updates."""

    sources: Mapping[str, str]
    parameters: frozenset[str]


def phase_of(node: Node, places: Places) -> str:
    """`forward`, `backward` or `update`."""
    if node.origin is None:
        return "made by the compiler"
    if node.origin.path in places.parameters:
        return "update"
    return "backward" if node.origin.backward else "forward"


def reason_of(node: Node, seen: Seen) -> str:
    """The cause, if the ranges of the operands show it."""
    first = seen.operands[0] if seen.operands else None
    overflow = any(range.infinities for range in seen.results)
    if first is None or any(range.bad for range in seen.operands):
        return ""
    match node.op.name:
        case "log" if first.low < 0:
            return "the logarithm of a negative number"
        case "log" if overflow:
            return "the logarithm of zero"
        case "sqrt" if first.low < 0:
            return "the square root of a negative number"
        case "div" | "floor_div" | "mod" if seen.operands[1].low <= 0 <= seen.operands[1].high:
            return "a division by zero, or overflow"
        case _ if overflow:
            return "overflow: beyond the range of the type"
    return ""


# Parts of the text ----------------------------------------------------------------------------------------------------


def show_place(node: Node, places: Places) -> str:
    """`model.nn:6:8, layer dense_1, forward`"""
    origin = node.origin
    position = f"{origin.file}:{origin.line}:{origin.column}" if origin else ""
    layer = f"{'of' if phase_of(node, places) == 'update' else 'layer'} {origin.path}" if origin and origin.path else ""
    return ", ".join(filter(None, [position, layer, phase_of(node, places)]))


def show_range(range: Range) -> str:
    if not range.size:
        return "empty"
    figures = f"min {range.low:.4g}  max {range.high:.4g}  mean {range.mean:.4g}"
    if range.nans + range.infinities == range.size:
        figures = "no finite number"
    return f"{figures}  NaN {range.nans:,}  Inf {range.infinities:,}  of {range.size:,}"


def excerpt(node: Node, places: Places) -> list[str]:
    """The model's line with a caret."""
    origin = node.origin
    lines = places.sources.get(origin.file, "").split("\n") if origin else []
    if origin is None or origin.line > len(lines):
        return []
    line, before = lines[origin.line - 1].expandtabs(4), lines[origin.line - 1][: origin.column - 1].expandtabs(4)
    return [f" {origin.line} | {line}", f" {' ' * len(str(origin.line))} | {' ' * len(before)}^"]


def tensors(node: Node, seen: Seen) -> Iterator[str]:
    """A line for each operand and result."""
    rows = [("operand", value, range) for value, range in zip(node.operands, seen.operands, strict=True)]
    rows += [("result", value, range) for value, range in zip(node.results, seen.results, strict=True)]
    for what, value, range in rows:
        if isinstance(value, Literal):
            yield f"  {what:8}{value.value}"
        else:
            name = f" {value.name}" if value.name and value.kind else ""
            yield f"  {what:8}{value.type}{name}  {show_range(range)}"


def show_indices(capture: Capture) -> str:
    """`0, 4, 9 and 3 more`: the first ones; `0 … 127` if they are consecutive."""
    indices = capture.indices.tolist()
    if len(indices) > 2 and indices == list(range(indices[0], indices[0] + len(indices))):
        return f"{indices[0]} … {indices[-1]}"
    return shortened(list(map(str, indices)), MOST_INDICES)


def bad_examples(capture: Capture, name: str) -> str:
    """The examples of the data set with a NaN or an infinity in an array."""
    array = capture.inputs[name]
    bad = ~np.isfinite(array.reshape(len(array), -1)).all(1)
    return shortened(list(map(str, capture.indices[bad].tolist())), MOST_INDICES)


# The text -------------------------------------------------------------------------------------------------------------


def batch_line(capture: Capture) -> str:
    data, number = capture.data, capture.step
    step = f"step {number} of {capture.steps}" if capture.graph == "train_step" else f"{data} batch {number}"
    return f"batch: epoch {capture.epoch}, {step}, examples {show_indices(capture)} of the {data} data"


def blame_lines(blame: Blame, capture: Capture, places: Places) -> list[str]:
    """The first bad op, or the input that was bad before the step."""
    if blame.node is None or blame.seen is None:
        name = blame.value.name
        if name in capture.inputs:
            return [f"the data are not finite: array {name}, examples {bad_examples(capture, name)}"]
        return [f"not finite before the step: {name}"]
    node, seen = blame.node, blame.seen
    why = reason_of(node, seen)
    at = f", step {blame.step + 1} of its scan" if blame.step is not None else ""
    lines = [f"first bad op: {node.op.name}, {show_place(node, places)}{at}", *excerpt(node, places)]
    lines += [f"  {why}"] if why else []
    lines += tensors(node, seen)
    if blame.first_nan:
        later, _ = blame.first_nan
        lines.append(f"then NaN: {later.op.name}, {show_place(later, places)}")
    return [*lines, f"reached: {show_names(tuple(blame.reached))}"]


def report_of(run: Run, capture: Capture, places: Places) -> list[str]:
    """The result of one run of the step."""
    blame = find(run.trace)
    loss = float.fromhex(run.found.loss)
    if blame is None:
        return [f"all finite, loss {loss:.6g}"]
    return [f"loss {loss:.6g}", *blame_lines(blame, capture, places)]
