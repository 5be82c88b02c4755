"""The kernels that generated NumPy code calls if one ufunc is not enough.

Images are [N, H, W, C] in any memory layout; kernels are fast if the batch is innermost and channels are outermost.
`out` is written and, unless a kernel says so, never read; `scratch` is space that the caller provides for the call.
Unless a kernel says so, it allocates nothing as large as a tensor: sums allocate a small share of their operand.
Kernels divide their work over threads, unless they already run in one of a group (runtime/cpu/threads.py).
"""

# ruff: noqa: F401  these are the kernels, which generated code may call (runtime/allowed.py)

from runtime.cpu.kernels.basic import (
    argmax,
    check_index,
    clip,
    gather,
    iota,
    orthogonalize,
    random,
    scatter_add,
    select_or_zero,
    sigmoid,
    steps,
    view,
)
from runtime.cpu.kernels.convolution import conv2d, conv2d_filter_grad, conv2d_input_grad
from runtime.cpu.kernels.depthwise import (
    depthwise_conv2d,
    depthwise_conv2d_by_taps,
    depthwise_conv2d_filter_grad,
    depthwise_conv2d_filter_grad_by_taps,
    depthwise_conv2d_input_grad,
    depthwise_conv2d_input_grad_by_taps,
)
from runtime.cpu.kernels.normal import erf, normal_cdf
from runtime.cpu.kernels.pooling import max_pool2d, max_pool2d_route, max_pool2d_with_index
from runtime.cpu.kernels.products import matmul
from runtime.cpu.kernels.sums import sum_of_products, total
from runtime.cpu.kernels.windows import fold, patches
from runtime.cpu.threads import together
