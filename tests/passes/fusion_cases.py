"""Examples of the passes that fuse: before, after, and near misses. `test_passes.py` runs them."""

from __future__ import annotations

from compiler.passes.sums_of_products import sum_products
from compiler.targets.numpy.regions import fuse

# A dense layer with its gradient of the bias: the sum over the batch is in the region, the product is not.
DENSE = """
graph g(%x: f32[B,784] input, %w: f32[784,2048] param, %b: f32[2048] param) {
  %0: f32[B,2048] = matmul(%x, %w)
  %1: f32[B,2048] = add(%0, %b)
  %2: f32[B,2048] = max(%1, 0.0)
  %3: f32[2048] = sum(%2, axes=[0], keepdims=false)
  return y=%2, s=%3
}"""
TILED = """
graph g(%x: f32[B,784] input, %w: f32[784,2048] param, %b: f32[2048] param) {
  %0: f32[B,2048] = matmul(%x, %w)
  %1: f32[B,2048], %2: f32[2048] = fused(%0, %b, step=1024, body=graph body(%x0: f32[B,2048], %x1: f32[2048]) {
    %0: f32[B,2048] = add(%x0, %x1)
    %1: f32[B,2048] = max(%0, 0.0)
    %2: f32[2048] = sum(%1, axes=[0], keepdims=false)
    return y0=%1, y1=%2
  })
  return y=%1, s=%2
}"""
# Too little work to divide: 128 examples of 512 numbers; an op that needs all of a divided tensor; a random draw.
APART = """
graph g(%x: f32[B,512] input, %b: f32[512] param, %w: f32[512,8192] param, %seed: i64[] counter) {
  %0: f32[B,512] = add(%x, %b)
  %1: f32[B,512] = exp(%0)
  %2: f32[B,8192] = matmul(%1, %w)
  %3: f32[B] = reduce_max(%2, axes=[1], keepdims=false)
  %4: f32[B,8192] = random(%seed, 0, shape=[B,8192], distribution="uniform", stream=1)
  return y=%1, z=%3, r=%4
}"""
MULTIPLIED = """
graph g(%x: f32[B,3] input, %y: f32[B,3] input, %b: f32[3] input) {
  %0: f32[B,3] = mul(%x, %y)
  %1: f32[3] = sum(%0, axes=[0], keepdims=false)
  return s=%1
}"""
SUMMED = """
graph g(%x: f32[B,3] input, %y: f32[B,3] input, %b: f32[3] input) {
  %0: f32[B,3] = mul(%x, %y)
  %1: f32[3] = sum_of_products(%x, %y, axes=[0])
  return s=%1
}"""
# Read by another node; not of the shape of its factors.
STILL_NEEDED = """
graph g(%x: f32[B,3] input, %y: f32[B,3] input, %b: f32[3] input) {
  %0: f32[B,3] = mul(%x, %y)
  %1: f32[3] = sum(%0, axes=[0], keepdims=false)
  %2: f32[B,3] = mul(%x, %b)
  %3: f32[B] = sum(%2, axes=[1], keepdims=false)
  return p=%0, s=%1, t=%3
}"""

FUSION_CASES = {
    "fusion": (fuse, DENSE, TILED, APART),
    "sums-of-products": (sum_products, MULTIPLIED, SUMMED, STILL_NEEDED),
}
