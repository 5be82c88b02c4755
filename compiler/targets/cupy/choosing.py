"""Which kernel a region becomes: a map, a reduction, or a convolution with functions of its elements."""

from __future__ import annotations

import re

from compiler.ir.graph import Graph, Node
from compiler.ir.op import CONVOLUTION
from compiler.ir.types import TensorType
from compiler.targets.c_text.elements import Elements
from compiler.targets.c_text.indices import Indices, squeezed
from compiler.targets.c_text.scalars import C_TYPES
from compiler.targets.cupy import convolutions
from compiler.targets.cupy.calls import DeviceKernel, Launch, constant_names, named_index
from compiler.targets.cupy.convolutions import Epilogue, product_kernel
from compiler.targets.cupy.maps import map_kernel
from compiler.targets.cupy.reductions import reduction_kernel
from compiler.targets.cupy.regions import is_convolution_with_epilogue, reduction_of


def device_kernel(launch: Launch) -> DeviceKernel:
    """The kernel of a region. If it is not a reduction of one shape, it is a map, whose threads reduce alone."""
    if is_convolution_with_epilogue(launch.body):
        return convolution_kernel(launch)
    reduction = reduction_of(launch.body.nodes, launch.body.outputs)
    return map_kernel(launch) if reduction is None else reduction_kernel(launch, reduction)


def scratch_of(body: Graph) -> TensorType | None:
    """The scratch space that the kernel of a region needs."""
    if is_convolution_with_epilogue(body):
        return convolutions.scratch_of(convolution_of(body))
    reduction = reduction_of(body.nodes, body.outputs)
    return reduction.scratch if reduction else None


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
    functions = "".join(f"{name} + " for name in constant_names(lines))
    arguments = [read[value].argument for value in node.operands]
    arguments += [array.argument for array in (*others, *written)]
    arguments += [launch.scratch] if kernel.scratch else []
    return DeviceKernel(
        launch.name,
        [
            f'{launch.name} = RawKernel(CONVOLUTIONS + {functions}r"""',
            *kernel.text.splitlines(),
            f'""", "{launch.name}")',
        ],
        f"{launch.name}({kernel.grid}, {kernel.block}, ({', '.join([*arguments, 'np.int32(B)'])}))",
    )
