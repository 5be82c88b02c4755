"""The table of primitive ops: everything the compiler knows about tensors; the rest is written in the language.

elementwise, with NumPy broadcasting, operands of one dtype
    add sub mul max min (x, y)   div pow (x, y)   neg abs sign floor (x)      arithmetic
    exp log sqrt tanh erf sin cos (x)                                         functions of floats
    lt le eq (x, y) -> bool   and or (x, y)   not (x)   select(condition, a, b)
    clip(x, low, high)   cast(x, dtype)   stop_gradient(x)   copy(x)
reductions       sum(x, axes, keepdims)   reduce_max(x, axes, keepdims)   argmax(x, axis) -> i32
                 sum_of_products(a, b, axes)
shapes           reshape(x, shape)   transpose(x, permutation)   broadcast(x, shape)   concat(*xs, axis)
                 slice(x, start, stop, step)   pad(x, low, high, interior, value)   flip(x, axes)
                 extent(factor, power) -> f32[], factor * B**power
linear           matmul(a, b)
convolution      conv2d(x, w, stride, padding, dilation, groups)
                 conv2d_input_grad(dy, w, input_size, …)   conv2d_filter_grad(x, dy, kernel, …)
pooling          max_pool2d(x, window, stride, padding)   max_pool2d_grad(x, dy, …)
                 max_pool2d_with_index(x, …) -> y, index   max_pool2d_route(index, dy, input_size, …)
                 patches(x, window, stride, padding, dilation)   fold(p, input_size, …)
indexing         iota(size) -> i32   gather(table, indices)   scatter_add(indices, updates, size)
randomness       random(seed, step, shape, distribution, stream)   orthogonalize(x)
control          scan(*carries, *sequences, *constants, carries, sequences, reverse, body)
                 fused(*operands, step, body)
"""

from compiler.ir.op import Op
from compiler.ops import (
    control,
    convolution,
    elementwise,
    fusion,
    indexing,
    linear,
    pooling,
    randomness,
    reductions,
    shapes,
)

GROUPS = (elementwise, reductions, shapes, linear, convolution, pooling, indexing, randomness, control, fusion)

OPS: dict[str, Op] = {op.name: op for group in GROUPS for op in group.OPS}

assert len(OPS) == sum(len(group.OPS) for group in GROUPS), "two ops of one name"
