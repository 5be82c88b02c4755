"""Convolutions and their gradients as CUDA kernels: hand-written products of runtime/gpu/*.cu with the sizes of a node.

    conv2d                y [places, filters] = windows of x [places, taps * channels] @ w
    conv2d_input_grad     dx [places, channels] = windows of dy [places, taps * filters] @ turned w
    conv2d_filter_grad    dw [taps * channels, filters] = turned windows of x @ dy [places, filters]

A place is a position of the window in one of the images. The matrices of windows are never created. The text of a
kernel is a struct of constants and a call; `runtime.gpu.gemm.CONVOLUTIONS` goes before it. All sizes except the batch
are constants, so dividing by them is cheap. If each channel is a group, threads compute elements without a matrix
product. A long sum is split among blocks; results do not depend on the order in which blocks run.

Tiles are chosen with a cost model of a GPU with 132 processors; they give correct results on any GPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import isqrt

from compiler.ir.graph import Graph, Node
from compiler.ir.op import CONVOLUTION
from compiler.ir.types import BYTES, Dim, TensorType
from compiler.ops.convolution import is_depthwise, sizes_of
from compiler.targets.c_text.elements import Elements
from compiler.targets.c_text.indices import Indices, named_index, squeezed
from compiler.targets.c_text.scalars import C_TYPES
from compiler.targets.cupy.calls import DeviceKernel, Launch, constant_names, raw_kernel
from compiler.targets.cupy.regions import THREADS

KernelParameter = tuple[str, str]  # C type and name


@dataclass(frozen=True)
class Epilogue:
    """What happens to each element: C++ that reads `value`, its index `i` in reading order and its channel `c`."""

    text: str
    parameters: tuple[KernelParameter, ...]  # arrays that it reads and writes


@dataclass(frozen=True)
class ProductKernel:
    """A RawKernel: `CONVOLUTIONS + text`, called with an array for each parameter and the batch, an int32, last."""

    name: str
    parameters: tuple[KernelParameter, ...]  # x0, x1, those of the epilogue, `partial` if there is scratch, B
    text: str
    grid: str  # Python, of B
    block: str  # Python
    scratch: TensorType | None  # for partial sums; it need not be initialized


def product_kernel(node: Node, name: str, epilogue: Epilogue | None = None) -> ProductKernel:
    """The kernel of a convolution or of one of its adjoints; an empty result needs no launch.

    A kernel with scratch space may not run twice at the same time.
    """
    ctype, window, plan = C_TYPES[node.result.type.dtype], window_of(node), plan_of(node)
    epilogue = epilogue or Epilogue("y0[i] = value;", ((f"{ctype}*", "y0"),))
    operands = ((f"const {ctype}* __restrict__", "x0"), (f"const {ctype}* __restrict__", "x1"))
    partial = ((f"{ctype}*", "partial"),) if plan.scratch else ()
    parameters = (*operands, *epilogue.parameters, *partial, ("int", "B"))
    counters = [f"__device__ unsigned int {name}_counters[{plan.counters}];"] if plan.counters else []
    room = [f"  alignas(16) __shared__ {ctype} room[{plan.room}];"] if plan.room else []
    arguments = ["x0", "x1", c_size(node.operands[0].type.shape[0])]
    arguments += ["room"] if plan.room else []
    if node.op.name == "conv2d_filter_grad":
        arguments += ["partial", f"{name}_counters"] if plan.counters else [f"({ctype}*)nullptr", "nullptr"]
    lines = [
        f"struct {name}_window {{",
        *(f"  static constexpr {kind} {constants};" for kind, constants in window.constants()),
        "};",
        *counters,
        f'extern "C" __global__ void __launch_bounds__({plan.threads}) {name}(',
        f"    {', '.join(f'{kind} {parameter}' for kind, parameter in parameters)}) {{",
        *room,
        f"  products::{plan.function}<{name}_window, {plan.shape}>(",
        f"      {', '.join(arguments)}, [=](long long i, int c, {ctype} value) {{",
        *(f"        {line}" for line in epilogue.text.strip().splitlines()),
        "      });",
        "}",
    ]
    text = "".join(f"{line}\n" for line in lines)
    return ProductKernel(name, parameters, text, plan.grid, f"({plan.threads},)", scratch_of(node))


def convolution_of(body: Graph) -> Node:
    return next(node for node in body.nodes if CONVOLUTION in node.op.traits)


def convolution_kernel(launch: Launch) -> DeviceKernel:
    """A convolution, with statements for each element: `value`, at the index `i` of the result."""
    node = convolution_of(launch.body)
    read, written = launch.parameters()
    indices = Indices()
    e = Elements(launch.body, {value: array.name for value, array in read.items()}, indices)
    e.used |= {array.name for array in written}
    e.reduced[node.result] = "value"
    shape = squeezed(node.result.type.shape)
    named = named_index(indices, shape, "i")
    stores = []
    for value, array in zip(launch.body.outputs.values(), written, strict=True):
        stores.append(f"{array.name}[i] = {e.at(value, indices.reshaped(named.index, shape, value.type.shape))};")
    lines = [*named.used_in([*e.lines, *stores]), *e.lines, *stores]
    words = set(re.findall(r"\w+", "\n".join(lines)))
    others = [array for array in read.values() if array.name in words]
    parameters = [(f"const {C_TYPES[array.type.dtype]}*", array.name) for array in others]
    parameters += [(f"{C_TYPES[array.type.dtype]}*", array.name) for array in written]
    kernel = product_kernel(node, launch.name, Epilogue("\n".join(lines), tuple(parameters)))
    arguments = [read[value].argument for value in node.operands]
    arguments += [array.argument for array in (*others, *written)]
    arguments += [launch.scratch] if kernel.scratch else []
    constants = ["CONVOLUTIONS", *constant_names(lines)]
    return raw_kernel(launch, constants, kernel.text.splitlines(), kernel.grid, kernel.block, arguments)


def scratch_of(node: Node) -> TensorType | None:
    """The scratch space of a node's kernel, for any batch."""
    elements = plan_of(node).scratch
    return TensorType(node.result.type.dtype, (elements,)) if elements else None


def c_size(dim: Dim) -> str:
    return str(dim) if isinstance(dim, int) or dim.factor == 1 else f"{dim.factor} * B"


# Windows --------------------------------------------------------------------------------------------------------------

FEW_CHANNELS = 8  # with fewer, adjacent elements in memory are pixels rather than channels
WORTH_SKIPPING = 0.75  # if a smaller share of taps covers pixels, steps that cover none are skipped


@dataclass(frozen=True)
class WindowAxis:
    """How a window moves along one axis of the image it reads: constants of convolution.cu."""

    size: int
    places: int
    taps: int
    scale: int
    origin: int
    step: int
    divisor: int

    def covered(self) -> int:
        """The number of pairs of a place and a tap that cover a pixel."""
        pairs = product(range(self.places), range(self.taps))
        positions = (place * self.scale + tap * self.step + self.origin for place, tap in pairs)
        return sum(p % self.divisor == 0 and 0 <= p // self.divisor < self.size for p in positions)


@dataclass(frozen=True)
class Window:
    """A window over an image: constants of convolution.cu."""

    y: WindowAxis
    x: WindowAxis
    channels: int  # of the image that is read
    depth: int  # of these, in one group
    outputs: int  # channels of the result
    filters: int  # of these, in one group
    vector: int
    images_last: bool

    @property
    def places(self) -> int:
        return self.y.places * self.x.places

    @property
    def taps(self) -> int:
        return self.y.taps * self.x.taps

    @property
    def share_covered(self) -> float:
        """The share of all pairs of a place and a tap that cover a pixel; 1 if there is none."""
        pairs = self.places * self.taps
        return self.y.covered() * self.x.covered() / pairs if pairs else 1.0

    def constants(self) -> Iterator[tuple[str, str]]:
        """C types and declarations."""
        y, x = self.y, self.x
        yield "int", f"height = {y.size}, width = {x.size}, channels = {self.channels}, depth = {self.depth}"
        yield "int", f"rows = {y.places}, columns = {x.places}, taps_y = {y.taps}, taps_x = {x.taps}"
        yield "int", ", ".join(f"{name}_y = {getattr(y, name)}" for name in ("scale", "origin", "step", "divisor"))
        yield "int", ", ".join(f"{name}_x = {getattr(x, name)}" for name in ("scale", "origin", "step", "divisor"))
        yield "int", f"outputs = {self.outputs}, filters = {self.filters}, vector = {self.vector}"
        by_channel = self.vector > 1 or self.depth >= FEW_CHANNELS
        flags = {"bordered": self.share_covered < 1, "images_last": self.images_last, "by_channel": by_channel}
        yield "bool", ", ".join(f"{name} = {str(flag).lower()}" for name, flag in flags.items())


def window_of(node: Node) -> Window:
    (_, *image, channels), (*kernel, depth, outputs), (_, *output, _) = sizes_of(node)
    groups, stride, dilation, padding = (node.attributes[a] for a in ("groups", "stride", "dilation", "padding"))
    filters, backward = outputs // groups, node.op.name == "conv2d_input_grad"
    if backward:
        channels, depth, outputs, filters = outputs, filters, channels, depth
    axis = axis_of_adjoint if backward else axis_of_convolution
    before = [sides[0] for sides in padding]
    y, x = (axis(*sizes) for sizes in zip(image, output, kernel, stride, dilation, before, strict=True))
    vector = 1 if depth % 4 or is_depthwise(node) else 4
    window = Window(y, x, channels, depth, outputs, filters, vector, images_last=False)
    reorders = node.op.name != "conv2d_filter_grad" and not is_depthwise(node)
    return replace(window, images_last=reorders and window.share_covered < WORTH_SKIPPING)


def axis_of_convolution(image: int, output: int, taps: int, stride: int, dilation: int, before: int) -> WindowAxis:
    """Places are pixels of y, which read pixels of x."""
    return WindowAxis(image, output, taps, scale=stride, origin=-before, step=dilation, divisor=1)


def axis_of_adjoint(image: int, output: int, taps: int, stride: int, dilation: int, before: int) -> WindowAxis:
    """Places are pixels of dx, which read the pixels of dy whose windows cover them."""
    return WindowAxis(output, image, taps, scale=1, origin=before, step=-dilation, divisor=stride)


# Tiles ----------------------------------------------------------------------------------------------------------------

PROCESSORS = 132
ENOUGH_THREADS = 500 * PROCESSORS
ENOUGH_BLOCKS = 2 * PROCESSORS
THREAD_ROWS = 4
TILE_ROWS = (64, 32)
THREAD_COLUMNS = {64: 8, 48: 6, 32: 4, 24: 6, 16: 4, 8: 4}  # by the columns of a tile
LOAD = 10  # loading an element takes as long as this many multiplications
SLICES = (1, 2, 4)
MOST_LOADS = 8  # of one operand, per thread and step
FEWEST_STEPS = 8  # of a split
MOST_AT_ONCE = 16  # splits that are added in one pass; more need two


@dataclass(frozen=True)
class LaunchPlan:
    """How the work of a node is divided among blocks and threads."""

    function: str  # of convolution.cu
    shape: str  # its template arguments
    grid: str
    threads: int
    room: int = 0  # elements of shared memory
    counters: int = 0
    scratch: int = 0  # elements


@dataclass(frozen=True)
class ProductTile:
    """`products::Tile`: rows and columns of the result, values of k in a step, their slices, splits of the sum."""

    rows: int
    columns: int
    depth: int
    slices: int = 1
    splits: int = 1

    @property
    def threads(self) -> int:
        return self.rows * self.columns // (THREAD_ROWS * THREAD_COLUMNS[self.columns]) * self.slices

    @property
    def room(self) -> int:
        return max(2 * self.depth * (self.rows + self.columns + 2), self.rows * (self.columns + 4))

    @property
    def work(self) -> int:
        """For one value of k."""
        return self.rows * self.columns + LOAD * (self.rows + self.columns)

    def count(self, rows: int, columns: int) -> int:
        """The number of tiles of a result."""
        return -(-rows // self.rows) * -(-columns // self.columns)

    def __str__(self) -> str:
        thread_columns = THREAD_COLUMNS[self.columns]
        numbers = (self.rows, self.columns, thread_columns, self.depth, self.slices, self.splits, fan(self.splits))
        return f"products::Tile<{', '.join(map(str, numbers))}>"


def plan_of(node: Node) -> LaunchPlan:
    if is_depthwise(node):
        return depthwise_filter_plan(node) if node.op.name == "conv2d_filter_grad" else depthwise_plan(node)
    return filter_plan(node) if node.op.name == "conv2d_filter_grad" else place_plan(node)


def place_plan(node: Node) -> LaunchPlan:
    """A convolution, or its adjoint in x: the rows of tiles are places."""
    window, (images, *_) = window_of(node), sizes_of(node)[0]
    groups, depth, places = node.attributes["groups"], step_depth(node, window.taps * window.depth), window.places
    tile = best_tile(images * places, window.filters, depth, groups)
    tile = with_slices(tile, tile.count(images * places, window.filters) * groups, window.vector)
    rows = blocks(node.operands[0].type.shape[0], places, tile.rows)
    grid = f"({rows}, {-(-window.filters // tile.columns)}, {groups})"
    return LaunchPlan(node.op.name, str(tile), grid, tile.threads, tile.room)


def filter_plan(node: Node) -> LaunchPlan:
    """The gradient of filters: the rows of tiles are taps and channels, and the sum over places is split."""
    window, (images, *_) = window_of(node), sizes_of(node)[0]
    groups, rows, places = node.attributes["groups"], window.taps * window.depth, images * window.places
    tile = min(tiles(step_depth(node, places)), key=lambda tile: tile.count(rows, window.filters) * tile.work)
    count = tile.count(rows, window.filters) * groups
    tile = replace(tile, splits=splits(count, places // (tile.depth * FEWEST_STEPS)))
    tile = with_slices(tile, count * tile.splits, window.vector)
    grid = f"({-(-rows // tile.rows)}, {-(-window.filters // tile.columns)}, {groups * tile.splits})"
    sums = count * tile.splits if tile.splits > 1 else 0
    elements = -(-tile.rows * tile.columns // tile.threads) * tile.threads
    return LaunchPlan(node.op.name, str(tile), grid, tile.threads, tile.room, sums, sums * elements)


def step_depth(node: Node, depth: int) -> int:
    """The number of values of k in shared memory at a time."""
    return 16 if depth <= 16 or node.result.type.dtype == "f64" else 32


def tiles(depth: int) -> Iterator[ProductTile]:
    return (ProductTile(rows, columns, depth) for rows in TILE_ROWS for columns in THREAD_COLUMNS)


def best_tile(rows: int, columns: int, depth: int, groups: int) -> ProductTile:
    """The tile with the least work for the busiest processor."""

    def work(tile: ProductTile) -> int:
        return -(-tile.count(rows, columns) * groups // PROCESSORS) * tile.work

    return min(tiles(depth), key=work)


def with_slices(tile: ProductTile, count: int, vector: int) -> ProductTile:
    """The tile with the fewest slices that give all processors enough threads, and no thread too much to load."""
    found = [replace(tile, slices=slices) for slices in SLICES]
    loads = tile.rows * tile.depth // vector
    enough = (t for t in found if count * t.threads >= ENOUGH_THREADS and loads <= t.threads * MOST_LOADS)
    return next(enough, found[-1])


def splits(count: int, most: int) -> int:
    """The number of blocks that share the sums of each of `count` tiles."""
    return max(1, min(round(ENOUGH_BLOCKS / count), most))


def fan(splits: int) -> int:
    """The number of splits that are added in one pass."""
    return splits if splits <= MOST_AT_ONCE else isqrt(splits - 1) + 1


def blocks(images: Dim, elements: int, size: int) -> str:
    """The number of blocks of `size` for this many elements of each image, as Python."""
    if isinstance(images, int):
        return str(-(-images * elements // size))
    elements *= images.factor
    if elements % size:
        return f"(B * {elements} + {size - 1}) // {size}"
    return "B" if elements == size else f"B * {elements // size}"


# Depthwise ------------------------------------------------------------------------------------------------------------

CHANNELS_OF_BLOCK = 32
ROOM_BYTES = 48 * 1024  # of shared memory that every kernel may use
FEWEST_PLACES = 4  # per thread


def depthwise_plan(node: Node) -> LaunchPlan:
    """A thread for each element."""
    window = window_of(node)
    sharing = window.filters if node.op.name == "conv2d" else 1
    grid = f"({blocks(node.operands[0].type.shape[0], window.places * window.outputs, THREADS)},)"
    return LaunchPlan("depthwise", str(sharing), grid, THREADS)


def depthwise_filter_plan(node: Node) -> LaunchPlan:
    """A block for some channels and some of the places; each thread sums for all taps."""
    window, (images, *_) = window_of(node), sizes_of(node)[0]
    room = ROOM_BYTES // BYTES[node.result.type.dtype]
    across = min(window.outputs, CHANNELS_OF_BLOCK, max(1, room // window.taps))
    down, count = THREADS // across, -(-window.outputs // across)
    parts = splits(count, images * window.places // (down * FEWEST_PLACES))
    sums = count * parts if parts > 1 else 0
    elements = -(-window.taps * across // (across * down)) * across * down
    shape = f"{window.filters}, {across}, {down}, {parts}, {fan(parts)}"
    grid, threads = f"({count}, {parts})", across * down
    return LaunchPlan("depthwise_filter_grad", shape, grid, threads, window.taps * across, sums, sums * elements)
