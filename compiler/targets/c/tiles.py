"""Products and convolutions: calls of the templates in runtime/native, which call back for each finished tile.

static void dense_1_tile(s, tile, …)      the epilogue: functions of single elements of the result
static void dense_1(s)                    multiply(s, &(Product){…}, dense_1_tile);
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from compiler.ir.graph import Graph, Node, Value
from compiler.ir.types import Shape, extent
from compiler.targets.c.elements import ARRAY_TYPES, SIMD, Array, CElements, RegionCall, Row
from compiler.targets.c.loops import AxisRun, declared, index_of, without_unused
from compiler.targets.c_text.elements import INDENT
from compiler.targets.c_text.indices import Coordinate, Indices, elements, size_of, squeezed
from compiler.targets.c_text.regions import read_at_own_place, reduces

OUTER = "s->t[3]"  # the position along batch axes that are looped over; scans are less deep
TEMPLATES = {
    "matmul": "multiply",
    "conv2d": "convolve",
    "conv2d_input_grad": "convolve_input_grad",
    "conv2d_filter_grad": "convolve_filter_grad",
}


MOST_COLUMNS = 256  # of a tile: WIDEST_TILE in step.h
PRODUCT_WORKSPACE = 1 << 20  # bytes of a thread that `multiply` needs at most, see PRODUCT_WORKSPACE in products.h


def workspace_of(node: Node) -> int:
    """Bytes of a thread that the template of a node needs; for convolutions CONVOLUTION_WORKSPACE in windows.h."""
    if node.op.name == "matmul":
        return PRODUCT_WORKSPACE
    if node.result.type.dtype == "f64":
        return 0
    x, w, _ = image_shapes(node)
    (kh, kw), groups = (extent(w[axis : axis + 1]).factor for axis in (0, 1)), node.attributes["groups"]
    filters, widest = extent(w[3:]).factor, max(extent(x[3:]).factor, extent(w[3:]).factor) // groups
    stride, (down, across) = max(node.attributes["stride"]), node.attributes["dilation"]
    packed = max(1 << 19, 128 * kh * kw * widest, 4 * kh * kw * filters)
    strip = max(1 << 19, 4 * ((kh - 1) * down + 1) * widest * (13 * stride + (kw - 1) * across + 1))
    return packed + strip + (1 << 17) + 256 + 64


def has_tiles(node: Node) -> bool:
    """Whether a template computes a node in tiles."""
    return node.op.name in TEMPLATES


def is_tiled(body: Graph) -> bool:
    """Whether nodes are one product or convolution, and functions of single elements of its result."""
    tiled = [node for node in body.nodes if has_tiles(node)]
    if len(tiled) != 1:
        return False
    node, own = tiled[0], set(body.nodes)
    shapes = {squeezed(value.type.shape) for value in body.outputs.values()}
    if any(value.node in own for value in node.operands) or any(map(reduces, body.nodes)):
        return False
    return shapes == {squeezed(node.result.type.shape)} and node.result in read_at_own_place(body)


def tiled_node(body: Graph) -> Node:
    return next(node for node in body.nodes if has_tiles(node))


def tile_functions(call: RegionCall, of: Callable[[Value], StoredOperand]) -> list[str]:
    """The functions of a region with a product or a convolution; `of` an input of its body: the operand."""
    node = tiled_node(call.body)
    suffix = "_f64" if node.result.type.dtype == "f64" else ""
    operands = [of(value) for value in node.operands]
    setup = (
        product_lines(call, node, operands, suffix)
        if node.op.name == "matmul"
        else image_lines(call, node, operands, suffix)
    )
    return [
        *tile_function(call, node),
        "",
        f"static void {call.name}(const Step *s) {{",
        f"{INDENT}const long B UNUSED = s->B;",
        *(INDENT + line for line in setup),
        "}",
    ]


# The epilogue ---------------------------------------------------------------------------------------------------------


def rows_of(node: Node) -> tuple[int, ...]:
    """The axes of the result that are rows of the tiles; those before them are batches, the last one is the columns."""
    rank = node.result.type.rank
    return (rank - 2,) if node.op.name == "matmul" else tuple(range(rank - 1))


def tile_function(call: RegionCall, node: Node) -> list[str]:
    """The function for a tile: it computes the results of the region for the elements of the tile."""
    shape, rows = node.result.type.shape, rows_of(node)
    indices = Indices()
    e = CElements(call, indices)
    e.used |= {"tile", "stride", "batch", "row", "rows", "column", "columns", "r", "c", "b"}
    batches = AxisRun(indices, shape, tuple(range(rows[0])), "b")
    runs = [batches, AxisRun(indices, shape, rows, "r"), AxisRun(indices, shape, (len(shape) - 1,), "c")]
    index = index_of(shape, runs)
    e.reduced[node.result] = "tile[i * stride + j]"
    e.used |= {"i", "j"}
    e.hoist_scalars()
    with e.over("i", 0, "rows"):
        outer, inner = batch_axes_of(node)
        e.write(f"const long r UNUSED = row + i, b UNUSED = {f'{OUTER} * {elements(inner)} + ' if outer else ''}batch;")
        start = len(e.lines)
        row = Row("c", "column", "j", "columns", MOST_COLUMNS, [], [], {})
        with e.row_of(row), e.over("j", 0, "columns", SIMD):
            e.write("const long c = column + j;")
            stores = []
            place = indices.join(index, shape)
            for value, array in zip(call.body.outputs.values(), call.written, strict=True):
                at = indices.reshaped(index, shape, value.type.shape)
                stores.append((array, place, e.at(value, at), e.base_of(value.type, at)))
            for store in stores:
                e.store(*store)
        e.lines[start:start] = [INDENT * e.depth + line for line in declared(runs, e.lines[start:])]
    used = [array for array in call.arrays if any(array.name in line for line in e.lines)]
    kind, name = ARRAY_TYPES[node.result.type.dtype], f"{call.name}_tile"
    parameters = f"const Step *s, const {kind} *tile, long stride, long batch, long row, long rows, long column"
    given = "s, tile, stride, batch, row, rows, column"
    return [
        f"INLINE void {name}_of({parameters}, long columns) {{",
        f"{INDENT}const long B UNUSED = s->B;",
        *(INDENT + array.declaration for array in used),
        *(INDENT + line for line in without_unused(e.lines)),
        "}",
        "",
        f"static void {name}({parameters}, long columns) {{",
        *(INDENT + line for line in by_columns(name, given, size_of(node.result.type.shape[-1]))),
        "}",
    ]


def by_columns(name: str, given: str, columns: Coordinate) -> list[str]:
    """Calls for the numbers of columns that most tiles have: loops over a constant number of them are faster."""
    if not isinstance(columns, int):
        return [f"if (columns == TILE_COLUMNS) {name}_of({given}, TILE_COLUMNS);", f"else {name}_of({given}, columns);"]
    return [
        f"if (columns == USUAL_COLUMNS({columns})) {name}_of({given}, USUAL_COLUMNS({columns}));",
        f"else if (columns == LAST_COLUMNS({columns})) {name}_of({given}, LAST_COLUMNS({columns}));",
        f"else {name}_of({given}, columns);",
    ]


# The calls ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredOperand:
    """An operand of a product in memory."""

    array: Array
    swapped: bool = False  # whether the last two axes of its type are swapped in memory


def pointer(operand: StoredOperand) -> str:
    kind = ARRAY_TYPES[operand.array.type.dtype]
    return f"(const {kind} *)(s->arena + {operand.array.place})"


def product_lines(call: RegionCall, node: Node, operands: Sequence[StoredOperand], suffix: str) -> list[str]:
    """The call for a matrix product. Batches whose operands repeat along some of several axes are in loops."""
    (a, b), shape = operands, node.result.type.shape
    outer, inner = batch_axes_of(node)
    starts, strides = [], []
    for operand, value in zip(operands, node.operands, strict=True):
        leading = (1,) * (len(shape) - value.type.rank) + value.type.shape
        strides.append(0 if all(dim == 1 for dim in leading[len(outer) : -2]) else elements(leading[-2:]))
        moved = [f" + b{axis} * ({elements(leading[axis + 1 :])})" for axis in range(len(outer)) if leading[axis] != 1]
        starts.append(pointer(operand) + "".join(moved))
    m, n = (size_of(dim) for dim in shape[-2:])
    k = size_of(node.operands[0].type.shape[-1])
    (a_row, a_step), (b_step, b_column) = ((1, m) if a.swapped else (k, 1)), ((1, k) if b.swapped else (n, 1))
    lines = [
        f"const Product{suffix} product = {{",
        f"{INDENT}.batch = {elements(inner)}, .rows = {m}, .columns = {n}, .depth = {k},",
        f"{INDENT}.a = {starts[0]}, .a_batch = {strides[0]}, .a_row = {a_row}, .a_step = {a_step},",
        f"{INDENT}.b = {starts[1]}, .b_batch = {strides[1]}, .b_step = {b_step}, .b_column = {b_column},",
        "};",
    ]
    if not outer:
        return [*lines, f"multiply{suffix}(s, &product, {call.name}_tile);"]
    e = CElements(call, Indices())
    e.write("Step here = *s;")
    e.write(f"{OUTER.replace('s->', 'here.')} = -1;")
    with ExitStack() as loops:
        for axis, dim in enumerate(outer):
            loops.enter_context(e.over(f"b{axis}", 0, size_of(dim)))
        for line in [*lines, f"++{OUTER.replace('s->', 'here.')};"]:
            e.write(line)
        e.write(f"multiply{suffix}(&here, &product, {call.name}_tile);")
        e.write("barrier(s);")
    return e.lines


def batch_axes_of(node: Node) -> tuple[Shape, Shape]:
    """The batch axes to loop over, and those that are one: along them each operand repeats fully or not at all."""
    if node.op.name != "matmul":
        return (), ()
    batch = node.result.type.shape[:-2]
    leading = [(1,) * (len(batch) + 2 - value.type.rank) + value.type.shape[:-2] for value in node.operands]
    first = len(batch)
    while first > 0:
        own = [shape[first - 1 :] for shape in leading]
        if not all(shape == batch[first - 1 :] or all(dim == 1 for dim in shape) for shape in own):
            break
        first -= 1
    return batch[:first], batch[first:]


def image_lines(call: RegionCall, node: Node, operands: Sequence[StoredOperand], suffix: str) -> list[str]:
    """The call for a convolution or one of its adjoints."""
    x, w, y = image_shapes(node)
    sizes: dict[str, Coordinate] = dict(zip("NHWC", map(size_of, x), strict=True))
    sizes |= {"F": size_of(w[3]), "KH": size_of(w[0]), "KW": size_of(w[1]), "OH": size_of(y[1]), "OW": size_of(y[2])}
    (sizes["pad_top"], _), (sizes["pad_left"], _) = node.attributes["padding"]
    for name in ("stride", "dilation"):
        sizes[f"{name}_y"], sizes[f"{name}_x"] = node.attributes[name]
    sizes["groups"] = node.attributes["groups"]
    fields = ", ".join(f".{name} = {size}" for name, size in sizes.items())
    template = TEMPLATES[node.op.name]
    return [
        f"const Convolution convolution = {{{fields}}};",
        f"{template}{suffix}(s, &convolution, {pointer(operands[0])}, {pointer(operands[1])}, {call.name}_tile);",
    ]


def image_shapes(node: Node) -> tuple[Shape, Shape, Shape]:
    """The shapes of images, filters and results of a convolution, or of the one whose adjoint a node is."""
    first, second, result = (value.type.shape for value in (*node.operands, node.result))
    return {
        "conv2d": (first, second, result),
        "conv2d_input_grad": (result, second, first),
        "conv2d_filter_grad": (first, result, second),
    }[node.op.name]
