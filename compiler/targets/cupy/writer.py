"""CuPy source for planned graphs: the kernels, and for each graph a function as in shared/writer.py.

dense_1 = ElementwiseKernel("raw float32 v0, raw float32 dense_1_b", "raw float32 v1", r\"\"\"…\"\"\", "dense_1")

def bind_train_step(arena, B):
    v0 = view(arena, 401408, np.float32, (B, 512))       views of the arena, with axes as in the model
    def run():
        # models/mlp.nn:6:8 dense_1
        matmul(image, dense_1_w, out=v0)                 cuBLAS
        dense_1(v0, dense_1_b, v1, size=B * 512)         a region, or an op outside regions

`run` allocates nothing and does nothing on the host, so all its launches can be captured into one CUDA graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property, partial

from compiler.diagnostics import UserError
from compiler.ir.graph import Graph, Literal, Node, Value
from compiler.ir.op import CONVOLUTION
from compiler.planning.memory import Plan
from compiler.planning.program import PlacedVariable
from compiler.targets.c_text.elements import is_elemental
from compiler.targets.c_text.regions import is_convolution_with_epilogue, reduction_of
from compiler.targets.c_text.scalars import DEVICE_FUNCTIONS
from compiler.targets.cupy.calls import DeviceKernel, Launch
from compiler.targets.cupy.convolutions import convolution_kernel
from compiler.targets.cupy.maps import map_kernel
from compiler.targets.cupy.reductions import reduction_kernel
from compiler.targets.cupy.regions import DeviceReduction
from compiler.targets.shared.names import Names, comment
from compiler.targets.shared.regions import body_of
from compiler.targets.shared.writer import GraphWriter, Ticks, functions_of

HEADER = (
    "import numpy as np",
    "",
    "from runtime.gpu.cuda import ElementwiseKernel, RawKernel, copy, matmul, steps, together, view",
)
# Names that the source itself uses, besides those of every target.
RESERVED = {
    *("CONVOLUTIONS", "ElementwiseKernel", "RawKernel", "copy", "matmul", "steps", "together"),
    *(name.upper() for name in DEVICE_FUNCTIONS),
}


def cannot_run(node: Node) -> UserError:
    """The error for an op without a kernel: one of those that only initializers use, which run on the host."""
    what = f"{node.attributes['distribution']} random numbers" if node.op.name == "random" else node.op.name
    message = f"{what} cannot be computed on a GPU"
    hint = "uniform random numbers" if node.op.name == "random" else "an op that is not only for initial values"
    return UserError.plain(f"{message}{f' ({node.origin})' if node.origin else ''}", expected=hint, found=what)


def device_kernel(launch: Launch) -> DeviceKernel:
    """The kernel of a region. If it is not a reduction of one shape, it is a map, whose threads reduce alone."""
    if is_convolution_with_epilogue(launch.body):
        return convolution_kernel(launch)
    reduction = reduction_of(launch.body.nodes, launch.body.outputs, DeviceReduction)
    return map_kernel(launch) if reduction is None else reduction_kernel(launch, reduction)


def generate(
    title: str, plans: Sequence[Plan], variables: Sequence[PlacedVariable], ticks: Mapping[str, Ticks] | None = None
) -> str:
    """The module's source; arguments as for `generate` of NumPy."""
    kernels, kernel_names = [], Names(RESERVED)
    functions = functions_of(partial(CupyWriter, kernels, kernel_names), plans, variables, ticks)
    text = "\n".join(line for kernel in kernels for line in kernel.definition)
    constants = [
        line
        for name, source in DEVICE_FUNCTIONS.items()
        if name.upper() in text
        for line in ("", f'{name.upper()} = r"""', *source.split("\n"), '"""')
    ]
    definitions = [line for kernel in kernels for line in ("", *kernel.definition)]
    header = [comment(title), "", *HEADER]
    header += ["from runtime.gpu.gemm import CONVOLUTIONS"] if "(CONVOLUTIONS +" in text else []
    header += ["from runtime.gpu.cuda import DeviceClock", "", "clock = DeviceClock()"] if ticks else []
    return "\n".join([*header, *constants, *definitions, *functions]) + "\n"


class CupyWriter(GraphWriter):
    """Writes the function of one graph, and the kernels that it launches."""

    STEPS, TOGETHER = "steps", "together"

    def __init__(
        self, kernels: list[DeviceKernel], kernel_names: Names, plan: Plan, variables: Mapping[str, int], ticks: Ticks
    ):
        super().__init__(plan, variables, Names(RESERVED), ticks=ticks)
        self.kernels, self.kernel_names = kernels, kernel_names

    def copy(self, out: str, source: str) -> str:
        return f"copy({out}, {source})"

    def statements(self, node: Node, arguments: Sequence[str]) -> list[str]:
        if all(0 in result.type.shape for result in node.results):
            return ["pass"]
        if node.op.name == "matmul" and node.result.type.is_float:
            return [f"matmul({', '.join(arguments)}, out={self.of[node.result]})"]
        if not is_elemental(node) and CONVOLUTION not in node.op.traits:
            raise cannot_run(node)
        given = [each for each, value in zip(arguments, node.operands, strict=True) if not isinstance(value, Literal)]
        return [self.launch(node, body_of(node), given)]  # numbers are inside the kernel

    def write_region(self, node: Node, note: str, depth: int) -> str:
        """Writes the launch of a kernel for a region. The kernel's name."""
        note = f"{note.partition(' = ')[0]} = fused(...)"
        if all(0 in result.type.shape for result in node.results):
            self.write(f"pass  {note}", depth)
            return "nothing"
        arguments = [self.show(operand) for operand in node.operands]
        self.write(f"{self.launch(node, node.body, arguments)}  {note}", depth)
        return self.kernels[-1].name

    def launch(self, node: Node, body: Graph, arguments: Sequence[str]) -> str:
        """Defines a kernel and returns the statement that launches it."""
        results = [self.of[result] for result in node.results]
        call = Launch(self.kernel_name(node, body), body, arguments, results, self.scratch(node))
        kernel = device_kernel(call)
        self.kernels.append(kernel)
        return kernel.call

    def kernel_name(self, node: Node, body: Graph) -> str:
        """The layer or line that most of the body belongs to, and the direction; unlike the name of any tensor."""
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
