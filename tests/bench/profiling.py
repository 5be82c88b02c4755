"""Where the time of a training step goes: the generated source with a clock around every statement of its `run`."""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import perf_counter

from compiler.driver import Compilation
from runtime.program import Program
from tests.bench.peers.common import measure

HEADING = re.compile(r"\s*# (?P<line>\S+:\d+):\d+(?: (?P<layer>[^\s()]+))?(?P<backward> \(backward\))?\s*$")
NODE = re.compile(r"# %.* = (\w+)\(")
UNPLACED = "(made by the compiler)"
SECONDS_WATCHED = 1.0


@dataclass
class Row:
    """The statements of one model line and op, forward or backward."""

    line: str
    op: str
    layers: list[str] = field(default_factory=list)
    statements: int = 0
    microseconds: float = 0.0  # in one step


def profile(compilation: Compilation, train_step: Callable[[Program], Callable[[], object]]) -> dict[str, object]:
    """Rows by line and op, most expensive first, and the milliseconds of a step with and without the clock."""
    plain = Program(compilation.executable, compilation.manifest)
    plain.initialize(0)
    usual = statistics.median(measure(train_step(plain)))
    source, rows = instrument(compilation.executable.source, "train_step")
    timed = Program(replace(compilation.executable, source=source), compilation.manifest)
    timed.initialize(0)
    step = train_step(timed)
    spent = timed.bind("train_step", timed.batch)[0].__globals__["seconds_spent"]
    measure(step)
    spent[:] = [0.0] * len(spent)
    begun, steps = perf_counter(), 0
    while perf_counter() - begun < SECONDS_WATCHED:
        step()
        steps += 1
    watched = (perf_counter() - begun) / steps * 1e3
    for row, seconds in zip(rows, spent, strict=True):
        row.microseconds = seconds / steps * 1e6
    ordered = sorted(merged(rows), key=lambda row: -row.microseconds)
    return {"milliseconds": usual, "watched": watched, "rows": [vars(row) for row in ordered]}


def merged(rows: list[Row]) -> list[Row]:
    """One row for each line and op."""
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        total = found.setdefault((row.line, row.op), Row(row.line, row.op))
        total.layers += [layer for layer in row.layers if layer not in total.layers]
        total.statements += row.statements
        total.microseconds += row.microseconds
    return list(found.values())


def instrument(source: str, graph: str) -> tuple[str, list[Row]]:
    """The source with `seconds_spent[i]` counting statement i of the graph's `run`, and what each statement is."""
    tree = ast.parse(source)
    lines = source.splitlines()
    rows: list[Row] = []

    def watch(body: list[ast.stmt]) -> list[ast.stmt]:
        result: list[ast.stmt] = []
        for statement in body:
            inner = [name for name in ("body", "orelse") if getattr(statement, name, None)]
            for name in inner:
                setattr(statement, name, watch(getattr(statement, name)))
            if inner or isinstance(statement, ast.Pass | ast.Return | ast.Nonlocal | ast.Global):
                result.append(statement)
                continue
            before = ast.parse("started = clock()").body
            after = ast.parse(f"seconds_spent[{len(rows)}] += clock() - started").body
            rows.append(describe(statement, lines))
            result += [*before, statement, *after]
        return result

    (bind,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == f"bind_{graph}")
    (run,) = (node for node in bind.body if isinstance(node, ast.FunctionDef) and node.name == "run")
    run.body = watch(run.body)
    head = ["from time import perf_counter as clock", f"seconds_spent = [0.0] * {len(rows)}"]
    return "\n".join([*head, ast.unparse(ast.fix_missing_locations(tree))]), rows


def describe(statement: ast.stmt, lines: list[str]) -> Row:
    """The op from the comment of the statement, the model line from the last heading above it."""
    node = NODE.search(lines[statement.lineno - 1])
    call = statement.value if isinstance(statement, ast.Expr | ast.Assign | ast.AugAssign) else None
    op = node[1] if node else ast.unparse(call.func) if isinstance(call, ast.Call) else "assignment"
    above = (HEADING.match(lines[i]) for i in range(statement.lineno - 1, -1, -1))
    heading = next(filter(None, above), None)
    if heading is None:
        return Row(UNPLACED, op, statements=1)
    layer = heading["layer"]
    return Row(heading["line"] + (heading["backward"] or ""), op, [layer] if layer else [], statements=1)
