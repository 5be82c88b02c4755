"""Examples of the pass `regions` of target c: before, after, and near misses. `test_passes.py` runs them."""

from __future__ import annotations

from compiler.targets.c.grouping import regions

# A product with its bias; the update of its weight, after it was read; a shifted image that two regions compute.
APART = """
graph g(%x: f32[B,10] input, %w: f32[10,6] param, %b: f32[6] param, %z: f32[B,24,24,24] input, %m: f32[24] param) {
  %0: f32[B,6] = matmul(%x, %w)
  %1: f32[B,6] = add(%0, %b)
  %2: f32[6] = sum(%1, axes=[0], keepdims=false)
  %3: f32[10,B] = transpose(%x, permutation=[1,0])
  %4: f32[10,6] = matmul(%3, %1)
  %5: f32[10,6] = sub(%w, %4)
  %6: f32[B,24,24,24] = add(%z, %m)
  %7: f32[24] = sum_of_products(%6, %6, axes=[0,1,2])
  %8: f32[24] = sqrt(%7)
  %9: f32[B,24,24,24] = mul(%6, %8)
  return b=%2, w=%5, y=%9
}"""
TOGETHER = """
graph g(%x: f32[B,10] input, %w: f32[10,6] param, %b: f32[6] param, %z: f32[B,24,24,24] input, %m: f32[24] param) {
  %0: f32[B,6] = fused(%x, %w, %b, step=0, body=graph body(%x0: f32[B,10], %x1: f32[10,6], %x2: f32[6]) {
    %0: f32[B,6] = matmul(%x0, %x1)
    %1: f32[B,6] = add(%0, %x2)
    return y0=%1
  })
  %1: f32[6] = sum(%0, axes=[0], keepdims=false)
  %2: f32[10,B] = transpose(%x, permutation=[1,0])
  %3: f32[10,6] = fused(%2, %0, %w, step=0, body=graph body(%x0: f32[10,B], %x1: f32[B,6], %x2: f32[10,6]) {
    %0: f32[10,6] = matmul(%x0, %x1)
    %1: f32[10,6] = sub(%x2, %0)
    return y0=%1
  })
  %4: f32[24] = fused(%z, %m, step=0, body=graph body(%x0: f32[B,24,24,24], %x1: f32[24]) {
    %0: f32[B,24,24,24] = add(%x0, %x1)
    %1: f32[24] = sum_of_products(%0, %0, axes=[0,1,2])
    %2: f32[24] = sqrt(%1)
    return y0=%2
  })
  %5: f32[B,24,24,24] = fused(%z, %m, %4, step=0, body=graph body(%x0: f32[B,24,24,24], %x1: f32[24], %x2: f32[24]) {
    %0: f32[B,24,24,24] = add(%x0, %x1)
    %1: f32[B,24,24,24] = mul(%0, %x2)
    return y0=%1
  })
  return b=%1, w=%3, y=%5
}"""
# Elements that wait for sums over many others are computed in another region; so are operands of a product.
WAITING = """
graph g(%x: f32[B,24,24,24] input, %w: f32[24,24] param) {
  %0: f32[24] = sum(%x, axes=[0,1,2], keepdims=false)
  %1: f32[B,24,24,24] = mul(%x, %0)
  %2: f32[B,24,24,24] = matmul(%1, %w)
  return y=%2
}"""

REGION_CASES = {"regions": (regions, APART, TOGETHER, WAITING)}
