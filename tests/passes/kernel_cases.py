"""Examples of the pass that makes kernels: before, after, and what it leaves alone. `test_passes.py` runs them."""

from __future__ import annotations

from compiler.passes.kernels import make_kernels

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
# A path through a product keeps apart what it leads to; sums over different axes are different loops.
NOT_AT_ONCE = """
graph g(%x: f32[B,50,8] input, %y: f32[B,9] input, %w: f32[8,8] param) {
  %0: f32[B,50,8] = exp(%x)
  %1: f32[B,50,8] = matmul(%0, %w)
  %2: f32[B,50,8] = add(%0, %1)
  %3: f32[B] = sum(%y, axes=[1], keepdims=false)
  %4: f32[9] = sum(%y, axes=[0], keepdims=false)
  return a=%2, b=%3, c=%4
}"""

KERNEL_CASES = {"kernels": (make_kernels, APART, AFTER, NOT_AT_ONCE)}
