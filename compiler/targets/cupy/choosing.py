"""Which kernel a region becomes: a map, a reduction, or a convolution with what is computed of its elements."""

from __future__ import annotations

import re

from compiler.ir.graph import Graph, Node
from compiler.ir.types import TensorType
from compiler.targets.c_text.elements import Elements
from compiler.targets.c_text.indices import Indices
from compiler.targets.c_text.scalars import C_TYPES
from compiler.targets.cupy import convolutions
from compiler.targets.cupy.calls import Call, DeviceKernel, constant_names, named_index
from compiler.targets.cupy.convolutions import Epilogue, product_kernel
from compiler.targets.cupy.maps import map_kernel
from compiler.targets.cupy.reductions import reduction_kernel
from compiler.targets.cupy.regions import CONVOLUTIONS, is_convolution_with_epilogue, reduction_of, squeezed


def device_kernel(call: Call) -> DeviceKernel:
    """The kernel of a region. What is no reduction of one shape is a map, whose threads add up alone."""
    if is_convolution_with_epilogue(call.body):
        return convolution_kernel(call)
    reduction = reduction_of(call.body.nodes, call.body.outputs)
    return map_kernel(call) if reduction is None else reduction_kernel(call, reduction)


def scratch_of(body: Graph) -> TensorType | None:
    """The scratch space that the kernel of a region needs."""
    if is_convolution_with_epilogue(body):
        return convolutions.scratch_of(convolution_of(body))
    reduction = reduction_of(body.nodes, body.outputs)
    return reduction.scratch if reduction else None


def convolution_of(body: Graph) -> Node:
    return next(node for node in body.nodes if node.op.name in CONVOLUTIONS)


def convolution_kernel(call: Call) -> DeviceKernel:
    """A convolution, and statements for each of its elements: `value` at the index `i` of its result."""
    node = convolution_of(call.body)
    read, written = call.parameters()
    indices = Indices()
    e = Elements(call.body, {value: array.name for value, array in read.items()}, indices)
    e.taken |= {array.name for array in written}
    e.reduced[node.result] = "value"
    shape = squeezed(node.result.type.shape)
    named = named_index(indices, shape, "i")
    stores = []
    for value, array in zip(call.body.outputs.values(), written, strict=True):
        stores.append(f"{array.name}[i] = {e.at(value, indices.reshaped(named.index, shape, value.type.shape))};")
    lines = [*named.used_in([*e.lines, *stores]), *e.lines, *stores]
    words = set(re.findall(r"\w+", "\n".join(lines)))
    others = [array for array in read.values() if array.name in words]
    parameters = [(f"const {C_TYPES[array.type.dtype]}*", array.name) for array in others]
    parameters += [(f"{C_TYPES[array.type.dtype]}*", array.name) for array in written]
    kernel = product_kernel(node, call.name, Epilogue("\n".join(lines), tuple(parameters)))
    functions = "".join(f"{name} + " for name in constant_names(lines))
    arguments = [read[value].argument for value in node.operands]
    arguments += [array.argument for array in (*others, *written)]
    arguments += [call.scratch] if kernel.scratch else []
    return DeviceKernel(
        call.name,
        [f'{call.name} = RawKernel(CONVOLUTIONS + {functions}r"""', *kernel.text.splitlines(), f'""", "{call.name}")'],
        f"{call.name}({kernel.grid}, {kernel.block}, ({', '.join([*arguments, 'np.int32(B)'])}))",
    )
