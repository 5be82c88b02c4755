"""Texts for the passes over images, as in test_passes.py: before, after, and near misses."""

from __future__ import annotations

from compiler.passes.pooling import pool_early
from compiler.targets.numpy.convolutions import lower_convolutions

POOLED_LATE = """
graph g(%x: f32[B,4,4,2] input, %b: f32[2] param, %dy: f32[B,2,2,2] input) {
  %0: f32[B,4,4,2] = exp(%x)
  %1: f32[B,4,4,2] = add(%0, %b)
  %2: f32[B,4,4,2] = max(%1, 0.0)
  %3: f32[B,2,2,2] = max_pool2d(%2, window=[2,2], stride=[2,2], padding=[[0,0],[0,0]])
  %4: f32[B,4,4,2] = max_pool2d_grad(%2, %dy, window=[2,2], stride=[2,2], padding=[[0,0],[0,0]])
  %5: bool[B,4,4,2] = lt(0.0, %1)
  %6: f32[B,4,4,2] = select(%5, %4, 0.0)
  return y=%3, dx=%6
}"""
POOLED_EARLY = """
graph g(%x: f32[B,4,4,2] input, %b: f32[2] param, %dy: f32[B,2,2,2] input) {
  %0: f32[B,4,4,2] = exp(%x)
  %1: f32[B,2,2,2], %2: u8[B,2,2,2] = max_pool2d_with_index(%0, window=[2,2], stride=[2,2], padding=[[0,0],[0,0]])
  %3: f32[B,2,2,2] = add(%1, %b)
  %4: f32[B,2,2,2] = max(%3, 0.0)
  %5: f32[B,2,2,2] = add(%1, %b)
  %6: bool[B,2,2,2] = lt(0.0, %5)
  %7: f32[B,2,2,2] = select(%6, %dy, 0.0)
  %8: f32[B,4,4,2] = max_pool2d_route(%2, %7, input_size=[4,4], window=[2,2], stride=[2,2], padding=[[0,0],[0,0]])
  return y=%4, dx=%8
}"""
READ_BEFORE_POOLING = """
graph g(%x: f32[B,4,4,2] input, %b: f32[4,1] param) {
  %0: f32[B,4,4,2] = max(%x, 0.0)
  %1: f32[B,2,2,2] = max_pool2d(%0, window=[2,2], stride=[2,2], padding=[[0,0],[0,0]])
  %2: f32[B,4,4,2] = exp(%0)
  %3: f32[B,4,4,2] = add(%x, %b)
  %4: f32[B,2,2,2] = max_pool2d(%3, window=[2,2], stride=[2,2], padding=[[0,0],[0,0]])
  %5: f32[B,4,4,2] = sub(1.0, %x)
  %6: f32[B,2,2,2] = max_pool2d(%5, window=[2,2], stride=[2,2], padding=[[0,0],[0,0]])
  return y=%1, z=%2, u=%4, v=%6
}"""

CONVOLUTIONS = """
graph g(%x: f32[B,5,5,2] input, %w: f32[3,3,2,4] param, %v: f32[1,1,2,4] param, %dy: f32[B,3,5,4] input) {
  %0: f32[B,3,5,4] = conv2d(%x, %w, stride=[2,1], padding=[[1,1],[1,1]], dilation=[1,1], groups=1)
  %1: f32[B,5,5,2] = conv2d_input_grad(%dy, %w, input_size=[5,5], stride=[2,1], padding=[[1,1],[1,1]], dilation=[1,1], groups=1)
  %2: f32[3,3,2,4] = conv2d_filter_grad(%x, %dy, kernel=[3,3], stride=[2,1], padding=[[1,1],[1,1]], dilation=[1,1], groups=1)
  %3: f32[B,5,5,4] = conv2d(%x, %v, stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1], groups=1)
  return y=%0, dx=%1, dw=%2, z=%3
}"""
LOWERED = """
graph g(%x: f32[B,5,5,2] input, %w: f32[3,3,2,4] param, %v: f32[1,1,2,4] param, %dy: f32[B,3,5,4] input) {
  %0: f32[B,7,7,2] = pad(%x, low=[0,1,1,0], high=[0,1,1,0], interior=[], value=0.0)
  %1: f32[B,3,5,4] = conv2d(%0, %w, stride=[2,1], padding=[[0,0],[0,0]], dilation=[1,1], groups=1)
  %2: f32[B,7,7,2] = conv2d_input_grad(%dy, %w, input_size=[7,7], stride=[2,1], padding=[[0,0],[0,0]], dilation=[1,1], groups=1)
  %3: f32[B,5,5,2] = slice(%2, start=[0,1,1,0], stop=[B,6,6,2], step=[1,1,1,1])
  %4: f32[B,7,7,2] = pad(%x, low=[0,1,1,0], high=[0,1,1,0], interior=[], value=0.0)
  %5: f32[3,3,2,4] = conv2d_filter_grad(%4, %dy, kernel=[3,3], stride=[2,1], padding=[[0,0],[0,0]], dilation=[1,1], groups=1)
  %6: f32[B,5,5,2] = copy(%x)
  %7: f32[5,5,B,2] = transpose(%6, permutation=[1,2,0,3])
  %8: f32[25*B,2] = reshape(%7, shape=[25*B,2])
  %9: f32[2,4] = reshape(%v, shape=[2,4])
  %10: f32[25*B,4] = matmul(%8, %9)
  %11: f32[5,5,B,4] = reshape(%10, shape=[5,5,B,4])
  %12: f32[B,5,5,4] = transpose(%11, permutation=[2,0,1,3])
  return y=%1, dx=%3, dw=%5, z=%12
}"""
DEPTHWISE = """
graph g(%x: f32[B,5,5,2] input, %w: f32[3,3,1,4] input) {
  %0: f32[B,5,5,2] = exp(%x)
  %1: f32[B,3,3,4] = conv2d(%0, %w, stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1], groups=2)
  return y=%1
}"""

IMAGE_CASES = {
    "pooling": (pool_early, POOLED_LATE, POOLED_EARLY, READ_BEFORE_POOLING),
    "convolutions": (lower_convolutions, CONVOLUTIONS, LOWERED, DEPTHWISE),
}
