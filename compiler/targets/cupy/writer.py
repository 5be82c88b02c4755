"""CuPy source for planned graphs: the kernels, and for each graph a function as in `codegen/numpy.py`.

dense_1 = ElementwiseKernel("raw float32 v0, raw float32 dense_1_b", "raw float32 v1", r\"\"\"…\"\"\", "dense_1")

def bind_train_step(arena, B):
    v0 = view(arena, 401408, np.float32, (B, 512))       views of the arena, as for NumPy; axes lie as in the model
    def run():
        # models/mlp.nn:6:8 dense_1
        matmul(image, dense_1_w, out=v0)                 cuBLAS
        dense_1(v0, dense_1_b, v1, size=B * 512)         a region, or an op outside of all regions

`run` allocates nothing and leaves the host alone, so that all that it launches can be captured into one CUDA graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

from compiler.diagnostics import UserError
from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Literal, Node, Value
from compiler.ir.types import TensorType
from compiler.planning.memory import Placement, Plan, Scratch
from compiler.planning.strides import Order, Strides, strides_in_order, view_strides
from compiler.targets.c_text.elements import is_elemental
from compiler.targets.c_text.scalars import DEVICE_FUNCTIONS
from compiler.targets.cupy.calls import Call, DeviceKernel
from compiler.targets.cupy.choosing import device_kernel, scratch_of
from compiler.targets.cupy.regions import CONVOLUTIONS, reduces
from compiler.targets.shared.names import Names, comment
from compiler.targets.shared.writer import NO_TICKS, GraphWriter, Ticks, variables_function

HEADER = (
    "import numpy as np",
    "",
    "from runtime.gpu.cuda import ElementwiseKernel, RawKernel, copy, matmul, steps, together, view",
)
NAMES = (
    "CONVOLUTIONS",
    "ElementwiseKernel",
    "RawKernel",
    "copy",
    "matmul",
    "steps",
    "together",
)  # and the device functions


# Where tensors live ---------------------------------------------------------------------------------------------------


def natural_order(node: Node, index: int, strides: Mapping[Value, Strides]) -> Order:
    """Axes lie as in the model: kernels read and write in reading order."""
    return tuple(range(node.results[index].type.rank))


def useful_view(node: Node, strides: Strides, readers: Sequence[Node | None]) -> Strides | None:
    """A view where its elements lie in reading order, and a transposed one for products, which take both ways.

    Slices are copied: kernels read in packs, which begin at multiples of their size.
    """
    if node.op.name == "slice":
        return None
    found, shape = view_strides(node, strides), node.result.type.shape
    if found == strides_in_order(shape, tuple(range(len(shape)))):
        return found
    for_products = node.op.name == "transpose" and all(reader and reader.op.name == "matmul" for reader in readers)
    rank = len(shape)
    swapped = (*range(rank - 2), rank - 1, rank - 2)
    if for_products and rank >= 2 and node.attributes["permutation"] == swapped:
        return found
    return None


def kernel_scratch(node: Node) -> Scratch | None:
    if node.op.name == "fused":
        found = scratch_of(node.body)
    else:
        found = scratch_of(body_of(node)) if reduces(node) or node.op.name in CONVOLUTIONS else None
    return Scratch(found) if found else None


PLACEMENT = Placement(kernel_scratch, natural_order, useful_view)


def body_of(node: Node) -> Graph:
    """A node as a region of its own."""
    body = Graph("body")
    builder = Builder(body)
    operands = [
        v if isinstance(v, Literal) else builder.input(f"x{i}", v.type, "") for i, v in enumerate(node.operands)
    ]
    with builder.at(node.origin):
        builder.emit(node.op.name, operands, node.attributes)
    body.outputs = {f"y{i}": result for i, result in enumerate(body.nodes[-1].results)}
    return body


def cannot_run(node: Node) -> UserError:
    """The error for an op that there is no kernel of: what initializers use, and they run on the host."""
    what = f"{node.attributes['distribution']} random numbers" if node.op.name == "random" else node.op.name
    message = f"{what} cannot be computed on a GPU"
    hint = "uniform random numbers can" if node.op.name == "random" else "it is there for initial values"
    return UserError.plain(f"{message}{f' ({node.origin})' if node.origin else ''}", expected=hint, found=what)


# The source -----------------------------------------------------------------------------------------------------------


def generate(
    title: str,
    plans: Sequence[Plan],
    variables: Sequence[tuple[str, TensorType, int]],
    ticks: Mapping[str, Ticks] | None = None,
) -> str:
    """The module's source; arguments as for `numpy.generate`."""
    ticks, offsets = ticks or {}, {name: offset for name, _, offset in variables}
    kernel_names = Names()
    kernel_names.used |= reserved()
    kernels: list[DeviceKernel] = []
    functions: list[list[str]] = []
    for plan in plans:
        writer = CupyWriter(plan, offsets, ticks=ticks.get(plan.graph.name, NO_TICKS))
        writer.kernel_names, writer.kernels = kernel_names, kernels
        writer.names.used |= reserved()
        functions.append(writer.lines())
    folded = {value.name for plan in plans for value in plan.graph.of_kind("folded")}
    functions.append(variables_function([each for each in variables if each[0] not in folded]))
    text = "\n".join(line for kernel in kernels for line in kernel.definition)
    constants = [
        line
        for name, source in DEVICE_FUNCTIONS.items()
        if name.upper() in text
        for line in ("", f'{name.upper()} = r"""', *source.split("\n"), '"""')
    ]
    definitions = [line for kernel in kernels for line in ("", *kernel.definition)]
    imports = [*HEADER, *(["from runtime.gpu.gemm import CONVOLUTIONS"] if "(CONVOLUTIONS +" in text else [])]
    header = [
        comment(title),
        "",
        *imports,
        *(["from runtime.gpu.cuda import DeviceClock", "", "clock = DeviceClock()"] if ticks else []),
    ]
    blocks = [line for function in functions for line in ("", "", *function)]
    return "\n".join([*header, *constants, *definitions, *blocks]) + "\n"


def reserved() -> set[str]:
    return {*NAMES, *(name.upper() for name in DEVICE_FUNCTIONS)}


class CupyWriter(GraphWriter):
    """Writes the function of one graph, and the kernels that it launches."""

    STEPS, TOGETHER = "steps", "together"
    kernels: list[DeviceKernel]
    kernel_names: Names

    def copy(self, out: str, source: str) -> str:
        return f"copy({out}, {source})"

    def statements(self, node: Node, arguments: Sequence[str]) -> list[str]:
        if all(0 in result.type.shape for result in node.results):
            return ["pass"]
        if node.op.name == "matmul" and node.result.type.is_float:
            return [f"matmul({', '.join(arguments)}, out={self.of[node.result]})"]
        if not is_elemental(node) and node.op.name not in CONVOLUTIONS:
            raise cannot_run(node)
        return [self.launch(node, body_of(node), self.given(node, arguments))]

    def given(self, node: Node, arguments: Sequence[str]) -> list[str]:
        """The arguments but for numbers, which are in the kernel."""
        return [each for each, value in zip(arguments, node.operands, strict=True) if not isinstance(value, Literal)]

    def write_region(self, node: Node, note: str, depth: int) -> str:
        """The launch of a kernel for a region. The kernel's name."""
        if all(0 in result.type.shape for result in node.results):
            self.write("pass", depth)
            return "nothing"
        arguments = [self.show(operand) for operand in node.operands]
        self.write(f"{self.launch(node, node.body, arguments)}  {note.partition(' = ')[0]}", depth)
        return self.kernels[-1].name

    def launch(self, node: Node, body: Graph, arguments: Sequence[str]) -> str:
        """Defines a kernel; the statement that launches it."""
        results = [self.of[result] for result in node.results]
        call = Call(self.kernel_name(node, body), body, arguments, results, self.scratch(node))
        kernel = device_kernel(call)
        self.kernels.append(kernel)
        return kernel.call

    def kernel_name(self, node: Node, body: Graph) -> str:
        """The layer, or the line, that most of it is for, and the direction; no tensor of the graph has this name."""
        origins = Counter(each.origin for each in body.nodes if each.origin) or Counter({node.origin: 1})
        origin = origins.most_common(1)[0][0]
        wanted = node.op.name if origin is None else origin.path or f"line_{origin.line}"
        if self.plan.graph.name != "train_step":
            wanted = f"{self.plan.graph.name}_{wanted}"
        elif all(result in self.updates for result in node.results):
            wanted += "_update"
        else:
            wanted += "_backward" if origin and origin.backward else "_forward"
        name = self.kernel_names.fresh(wanted)
        while name in self.names.used:
            name = self.kernel_names.fresh(wanted)
        self.names.used.add(name)
        return name

    @cached_property
    def updates(self) -> set[Value]:
        """New values of variables."""
        return {value for name, value in self.plan.graph.outputs.items() if name in self.variables}
