"""Examples of the passes for a GPU: before, after, and near misses. `test_passes.py` runs them."""

from __future__ import annotations

from compiler.targets.cupy.grouping import make_kernels
from compiler.targets.cupy.im2col import multiply_patches
from compiler.targets.shared.index_status import note_indices

# A loss with its mean over the batch, a bias with its update, updates of two shapes, a view that two regions read.
APART = """
graph g(%x: f32[B,10] input, %w: f32[10,6] param, %b: f32[6] param, %v: f32[3,2] param, %step: i32[] counter) {
  %0: f32[B,10] = slice(%x, start=[0,0], stop=[B,10], step=[1,1])
  %1: f32[B,1] = reduce_max(%0, axes=[1], keepdims=true)
  %2: f32[B,10] = sub(%0, %1)
  %3: f32[B] = sum(%2, axes=[1], keepdims=false)
  %4: f32[] = sum(%3, axes=[0], keepdims=false)
  %5: f32[B,6] = matmul(%2, %w)
  %6: f32[B,6] = add(%5, %b)
  %7: f32[6] = sum(%6, axes=[0], keepdims=false)
  %8: f32[6] = sub(%b, %7)
  %9: f32[10,B] = transpose(%x, permutation=[1,0])
  %10: f32[10,6] = matmul(%9, %6)
  %11: f32[10,6] = sub(%w, %10)
  %12: f32[3,2] = mul(%v, 0.5)
  %13: i32[] = add(%step, 1)
  return loss=%4, b=%8, w=%11, v=%12, step=%13
}"""
AFTER = """
graph g(%x: f32[B,10] input, %w: f32[10,6] param, %b: f32[6] param, %v: f32[3,2] param, %step: i32[] counter) {
  %0: f32[B,10], %1: f32[] = fused(%x, step=0, body=graph body(%x0: f32[B,10]) {
    %0: f32[B,10] = slice(%x0, start=[0,0], stop=[B,10], step=[1,1])
    %1: f32[B,1] = reduce_max(%0, axes=[1], keepdims=true)
    %2: f32[B,10] = sub(%0, %1)
    %3: f32[B] = sum(%2, axes=[1], keepdims=false)
    %4: f32[] = sum(%3, axes=[0], keepdims=false)
    return y0=%2, y1=%4
  })
  %2: f32[B,6] = matmul(%0, %w)
  %3: f32[B,6], %4: f32[6] = fused(%2, %b, step=0, body=graph body(%x0: f32[B,6], %x1: f32[6]) {
    %0: f32[B,6] = add(%x0, %x1)
    %1: f32[6] = sum(%0, axes=[0], keepdims=false)
    %2: f32[6] = sub(%x1, %1)
    return y0=%0, y1=%2
  })
  %5: f32[10,B] = transpose(%x, permutation=[1,0])
  %6: f32[10,6] = matmul(%5, %3)
  %7: f32[10,6], %8: f32[3,2], %9: i32[] = fused(%w, %6, %v, %step, step=0, body=graph body(%x0: f32[10,6], %x1: f32[10,6], %x2: f32[3,2], %x3: i32[]) {
    %0: f32[10,6] = sub(%x0, %x1)
    %1: f32[3,2] = mul(%x2, 0.5)
    %2: i32[] = add(%x3, 1)
    return y0=%0, y1=%1, y2=%2
  })
  return loss=%1, b=%4, w=%7, v=%8, step=%9
}"""
# Nodes joined by a path through a product stay apart; sums over different axes are different loops.
NOT_AT_ONCE = """
graph g(%x: f32[B,50,8] input, %y: f32[B,9] input, %w: f32[8,8] param) {
  %0: f32[B,50,8] = exp(%x)
  %1: f32[B,50,8] = matmul(%0, %w)
  %2: f32[B,50,8] = add(%0, %1)
  %3: f32[B] = sum(%y, axes=[1], keepdims=false)
  %4: f32[9] = sum(%y, axes=[0], keepdims=false)
  return a=%2, b=%3, c=%4
}"""

CONVOLUTIONS = """
graph g(%x: f32[B,5,5,2] input, %w: f32[3,3,2,4] param, %u: f32[1,1,4,3] param, %dy: f32[B,3,3,4] input) {
  %0: f32[B,3,3,4] = conv2d(%x, %w, stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1], groups=1)
  %1: f32[B,3,3,3] = conv2d(%0, %u, stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1], groups=1)
  %2: f32[B,5,5,2] = conv2d_input_grad(%dy, %w, input_size=[5,5], stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1], groups=1)
  %3: f32[3,3,2,4] = conv2d_filter_grad(%x, %dy, kernel=[3,3], stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1], groups=1)
  return y=%1, dx=%2, dw=%3
}"""
PRODUCTS = """
graph g(%x: f32[B,5,5,2] input, %w: f32[3,3,2,4] param, %u: f32[1,1,4,3] param, %dy: f32[B,3,3,4] input) {
  %0: f32[B,3,3,3,3,2] = patches(%x, window=[3,3], stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1])
  %1: f32[9*B,18] = reshape(%0, shape=[9*B,18])
  %2: f32[18,4] = reshape(%w, shape=[18,4])
  %3: f32[9*B,4] = matmul(%1, %2)
  %4: f32[B,3,3,4] = reshape(%3, shape=[B,3,3,4])
  %5: f32[9*B,4] = reshape(%4, shape=[9*B,4])
  %6: f32[4,3] = reshape(%u, shape=[4,3])
  %7: f32[9*B,3] = matmul(%5, %6)
  %8: f32[B,3,3,3] = reshape(%7, shape=[B,3,3,3])
  %9: f32[9*B,4] = reshape(%dy, shape=[9*B,4])
  %10: f32[18,4] = reshape(%w, shape=[18,4])
  %11: f32[4,18] = transpose(%10, permutation=[1,0])
  %12: f32[9*B,18] = matmul(%9, %11)
  %13: f32[B,3,3,3,3,2] = reshape(%12, shape=[B,3,3,3,3,2])
  %14: f32[B,5,5,2] = fold(%13, input_size=[5,5], stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1])
  %15: f32[B,3,3,3,3,2] = patches(%x, window=[3,3], stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1])
  %16: f32[9*B,18] = reshape(%15, shape=[9*B,18])
  %17: f32[18,9*B] = transpose(%16, permutation=[1,0])
  %18: f32[9*B,4] = reshape(%dy, shape=[9*B,4])
  %19: f32[18,4] = matmul(%17, %18)
  %20: f32[3,3,2,4] = reshape(%19, shape=[3,3,2,4])
  return y=%8, dx=%14, dw=%20
}"""
DEPTHWISE = """
graph g(%x: f32[B,5,5,2] input, %w: f32[3,3,1,2] param) {
  %0: f32[B,3,3,2] = conv2d(%x, %w, stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1], groups=2)
  return y=%0
}"""
CHECKED = """
graph g(%x: i32[B,2] input, %y: i32[4,3] input, %t: f32[20,5] param) {
  %0: i32[B,2] = check_index(%x, size=20)
  %1: f32[B,2,5] = gather(%t, %0)
  %2: i32[4,3] = scan(%y, carries=0, sequences=1, reverse=false, body=graph body(%i: i32[3] sequence) {
    %0: i32[3] = check_index(%i, size=20)
    return y0=%0
  })
  return y=%1, z=%2
}"""
REPORTED = """
graph g(%x: i32[B,2] input, %y: i32[4,3] input, %t: f32[20,5] param) {
  %0: i64[B,2] = cast(%x, dtype="i64")
  %1: bool[B,2] = lt(%0, 0:i64)
  %2: bool[B,2] = le(20:i64, %0)
  %3: bool[B,2] = select(%1, true, %2)
  %4: i64[B,2] = sub(%0, -2147483648:i64)
  %5: i32[2*B] = iota(size=2*B)
  %6: i32[B,2] = reshape(%5, shape=[B,2])
  %7: i64[B,2] = cast(%6, dtype="i64")
  %8: i64[B,2] = sub(2147483647:i64, %7)
  %9: i64[B,2] = mul(%8, 4294967296:i64)
  %10: i64[B,2] = add(%9, %4)
  %11: i64[B,2] = select(%3, %10, 0:i64)
  %12: i64[] = reduce_max(%11, axes=[0,1], keepdims=false)
  %13: f32[B,2,5] = gather(%t, %x)
  %14: i32[4,3], %15: i64[4] = scan(%y, carries=0, sequences=1, reverse=false, body=graph body(%i: i32[3] sequence) {
    %0: i64[3] = cast(%i, dtype="i64")
    %1: bool[3] = lt(%0, 0:i64)
    %2: bool[3] = le(20:i64, %0)
    %3: bool[3] = select(%1, true, %2)
    %4: i64[3] = sub(%0, -2147483648:i64)
    %5: i64[3] = add(%4, 9223372032559808512:i64)
    %6: i64[3] = select(%3, %5, 0:i64)
    %7: i64[] = reduce_max(%6, axes=[0], keepdims=false)
    return y0=%i, check0=%7
  })
  %16: i64[] = reduce_max(%15, axes=[0], keepdims=false)
  return y=%13, z=%14, check.4786586c=%12, check.75b03aee=%16
}"""

KERNEL_CASES = {
    "index-status": (note_indices, CHECKED, REPORTED, DEPTHWISE),
    "im2col": (multiply_patches, CONVOLUTIONS, PRODUCTS, DEPTHWISE),
    "kernels": (make_kernels, APART, AFTER, NOT_AT_ONCE),
}
