"""Functions of generated Python, one per planned graph. Each makes views of the arena and returns a function to run.

def bind_train_step(arena, B):
    image = view(arena, 0, np.float32, (B, 28, 28))      one line per buffer, then views of buffers
    def run():
        # models/mlp.nn:6:8 dense_1                      one heading per place in the model
        …                                                the target's statements for each node or region
    return run, {inputs}, {outputs}

A target adds a subclass of `GraphWriter`, which writes an op, a region and a copy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from compiler.ir.graph import VARIABLES, Graph, Literal, Node, Origin, Value
from compiler.ir.op import LOOP, REGION
from compiler.ir.printer import number, print_node
from compiler.ir.types import TensorType
from compiler.planning.memory import Plan
from compiler.planning.program import PlacedVariable
from compiler.planning.schedule import groups
from compiler.planning.strides import Order
from compiler.targets.shared.names import Names, comment, heading
from compiler.targets.shared.python_text import NUMPY_TYPES, VIEWS, Emission, show_shape, show_value

INDENT = "    "


@dataclass(frozen=True)
class Kernel:
    """A unit that the source runs and the clock measures: a call in `run`, or a statement in a loop."""

    name: str
    nodes: Sequence[Node]  # several if they run at the same time
    copied: Value | None = None  # if it is no node, but copies a value into the place of a variable


@dataclass(frozen=True)
class Ticks:
    """Where the source reads the clock or reports ranges: generating it fills the lists that are not None."""

    calls: list[Kernel] | None = None  # measured calls in `run`
    inside: list[Kernel] | None = None  # measured statements in regions and scans
    probed: list[Node] | None = None  # ops that report the ranges of their numbers (runtime/training/numerics.py)


NO_TICKS = Ticks()
START_CLOCK = "tick = clock.start()"


def functions_of(
    writer: Callable[..., GraphWriter],
    plans: Sequence[Plan],
    variables: Sequence[PlacedVariable],
    ticks: Mapping[str, Ticks] | None,
) -> list[str]:
    """The functions of all graphs, each written by a writer of a plan, then `bind_variables`; `ticks` are by graph."""
    offsets = {name: offset for name, _, offset in variables}
    functions = [writer(plan, offsets, ticks=(ticks or {}).get(plan.graph.name, NO_TICKS)).lines() for plan in plans]
    return [line for each in (*functions, variables_function(plans, variables)) for line in ("", "", *each)]


def variables_function(plans: Sequence[Plan], variables: Sequence[PlacedVariable]) -> list[str]:
    """`bind_variables`: views of all variables except those that `prepare` computes."""
    folded = {value.name for plan in plans for value in plan.graph.of_kind("folded")}
    variables = [each for each in variables if each[0] not in folded]
    views = [f"{INDENT * 2}{name!r}: {view_of(type, offset, ())}," for name, type, offset in variables]
    return ["def bind_variables(arena, B):", f"{INDENT}return None, {{", *views, f"{INDENT}}}, {{}}"]


def view_of(type: TensorType, offset: int | str, order: Order) -> str:
    """The array at an offset, with axes in this order in memory but indexed as in the model (no order: the same)."""
    axes = tuple(range(type.rank))
    shape = show_shape([type.shape[axis] for axis in order or axes])
    array = f"view(arena, {offset}, {NUMPY_TYPES[type.dtype]}, {shape})"
    if not order or order == axes:
        return array
    return f"{array}.T" if order == axes[::-1] else f"{array}.transpose({tuple(order.index(axis) for axis in axes)})"


class GraphWriter(ABC):
    """Writes the function of one planned graph."""

    STEPS: str  # the runtime function for the views of each step of a scan
    TOGETHER: str  # the runtime function that runs scans at the same time

    @abstractmethod
    def statements(self, node: Node, arguments: Sequence[str]) -> list[str]:
        """The statements of an op without a body that is not a view; they write into the places of its results."""

    @abstractmethod
    def write_region(self, node: Node, note: str, depth: int) -> str:
        """Writes a fused region with the comment `note`. Its name."""

    @abstractmethod
    def copy(self, out: str, source: str) -> str:
        """A statement that copies an array."""

    def __init__(
        self,
        plan: Plan,
        variables: Mapping[str, int],
        names: Names | None = None,
        lane: str = "",
        ticks: Ticks = NO_TICKS,
    ):
        self.plan = plan
        self.variables = variables
        self.names = names or Names()
        self.lane = lane  # in a region, the start of the scratch space of a lane
        self.ticks = ticks
        self.of: dict[Value, str] = {}
        self.bound: list[str] = []  # lines that run once and make the views
        self.body: list[str] = []  # lines that run in every call
        self.moving: set[Value] = set()  # values whose place differs between steps of a scan
        self.functions: list[str] = []  # regions, and scans that run at the same time as others
        self.members: list[str] = []  # those of these scans that are not called yet
        self.last_heading = ""
        self.scans = self.regions = 0

    def lines(self) -> list[str]:
        graph = self.plan.graph
        for value in graph.inputs:
            self.of[value] = self.names.fresh(value.name)
            self.bound.append(f"{self.of[value]} = {view_of(value.type, self.plan.block(value).offset, ())}")
        if self.ticks.calls is not None:
            self.write(START_CLOCK, 0)
        self.write_nodes(graph, number(graph), "v", depth=0)
        self.write_outputs(graph)
        inputs = {value.name: self.of[value] for value in graph.of_kind("input", "target", "place", "total")}
        results = {name: self.of[value] for name, value in graph.outputs.items() if name not in self.variables}
        return [
            f"def bind_{graph.name}(arena, B):",
            # Start with a branch: CPython's compiler takes quadratic time for a long first block whose variables are
            # used by inner functions.
            f"{INDENT}if arena.nbytes < {self.plan.size}:",
            f'{INDENT * 2}raise ValueError("the arena is too small")',
            *(INDENT + line for line in self.bound),
            *(INDENT + line if line else "" for line in self.functions),
            "",
            f"{INDENT}def run():",
            *(INDENT * 2 + line for line in self.body or ["pass"]),
            "",
            f"{INDENT}return run, {show_names(inputs)}, {show_names(results)}",
        ]

    def write_outputs(self, graph: Graph) -> None:
        """Copies the new values of variables that are not yet in place."""
        old_values = {value.name: value for value in graph.of_kind(*VARIABLES)}
        for name, value in graph.outputs.items():
            if name not in self.variables:
                continue
            old = old_values.get(name)
            if old is None or self.plan.owner.get(value) is not old:
                target = self.of[old] if old else self.names.fresh(name)
                if old is None:
                    self.bound.append(f"{target} = {view_of(value.type, self.variables[name], ())}")
                self.write_place(None, 0)
                self.write(self.copy(target, self.show(value)), 0)
                self.tick(Kernel("copy", [], value), 0)

    def show(self, value: Value) -> str:
        return show_value(value.value) if isinstance(value, Literal) else self.of[value]

    def write_nodes(self, graph: Graph, numbers: dict[Value, str], prefix: str, depth: int) -> None:
        member_of = {node: group for group in (groups(graph) if depth == 0 else ()) for node in group}
        for node in graph.nodes:
            if node not in self.plan.views:
                self.write_place(node.origin, depth)
            arguments = [self.show(operand) for operand in node.operands]
            for result in node.results:
                self.declare(result, f"{prefix}{numbers[result]}")
            note = comment(print_node(node, numbers).split("  //")[0].split("graph body")[0])
            if REGION in node.op.traits:
                name = self.write_region(node, note, depth)
                self.tick(Kernel(name, [node]), depth)
            elif node in member_of:
                self.write(note, depth)
                self.write_member(node, member_of[node], arguments)
            elif LOOP in node.op.traits:
                self.write(note, depth)
                name = self.write_scan(node, arguments, depth)
                if not depth:
                    self.tick(Kernel(name, [node]), depth)
            elif node in self.plan.views:
                self.write_view(node, arguments, note, depth)
            else:
                first, *rest = self.probed(node, arguments, self.statements(node, arguments))
                self.write(f"{first}  {note}", depth)
                for line in rest:
                    self.write(line, depth)
                self.tick(Kernel(node.op.name, [node]), depth)

    def probed(self, node: Node, arguments: Sequence[str], statements: list[str]) -> list[str]:
        """The statements of an op, between those that report the ranges of its operands and results if requested."""
        if self.ticks.probed is None:
            return statements
        self.ticks.probed.append(node)
        ranges = "selected_ranges" if node.op.name == "select" else "ranges_of"
        results = ", ".join(self.of[result] for result in node.results)
        after = f"probe({len(self.ticks.probed) - 1}, operands, {results})"
        return [f"operands = {ranges}({', '.join(arguments)})", *statements, after]

    def tick(self, kernel: Kernel, depth: int) -> None:
        """Reads the clock after a kernel, if it is to be measured."""
        kernels = self.ticks.inside if depth else self.ticks.calls
        if kernels is not None:
            self.write(f"tick({len(kernels)})", depth)
            kernels.append(kernel)

    def scratch(self, node: Node) -> str:
        """The name of a node's scratch space, if it has any."""
        if node not in self.plan.scratch:
            return ""
        value = self.plan.scratch[node]
        self.declare(value, f"{self.of[node.results[0]]}_scratch")
        return self.of[value]

    def write(self, line: str, depth: int) -> None:
        self.body.append(INDENT * depth + line)

    def write_place(self, origin: Origin | None, depth: int) -> None:
        text = heading(origin)
        if text != self.last_heading:
            self.write(text, depth)
            self.last_heading = text

    def declare(self, value: Value, wanted: str) -> None:
        """Names a result and, if it needs a view of the arena, makes it once."""
        if value in self.of:
            return
        owner = self.plan.owner[value]
        if value.node in self.plan.views:
            self.of[value] = self.names.fresh(wanted)
        elif value in self.plan.in_place:
            self.of[value] = self.of[self.plan.in_place[value]]
        elif owner in self.of and owner is not value:
            self.of[value] = self.of[owner]
        else:
            self.of[value] = self.names.fresh(wanted)
            offset = self.plan.blocks[owner].offset
            place = f"{self.lane} + {offset}" if self.lane and offset else self.lane or offset
            self.bound.append(f"{self.of[value]} = {view_of(value.type, place, self.plan.orders[owner])}")

    def write_view(self, node: Node, arguments: Sequence[str], note: str, depth: int) -> None:
        line = f"{self.of[node.result]} = {VIEWS[node.op.name](Emission(node, arguments, ''))}  {note}"
        if self.write_bound(line, node, depth):
            self.moving.add(node.result)

    def write_bound(self, line: str, node: Node, depth: int) -> bool:
        """Makes views of a node's operands: once, or each time if an outer loop moves one of them. Whether it does."""
        moves = not self.moving.isdisjoint(node.operands)
        if moves:
            self.write(line, depth)
        else:
            self.bound.append(line)
        return moves

    def write_scan(self, node: Node, arguments: Sequence[str], depth: int) -> str:
        """A loop over the steps, with views of the step for sequences and outputs; carries in place. Its name."""
        body, carries = node.body, node.attributes["carries"]
        constants = carries + node.attributes["sequences"]
        self.scans += 1
        scan = f"scan_{self.scans}"
        for carry, result, argument in zip(body.inputs[:carries], node.results, arguments, strict=False):
            self.of[carry] = self.of[result]
            self.write(self.copy(self.of[result], argument), depth)
        for inner, outer, argument in list(zip(body.inputs, node.operands, arguments, strict=True))[constants:]:
            self.of[inner] = argument
            self.moving |= {inner} if outer in self.moving else set()
        stepped = dict(zip(body.inputs[carries:constants], arguments[carries:constants], strict=True))
        values = list(body.outputs.values())[carries:]
        stepped |= {value: self.of[stack] for value, stack in zip(values, node.results[carries:], strict=True)}
        reverse = node.attributes["reverse"]
        self.write_bound(f"{scan}_steps = {self.STEPS}({', '.join(stepped.values())}, reverse={reverse})", node, depth)
        numbers = number(body)
        for value in stepped:
            self.of[value] = self.names.fresh(f"{scan}_{numbers[value]}")
            self.moving.add(value)
        if self.ticks.inside is not None:
            self.write(START_CLOCK, depth)
        self.write(f"for {', '.join(self.of[value] for value in stepped)}, in {scan}_steps:", depth)
        self.write_nodes(body, numbers, f"{scan}_", depth + 1)
        for carry, value in list(zip(body.inputs, body.outputs.values(), strict=False))[:carries]:
            if self.plan.owner[value] is not self.plan.owner[carry]:
                self.write(self.copy(self.of[carry], self.of[value]), depth + 1)
                self.tick(Kernel("copy", [], value), depth + 1)
        if not body.nodes and not carries:
            self.write("pass", depth + 1)
        self.last_heading = ""
        return scan

    def write_member(self, node: Node, group: Sequence[Node], arguments: Sequence[str]) -> None:
        """Writes a scan as a separate function; after the last scan of a group, all of them are called at once."""
        outer, self.body = self.body, []
        self.members.append(self.write_scan(node, arguments, 1))
        self.functions += ["", f"def {self.members[-1]}():", *self.body]
        self.body = outer
        if node is group[-1]:
            names = ", ".join(self.members)
            self.members.clear()
            self.write(f"{self.TOGETHER}({names})", 0)
            self.tick(Kernel(names, group), 0)


def show_names(names: dict[str, str]) -> str:
    return "{" + ", ".join(f"{name!r}: {identifier}" for name, identifier in names.items()) + "}"
