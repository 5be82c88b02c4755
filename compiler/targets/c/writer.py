"""Programs in C for planned graphs: a text of C for each graph, and Python that binds it to the arena.

    static void dense_1_forward(const Step *s) { … }      a region, or an op outside regions; a part for each thread
    static void scan_1(const Step *s) { … }               a loop over time steps, which calls its regions
    void train_step(const Step *s) {                      every thread runs it
        dense_1_forward(s); barrier(s);                   // models/mlp.nn:6:8 dense_1
        …
    }

Tensors are at the offsets of the memory plan; a step allocates nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from compiler.ir.graph import VARIABLES, Graph, Literal, Node, Origin, Value
from compiler.ir.op import LOOP, REGION
from compiler.ir.printer import number, print_node
from compiler.ir.types import BYTES
from compiler.planning.memory import Plan
from compiler.planning.program import PlacedVariable
from compiler.planning.schedule import groups
from compiler.targets.c.elements import Array, RegionCall
from compiler.targets.c.loops import map_lines
from compiler.targets.c.reductions import partial_bytes, reduction_lines
from compiler.targets.c.tiles import StoredOperand, is_tiled, tile_functions, tiled_node, workspace_of
from compiler.targets.c_text.elements import INDENT, is_elemental
from compiler.targets.c_text.indices import elements, size_of
from compiler.targets.c_text.regions import reduces, reduction_of, swaps_last_axes
from compiler.targets.shared.names import Names, comment
from compiler.targets.shared.regions import body_of
from compiler.targets.shared.writer import NO_TICKS, Kernel, Ticks, show_names, variables_function, view_of

HEADER = ("import numpy as np", "", "from runtime.cpu.kernels import view", "from runtime.native.library import Graph")
INCLUDES = ("regions.h", "functions.h", "random.h", "orthogonalize.h", "templates.h")
# Words of C and of the headers, and names of loops.
WORDS_OF_C = frozenset({
    "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern",
    "float", "for", "goto", "if", "inline", "int", "long", "register", "restrict", "return", "short", "signed",
    "sizeof", "static", "struct", "switch", "typedef", "union", "unsigned", "void", "volatile", "while", "asm",
    "typeof", "bool", "true", "false", "main", "s", "arena", "tile", "stride", "row", "rows", "column", "columns",
    "product", "convolution", "share", "barrier", "load", "store", "all", "smaller", "nearest", "multiply", "convolve",
    "Step", "Graph", "Vector", "apart", "copy", "here", "outer", "batch", "fill_uniform", "fill_normal",
    "fill_truncated_normal",
})  # fmt: skip
ENDINGS = "t|f32|f64|i32|i64|u8|bool|from|to|end|tile|of|strip|first"
VARIABLES_OF_LOOPS = "sum|part|most|nans|place|kept|best|total|tap|lost|product"
PATTERN = re.compile(rf"\w+_({ENDINGS})|[A-Z_0-9]+|[bcijkrt]x?\d*(_\d+)?|({VARIABLES_OF_LOOPS})(_\d+)?")


def generate(
    title: str, plans: Sequence[Plan], variables: Sequence[PlacedVariable], ticks: Mapping[str, Ticks] | None = None
) -> str:
    """The module's source; arguments as for `generate` of NumPy."""
    offsets = {name: offset for name, _, offset in variables}
    writers = [GraphText(plan, offsets, (ticks or {}).get(plan.graph.name, NO_TICKS)) for plan in plans]
    lines = [comment(title), "", *HEADER]
    for writer in writers:
        lines += ["", *writer.definition()]
    for writer in writers:
        lines += ["", "", *writer.binding()]
    lines += ["", "", *variables_function(plans, variables)]
    return "\n".join(lines) + "\n"


def workspace_in(source: str) -> int:
    """The bytes for each thread in a source: graphs share them, since only one of them runs at a time."""
    return max(map(int, re.findall(r'^""", "\w+", (\d+)\)$', source, re.MULTILINE)), default=0)


def place_of(origin: Origin | None) -> str:
    return str(origin) if origin else "made by the compiler"


def line_comment(text: str) -> str:
    """A comment of C of one line: printable ASCII, without what would continue it on the next line or end a string."""
    return "// " + re.sub(r"[^ -~]|[\\\"?]", "_", text)


class GraphText:
    """The C text of one planned graph, and the Python function that binds it."""

    def __init__(self, plan: Plan, variables: Mapping[str, int], ticks: Ticks = NO_TICKS, prefix: str = ""):
        self.plan, self.graph = plan, plan.graph
        self.prefix = prefix  # of the names of functions, if several graphs are in one text
        self.variables = variables
        self.ticks = ticks
        self.names = Names(WORDS_OF_C, PATTERN)
        self.of: dict[Value, str] = {}
        self.places: dict[Value, str] = {}  # of values that are at another place in each time step
        self.functions: list[str] = []
        self.body: list[str] = []
        self.workspace = 0  # bytes of each thread
        self.scans = 0
        self.written = False

    # Python

    def definition(self) -> list[str]:
        self.write()
        return [
            f'{self.graph.name} = Graph(r"""',
            *self.clock(),
            *(f'#include "{name}"' for name in INCLUDES),
            *self.c_lines(),
            f'""", "{self.graph.name}", {self.workspace})',
        ]

    def c_lines(self) -> list[str]:
        """The functions of the regions and that of the graph, after `write`."""
        return [
            *self.functions,
            "",
            f"void {self.graph.name}(const Step *s) {{",
            f"{INDENT}const long B UNUSED = s->B;",
            *(INDENT + line for line in self.body),
            "}",
        ]

    def clock(self) -> list[str]:
        """What a text with a clock includes."""
        kernels = self.ticks.calls if self.ticks.calls is not None else self.ticks.inside
        return [] if kernels is None else [f"#define MEASURED {max(len(kernels), 1)}", '#include "clock.h"']

    def binding(self) -> list[str]:
        graph = self.graph
        given = graph.of_kind("input", "target", "place", "total")
        results = {name: value for name, value in graph.outputs.items() if name not in self.variables}
        views = [f"{self.of[v]} = {view_of(v.type, self.plan.block(v).offset, ())}" for v in given]
        out: dict[str, str] = {}
        for name, value in results.items():
            out[name] = self.names.fresh(name)
            views.append(f"{out[name]} = {view_of(value.type, self.place(value), ())}")
        return [
            f"def bind_{graph.name}(arena, B):",
            f"{INDENT}if arena.nbytes < {self.plan.size}:",
            f'{INDENT * 2}raise ValueError("the arena is too small")',
            *(INDENT + line for line in views),
            "",
            f"{INDENT}def run():",
            f"{INDENT * 2}{graph.name}(arena, B)",
            "",
            f"{INDENT}return run, {show_names({value.name: self.of[value] for value in given})}, {show_names(out)}",
        ]

    # C

    def write(self) -> None:
        graph = self.graph
        for value in graph.inputs:
            self.of[value] = self.names.fresh(value.name)
        self.name_results(graph, "v")
        if self.ticks.calls is not None:
            self.body.append("start_clock(s);")
        self.write_nodes(graph, self.body, 0)
        self.write_outputs()

    def name_results(self, graph: Graph, prefix: str) -> None:
        numbers = number(graph)
        for node in graph.nodes:
            for value in node.results:
                self.of[value] = self.names.fresh(f"{prefix}{numbers[value]}")

    def place(self, value: Value) -> str:
        """The bytes from the start of the arena to a value, as C."""
        if value in self.places:
            return self.places[value]
        if value.node in self.plan.views:
            return self.place(value.node.operands[0])
        if value in self.plan.in_place:
            return self.place(self.plan.in_place[value])
        owner = self.plan.owner[value]
        return str(self.plan.blocks[value].offset) if owner is value else self.place(owner)

    def write_nodes(self, graph: Graph, body: list[str], depth: int) -> None:
        together = {node: group for group in (groups(graph) if depth == 0 else ()) for node in group}
        waiting: list[str] = []
        for node in graph.nodes:
            if node in self.plan.views or all(0 in result.type.shape for result in node.results):
                continue
            if LOOP in node.op.traits:
                name = self.write_scan(node, depth)
                if node in together:
                    waiting.append(name)
                    if node is not together[node][-1]:
                        continue
                    body += [f"apart(s, {len(waiting)}, (const GraphFunction[]){{{', '.join(waiting)}}});"]
                    waiting = []
                    self.meet(body, node.origin)
                    self.tick(body, Kernel(name, together[node]), depth)
                    continue
            else:
                name = self.write_function(node)
            body.append(f"{name}(s);")
            self.meet(body, node.origin)
            self.tick(body, Kernel(name, [node]), depth)

    def meet(self, body: list[str], origin: Origin | None) -> None:
        """Threads wait for each other before the next region reads what this one wrote."""
        body.append(f"barrier(s);{'  ' + line_comment(str(origin)) if origin else ''}")

    def tick(self, body: list[str], kernel: Kernel, depth: int) -> None:
        """Reads the clock after a region, if it is to be measured."""
        kernels = self.ticks.inside if depth else self.ticks.calls
        if kernels is not None:
            body.append(f"tick(s, {len(kernels)});")
            kernels.append(kernel)

    def write_outputs(self) -> None:
        """Copies the new values of variables that are not yet in place."""
        old_values = {value.name: value for value in self.graph.of_kind(*VARIABLES)}
        for name, value in self.graph.outputs.items():
            if name not in self.variables:
                continue
            old = old_values.get(name)
            if old is None or self.plan.owner.get(value) is not old:
                self.copy(self.body, str(self.variables[name]), value)
                self.tick(self.body, Kernel("copy", [], value), 0)

    def copy(self, body: list[str], target: str, value: Value) -> None:
        """Copies a value to a place."""
        size = f"{elements(value.type.shape)} * {BYTES[value.type.dtype]}"
        if isinstance(value, Literal):
            raise AssertionError("a pass makes a tensor of every literal that is copied")
        body.append(f"copy(s, {target}, {self.place(value)}, {size});")
        self.meet(body, None)

    # Regions and ops

    def write_function(self, node: Node) -> str:
        """The function that computes a node, a region or a single op. Its name."""
        call = self.call_of(node)
        note = self.note_of(node)
        place = line_comment(place_of(node.origin))
        lines = [each for line in self.function(node, call) for each in ([line] if line else ["", place])]
        self.functions += ["", place, note, *lines]
        return call.name

    def note_of(self, node: Node) -> str:
        """The node as in the IR, without its body."""
        names = {value: self.of[value] for value in (*node.operands, *node.results) if value in self.of}
        return line_comment(print_node(node, names).split("  //")[0].split(", step=0, body=")[0])

    def call_of(self, node: Node) -> RegionCall:
        body = node.body if REGION in node.op.traits else body_of(node)
        given = [value for value in node.operands if REGION in node.op.traits or not isinstance(value, Literal)]
        written = {self.bytes_of(result) for result in node.results}
        needed = {value for each in body.nodes for value in each.operands} | {*body.outputs.values()}
        read = {
            inner: Array(self.of[outer], outer.type, self.place(outer), False, self.bytes_of(outer) in written)
            for inner, outer in zip(body.inputs, given, strict=True)
            if inner in needed
        }
        reads = {self.bytes_of(outer) for outer in given}
        results = [Array(self.of[v], v.type, self.place(v), True, self.bytes_of(v) in reads) for v in node.results]
        named: dict[str, Array] = {}
        for inner, array in read.items():  # one operand may be several inputs
            read[inner] = named.setdefault(array.name, array)
        return RegionCall(self.function_name(node, body), body, read, results)

    def bytes_of(self, value: Value) -> Value:
        return self.plan.owner[value]

    def function(self, node: Node, call: RegionCall) -> list[str]:
        if is_tiled(call.body):
            outer = dict(zip(call.body.inputs, node.operands, strict=True)) if REGION in node.op.traits else {}
            outer = outer or dict(zip(call.body.inputs, node.operands, strict=True))

            def operand(value: Value) -> StoredOperand:
                source = outer[value].node
                swapped = source is not None and source in self.plan.views and swaps_last_axes(source)
                return StoredOperand(call.read[value], swapped and outer[value].type.shape[-2:] != (1, 1))

            self.workspace = max(self.workspace, workspace_of(tiled_node(call.body)))
            return tile_functions(call, operand)
        lines = self.statements(node, call)
        return [
            f"static void {call.name}(const Step *s) {{",
            f"{INDENT}const long B UNUSED = s->B;",
            *(INDENT + array.declaration for array in dict.fromkeys(call.arrays)),
            *(INDENT + line for line in lines),
            "}",
        ]

    def statements(self, node: Node, call: RegionCall) -> list[str]:
        if node.op.name == "random":
            return self.random(node, call)
        if node.op.name == "orthogonalize":
            return self.orthogonalize(node, call)
        assert REGION in node.op.traits or is_elemental(node), node.op.name
        if any(map(reduces, call.body.nodes)):
            reduction = reduction_of(call.body.nodes, call.body.outputs)
            if reduction is not None:
                self.workspace = max(self.workspace, partial_bytes(reduction))
                return reduction_lines(call, reduction)
        return map_lines(call)

    def random(self, node: Node, call: RegionCall) -> list[str]:
        """Random numbers, those of one block or more at once."""
        seed, step, *first = (self.scalar(value) for value in node.operands)
        distribution, shape = node.attributes["distribution"], node.result.type.shape
        source = f"s, {call.written[0].name}, {seed}, {step}, {node.attributes['stream']}ULL"
        size, row = elements(shape), elements(shape[1:])
        if distribution == "uniform":
            return [f"fill_uniform({source}, {f'{first[0]} * ({row})' if first else 0}, {size});"]
        rows = f"{first[0]} + 1, {elements(shape[:1])}, {row}" if first else f"0, 1, {size}"
        return [f"fill_{distribution}({source}, {rows});"]

    def orthogonalize(self, node: Node, call: RegionCall) -> list[str]:
        """One thread, with space for the matrix and two numbers for each row or column in f64."""
        result, (source,) = node.result, call.read.values()
        size = self.plan.block(result).bytes // BYTES[result.type.dtype]
        self.workspace = max(self.workspace, BYTES["f64"] * 3 * size)
        sizes = ", ".join(str(size_of(dim)) for dim in result.type.shape)
        return [f"orthogonalize_{result.type.dtype}(s, {call.written[0].name}, {source.name}, {sizes});"]

    def scalar(self, value: Value) -> str:
        return str(value.value) if isinstance(value, Literal) else f"{self.of[value]}[0]"

    def function_name(self, node: Node, body: Graph) -> str:
        """The layer or line that most of the body belongs to, and the direction; unlike the name of any tensor."""
        origins = Counter(each.origin for each in body.nodes if each.origin) or Counter({node.origin: 1})
        origin = origins.most_common(1)[0][0]
        wanted = node.op.name if origin is None else origin.path or f"line_{origin.line}"
        updates = origin is not None and any(value.name == origin.path for value in self.graph.of_kind("param"))
        direction = "backward" if origin and origin.backward else "update" if updates else "forward"
        return self.names.fresh(f"{self.prefix}{wanted}_{direction}")

    # Scans

    def write_scan(self, node: Node, depth: int) -> str:
        """A function with the loop over the time steps. Its name."""
        body, carries = node.body, node.attributes["carries"]
        constants = carries + node.attributes["sequences"]
        self.scans += 1
        name, time = f"{self.prefix}scan_{self.scans}", f"s->t[{depth}]"
        lines = ["Step here = *outer;", "const Step *const s = &here;", "const long B UNUSED = s->B;"]
        for carry, result, argument in zip(body.inputs, node.results[:carries], node.operands, strict=False):
            self.of[carry] = self.names.fresh(f"{name}_{carry.name}")
            self.places[carry] = self.place(result)
            if self.place(argument) != self.place(result):
                self.copy(lines, self.place(result), argument)
        for index, (inner, outer) in enumerate(zip(body.inputs, node.operands, strict=True)):
            if index >= carries:
                self.of[inner] = self.names.fresh(f"{name}_{inner.name}")
                stepped = index < constants
                self.places[inner] = self.step_of(outer, inner, time) if stepped else self.place(outer)
        for value, stack in zip(list(body.outputs.values())[carries:], node.results[carries:], strict=True):
            if self.plan.slots.get(value) is stack:
                self.places[value] = self.step_of(stack, value, time)
        self.name_results(body, f"{name}_v")
        length = elements(node.operands[carries].type.shape[:1])
        inside: list[str] = []
        self.write_nodes(body, inside, depth + 1)
        for carry, value in list(zip(body.inputs, body.outputs.values(), strict=False))[:carries]:
            if self.place(value) != self.place(carry):
                self.copy(inside, self.place(carry), value)
        loop = f"for (here.t[{depth}] = 0; here.t[{depth}] < {length}; ++here.t[{depth}]) {{"
        if node.attributes["reverse"]:
            loop = f"for (here.t[{depth}] = {length} - 1; here.t[{depth}] >= 0; --here.t[{depth}]) {{"
        lines += ["start_clock(s);"] if self.ticks.inside is not None else []
        lines += [loop, *(INDENT + line for line in inside), "}"]
        self.functions += [
            "",
            line_comment(place_of(node.origin)),
            f"static void {name}(const Step *outer) {{",
            *(INDENT + line for line in lines),
            "}",
        ]
        return name

    def step_of(self, stack: Value, value: Value, time: str) -> str:
        return f"{self.place(stack)} + {time} * ({elements(value.type.shape)} * {BYTES[value.type.dtype]})"
