"""Examples of the pass simplify besides its equations: before and after, and near misses.

`test_simplify.py` runs them.
"""

from __future__ import annotations

# Text before, and after without dead code: rules that are not equations, and combinations of rules.
REWRITTEN = {
    "numbers in a chain are combined, on either side of a commutative op": (
        """
graph g(%x: f32[B,3] input, %c: f32[3] param) {
  %0: f32[B,3] = mul(0.5, %x)
  %1: f32[B,3] = mul(%0, 3.0)
  %2: f32[B,3] = mul(%c, %1)
  %3: f32[B,3] = div(%2, 4.0)
  return y=%3
}""",
        """
graph g(%x: f32[B,3] input, %c: f32[3] param) {
  %0: f32[B,3] = mul(%x, 1.5)
  %1: f32[B,3] = mul(%c, %0)
  %2: f32[B,3] = mul(%1, 0.25)
  return y=%2
}""",
    ),
    "elementwise ops broadcast implicitly": (
        """
graph g(%x: f32[B,2,3] input, %c: f32[3] param) {
  %0: f32[1,1,3] = reshape(%c, shape=[1,1,3])
  %1: f32[B,2,3] = broadcast(%0, shape=[B,2,3])
  %2: f32[B,2,3] = broadcast(0.5, shape=[B,2,3])
  %3: f32[B,2,3] = mul(%x, %1)
  %4: f32[B,2,3] = max(%3, %2)
  return y=%4
}""",
        """
graph g(%x: f32[B,2,3] input, %c: f32[3] param) {
  %0: f32[B,2,3] = mul(%x, %c)
  %1: f32[B,2,3] = max(%0, 0.5)
  return y=%1
}""",
    ),
    "repeated values are computed once": (
        """
graph g(%a: f32[3] param, %b: f32[] param) {
  %0: f32[B,3] = broadcast(%a, shape=[B,3])
  %1: f32[B,3] = broadcast(%b, shape=[B,3])
  %2: f32[B,3] = sub(%0, %1)
  %3: f32[B,3] = exp(%2)
  return y=%3
}""",
        """
graph g(%a: f32[3] param, %b: f32[] param) {
  %0: f32[3] = sub(%a, %b)
  %1: f32[3] = exp(%0)
  %2: f32[B,3] = broadcast(%1, shape=[B,3])
  return y=%2
}""",
    ),
    "views of a repeated number": (
        """
graph g(%x: f32[B,2] input, %a: f32[] param) {
  %0: f32[1] = reshape(%a, shape=[1])
  %1: f32[B] = broadcast(%0, shape=[B])
  %2: f32[B,1] = reshape(%1, shape=[B,1])
  %3: f32[B,2] = broadcast(%2, shape=[B,2])
  %4: f32[2,B] = transpose(%3, permutation=[1,0])
  %5: f32[B,2] = mul(%x, %3)
  return y=%5, z=%4
}""",
        """
graph g(%x: f32[B,2] input, %a: f32[] param) {
  %0: f32[2,B] = broadcast(%a, shape=[2,B])
  %1: f32[B,2] = mul(%x, %a)
  return y=%1, z=%0
}""",
    ),
    "views of views": (
        """
graph g(%x: f32[2,3,4] input, %c: f32[4] param) {
  %0: f32[6,4] = reshape(%x, shape=[6,4])
  %1: f32[24] = reshape(%0, shape=[24])
  %2: f32[4,2,3] = transpose(%x, permutation=[2,0,1])
  %3: f32[3,4,2] = transpose(%2, permutation=[2,0,1])
  %4: f32[3,4] = broadcast(%c, shape=[3,4])
  %5: f32[2,3,4] = broadcast(%4, shape=[2,3,4])
  %6: f32[2,3,4] = flip(%x, axes=[0,1])
  %7: f32[2,3,4] = flip(%6, axes=[0,1])
  %8: f32[2,3,4] = stop_gradient(%7)
  return u=%1, v=%3, w=%5, z=%8
}""",
        """
graph g(%x: f32[2,3,4] input, %c: f32[4] param) {
  %0: f32[24] = reshape(%x, shape=[24])
  %1: f32[3,4,2] = transpose(%x, permutation=[1,2,0])
  %2: f32[2,3,4] = broadcast(%c, shape=[2,3,4])
  return u=%0, v=%1, w=%2, z=%x
}""",
    ),
    "ops that change nothing": (
        """
graph g(%x: f32[2,3] input) {
  %0: f32[2,3] = reshape(%x, shape=[2,3])
  %1: f32[2,3] = transpose(%0, permutation=[0,1])
  %2: f32[2,3] = broadcast(%1, shape=[2,3])
  %3: f32[2,3] = cast(%2, dtype="f32")
  %4: f32[2,3] = slice(%3, start=[0,0], stop=[2,3], step=[1,1])
  %5: f32[2,3] = concat(%4, axis=1)
  %6: f32[2,3] = pad(%5, low=[0,0], high=[0,0], interior=[], value=0.0)
  %7: f32[2,3] = flip(%6, axes=[])
  %8: f32[2,3] = sum(%7, axes=[], keepdims=false)
  return y=%8
}""",
        """
graph g(%x: f32[2,3] input) {
  return y=%x
}""",
    ),
    "a slice of a concat within one part": (
        """
graph g(%x: f32[B,3] input, %y: f32[B,4] input) {
  %0: f32[B,7] = concat(%x, %y, axis=1)
  %1: f32[B,2] = slice(%0, start=[0,4], stop=[B,7], step=[1,2])
  %2: f32[B,3] = slice(%0, start=[0,0], stop=[B,3], step=[1,1])
  return a=%1, b=%2
}""",
        """
graph g(%x: f32[B,3] input, %y: f32[B,4] input) {
  %0: f32[B,2] = slice(%y, start=[0,1], stop=[B,4], step=[1,2])
  return a=%0, b=%x
}""",
    ),
    "the gradients of adjacent slices": (
        """
graph g(%a: f32[B,1] input, %b: f32[B,2] input, %c: f32[B,3] input) {
  %0: f32[B,6] = pad(%c, low=[0,3], high=[0,0], interior=[], value=0.0)
  %1: f32[B,6] = pad(%b, low=[0,1], high=[0,3], interior=[], value=0.0)
  %2: f32[B,6] = add(%0, %1)
  %3: f32[B,6] = pad(%a, low=[0,0], high=[0,5], interior=[], value=0.0)
  %4: f32[B,6] = add(%2, %3)
  return y=%4
}""",
        """
graph g(%a: f32[B,1] input, %b: f32[B,2] input, %c: f32[B,3] input) {
  %0: f32[B,6] = concat(%a, %b, %c, axis=1)
  return y=%0
}""",
    ),
    "the gradient of min(max(x, 0), 1)": (
        """
graph g(%x: f32[B,3] input, %dy: f32[B,3] input) {
  %0: f32[B,3] = max(%x, 0.0)
  %1: f32[B,3] = min(%0, 1.0)
  %2: bool[B,3] = lt(%0, 1.0)
  %3: f32[B,3] = select(%2, %dy, 0.0)
  %4: bool[B,3] = lt(0.0, %x)
  %5: f32[B,3] = select(%4, %3, 0.0)
  return y=%1, dx=%5
}""",
        """
graph g(%x: f32[B,3] input, %dy: f32[B,3] input) {
  %0: f32[B,3] = clip(%x, low=0.0, high=1.0)
  %1: bool[B,3] = lt(%x, 1.0)
  %2: bool[B,3] = lt(0.0, %x)
  %3: bool[B,3] = and(%2, %1)
  %4: f32[B,3] = select(%3, %dy, 0.0)
  return y=%0, dx=%4
}""",
    ),
    "sums move inside, in gradients": (
        """
graph g(%x: f32[B,2,3] input, %c: f32[3] param, %r: f32[2,1] param, %b: f32[B,1,1] input) {
  %0: f32[B,2,3] = neg(%x)
  %1: f32[3] = sum(%0, axes=[0,1], keepdims=false)
  %2: f32[B,2,3] = exp(%x)
  %3: f32[B,2,3] = mul(%2, %c)
  %4: f32[3] = sum(%3, axes=[0,1], keepdims=false)  // m.nn:1:1 (backward)
  %5: f32[B,2,3] = sin(%x)
  %6: f32[B,2,3] = sub(%r, %5)
  %7: f32[B,2,1] = sum(%6, axes=[2], keepdims=true)
  %8: f32[B,2,3] = cos(%x)
  %9: f32[B,2,3] = mul(%b, %8)
  %10: f32[B] = sum(%9, axes=[1,2], keepdims=false)  // m.nn:1:1 (backward)
  return u=%1, v=%4, w=%7, z=%10
}""",
        """
graph g(%x: f32[B,2,3] input, %c: f32[3] param, %r: f32[2,1] param, %b: f32[B,1,1] input) {
  %0: f32[3] = sum(%x, axes=[0,1], keepdims=false)
  %1: f32[3] = neg(%0)
  %2: f32[B,2,3] = exp(%x)
  %3: f32[3] = sum(%2, axes=[0,1], keepdims=false)  // m.nn:1:1 (backward)
  %4: f32[3] = mul(%3, %c)  // m.nn:1:1 (backward)
  %5: f32[B,2,3] = sin(%x)
  %6: f32[B,2,1] = sum(%5, axes=[2], keepdims=true)
  %7: f32[2,1] = mul(%r, 3.0)
  %8: f32[B,2,1] = sub(%7, %6)
  %9: f32[B,2,3] = cos(%x)
  %10: f32[B] = sum(%9, axes=[1,2], keepdims=false)  // m.nn:1:1 (backward)
  %11: f32[B] = reshape(%b, shape=[B])  // m.nn:1:1 (backward)
  %12: f32[B] = mul(%11, %10)  // m.nn:1:1 (backward)
  return u=%1, v=%4, w=%8, z=%12
}""",
    ),
    "factors of sums from 1 on": (
        """
graph g(%x: f32[B,3] input) {
  %0: f32[B,3] = mul(%x, -2.0)
  %1: f32[3] = sum(%0, axes=[0], keepdims=false)
  return y=%1
}""",
        """
graph g(%x: f32[B,3] input) {
  %0: f32[3] = sum(%x, axes=[0], keepdims=false)
  %1: f32[3] = mul(%0, -2.0)
  return y=%1
}""",
    ),
    "a bias and the mean after it, at once": (
        """
graph g(%x: f32[B,3] input, %p: f32[3] param) {
  %0: f32[B,3] = add(%x, %p)
  %1: f32[3] = sum(%0, axes=[0], keepdims=false)
  %2: f32[B,3] = sub(%0, %1)
  return y=%2
}""",
        """
graph g(%x: f32[B,3] input, %p: f32[3] param) {
  %0: f32[3] = sum(%x, axes=[0], keepdims=false)
  %1: f32[] = extent(factor=1, power=1)
  %2: f32[3] = mul(%p, %1)
  %3: f32[3] = add(%0, %2)
  %4: f32[3] = sub(%p, %3)
  %5: f32[B,3] = add(%x, %4)
  return y=%5
}""",
    ),
    "a sum that follows from others, in a gradient": (
        """
graph g(%x: f32[B,3] input, %y: f32[B,3] input, %c: f32[3] param) {
  %0: f32[3] = sum(%x, axes=[0], keepdims=false)
  %1: f32[3] = sum(%y, axes=[0], keepdims=false)
  %2: f32[B,3] = mul(%y, %c)
  %3: f32[B,3] = add(%x, %2)
  %4: f32[B,3] = add(%3, %2)
  %5: f32[3] = sum(%4, axes=[0], keepdims=false)  // m.nn:1:1 (backward)
  return u=%0, v=%1, w=%5
}""",
        """
graph g(%x: f32[B,3] input, %y: f32[B,3] input, %c: f32[3] param) {
  %0: f32[3] = sum(%x, axes=[0], keepdims=false)
  %1: f32[3] = sum(%y, axes=[0], keepdims=false)
  %2: f32[3] = mul(%1, %c)  // m.nn:1:1 (backward)
  %3: f32[3] = add(%0, %2)  // m.nn:1:1 (backward)
  %4: f32[3] = add(%3, %2)  // m.nn:1:1 (backward)
  return u=%0, v=%1, w=%4
}""",
    ),
    "the sum of repeated values, and of terms that do not depend on the batch": (
        """
graph g(%x: f32[B,3] input, %c: f32[3] param) {
  %0: f32[B,3] = broadcast(%c, shape=[B,3])
  %1: f32[3] = sum(%0, axes=[0], keepdims=false)
  %2: f32[B,3] = add(%x, %c)
  %3: f32[1,3] = sum(%2, axes=[0], keepdims=true)
  return a=%1, b=%3
}""",
        """
graph g(%x: f32[B,3] input, %c: f32[3] param) {
  %0: f32[] = extent(factor=1, power=1)
  %1: f32[3] = mul(%c, %0)
  %2: f32[1,3] = sum(%x, axes=[0], keepdims=true)
  %3: f32[] = extent(factor=1, power=1)
  %4: f32[3] = mul(%c, %3)
  %5: f32[1,3] = add(%2, %4)
  return a=%1, b=%5
}""",
    ),
    "the body of a scan": (
        """
graph g(%h: f32[3] input, %u: f32[4,3] input) {
  %0: f32[3] = scan(%h, %u, carries=1, sequences=1, reverse=false, body=graph body(%h: f32[3] carry, %x: f32[3] sequence) {
    %0: f32[3] = neg(%x)
    %1: f32[3] = add(%h, %0)
    return y0=%1
  })
  return h=%0
}""",
        """
graph g(%h: f32[3] input, %u: f32[4,3] input) {
  %0: f32[3] = scan(%h, %u, carries=1, sequences=1, reverse=false, body=graph body(%h: f32[3] carry, %x: f32[3] sequence) {
    %0: f32[3] = sub(%h, %x)
    return y0=%0
  })
  return h=%0
}""",
    ),
}

# Near misses.
UNTOUCHED = {
    "only of a condition is cast(c) > 0 the same as c": """
graph g(%n: i32[B,3] input, %c: bool[B,3] input) {
  %0: f32[B,3] = cast(%n, dtype="f32")
  %1: bool[B,3] = lt(0.0, %0)
  %2: f32[B,3] = cast(%c, dtype="f32")
  %3: bool[B,3] = lt(0.5, %2)
  %4: bool[B,3] = lt(%2, 0.0)
  return y=%1, z=%3, w=%4
}
""",
    "what could overflow, underflow or lose a rounding in another order": """
graph g(%x: f32[B,3] input, %y: f32[B,3] input, %c: f32[3] param, %d: f32[] param) {
  %0: f32[B,3] = div(%x, 1e-39)
  %1: f32[B,3] = div(%x, %c)
  %2: f32[B,3] = mul(%x, 1e+30)
  %3: f32[B,3] = mul(%2, 1e+30)
  %4: f32[B,3] = add(%x, 12582912.0)
  %5: f32[B,3] = sub(%4, 12582912.0)
  %6: f32[] = sqrt(%d)
  %7: f32[] = add(%6, 1e-39)
  %8: f32[B,3] = div(%x, %7)
  %9: f32[B,3] = mul(%x, %c)
  %10: f32[B,3] = mul(%9, %d)
  %11: f32[B,3] = add(%x, %y)
  %12: f32[B,3] = add(%11, %y)
  %13: f32[3] = sum(%4, axes=[0], keepdims=false)
  %14: f32[3] = sum(%2, axes=[0], keepdims=false)
  return y0=%0, y1=%1, y2=%3, y3=%5, y4=%8, y5=%10, y6=%12, y7=%13, y8=%14
}""",
    "terms that may be there to round": """
graph g(%x: f32[B,3] input, %p: f32[3] param) {
  %0: f32[B,3] = add(%x, %p)
  %1: f32[B,3] = sub(%0, %p)
  %2: f32[3] = sum(%1, axes=[0], keepdims=false)
  %3: i32[3] = iota(size=3)
  %4: f32[3] = cast(%3, dtype="f32")
  %5: f32[B,3] = sub(%x, %4)
  %6: f32[B,3] = add(%5, %p)
  %7: f32[3] = sum(%x, axes=[0], keepdims=false)
  %8: f32[B,3] = sub(%7, %x)
  %9: f32[B,3] = sub(%8, %7)
  return a=%1, b=%2, c=%6, d=%9
}""",
    "sums that would overflow without a factor or another term, outside of gradients": """
graph g(%x: f32[B,3] input, %y: f32[B,3] input, %p: f32[3] param) {
  %0: f32[B,3] = mul(%x, 0.5)
  %1: f32[3] = sum(%0, axes=[0], keepdims=false)
  %2: f32[B,3] = mul(%x, %p)
  %3: f32[3] = sum(%2, axes=[0], keepdims=false)
  %4: f32[3] = sum(%x, axes=[0], keepdims=false)
  %5: f32[3] = sum(%y, axes=[0], keepdims=false)
  %6: f32[B,3] = add(%x, %y)
  %7: f32[3] = sum(%6, axes=[0], keepdims=false)
  return a=%1, b=%3, c=%4, d=%5, e=%7
}""",
    "inverse roots, whose product could overflow": """
graph g(%x: f32[B,3] input, %c: f32[3] param, %d: f32[] param) {
  %0: f32[3] = sqrt(%c)
  %1: f32[3] = div(1.0, %0)
  %2: f32[B,3] = mul(%x, %1)
  %3: f32[] = sqrt(%d)
  %4: f32[] = div(1.0, %3)
  %5: f32[B,3] = mul(%2, %4)
  return y=%5
}""",
    "0 x stays, since x may not be finite, and so does a selection of 0": """
graph g(%c: bool[B,3] input, %x: f32[B,3] input) {
  %0: f32[B,3] = mul(%x, 0.0)
  %1: f32[B,3] = select(%c, %x, 0.0)
  %2: f32[B,3] = sub(%x, %x)
  return a=%0, b=%1, c=%2
}""",
    "another zero, and a choice between three": """
graph g(%c: bool[3] input, %d: bool[3] input, %x: f32[3] input, %y: f32[3] input) {
  %0: f32[3] = select(%c, %x, 0.0)
  %1: f32[3] = select(%d, %0, -0.0)
  %2: f32[3] = select(%c, %x, %y)
  %3: f32[3] = select(%d, %2, 0.0)
  %4: f32[3] = select(%c, 0.0, %2)
  %5: f32[3] = add(%x, -0.0)
  return a=%1, b=%3, c=%4, d=%5
}""",
    "whole numbers": """
graph g(%x: i32[B,3] input, %y: i32[B,3] input, %c: i32[3] input) {
  %0: i32[B,3] = mul(%x, %c)
  %1: i32[B,3] = mul(%0, 2)
  %2: i32[B,3] = add(%x, %c)
  %3: i32[B,3] = sub(%2, 2)
  %4: i32[B,3] = neg(%y)
  %5: i32[B,3] = add(%x, %4)
  %6: i32[B,3] = max(%x, 0)
  %7: i32[B,3] = min(%6, 5)
  %8: i32[B,3] = add(%y, %y)
  %9: i32[3] = sum(%4, axes=[0], keepdims=false)
  return a=%1, b=%3, c=%5, d=%7, e=%8, f=%9
}""",
    "a row and a column are together as large as the matrix": """
graph g(%x: f32[B,3] input, %r: f32[B,1] input, %c: f32[3] input) {
  %0: f32[B,3] = mul(%x, %r)
  %1: f32[B,3] = mul(%0, %c)
  %2: f32[B,3] = add(%x, %c)
  %3: f32[B,3] = sub(%2, %r)
  return a=%1, b=%3
}""",
    "log_softmax keeps its digits": """
graph g(%x: f32[B,3] input) {
  %0: f32[B,1] = reduce_max(%x, axes=[1], keepdims=true)
  %1: f32[B,3] = sub(%x, %0)
  %2: f32[B,3] = exp(%1)
  %3: f32[B,1] = sum(%2, axes=[1], keepdims=true)
  %4: f32[B,1] = log(%3)
  %5: f32[B,3] = sub(%1, %4)
  return y=%5
}""",
    "limits that cross": """
graph g(%x: f32[B,3] input) {
  %0: f32[B,3] = max(%x, 1.0)
  %1: f32[B,3] = min(%0, 0.0)
  %2: bool[B,3] = lt(%0, 0.5)
  return a=%1, b=%2
}""",
    "broadcasts that other nodes read": """
graph g(%x: f32[3] input, %w: f32[3,2] param) {
  %0: f32[B,3] = broadcast(%x, shape=[B,3])
  %1: f32[B,2] = matmul(%0, %w)
  %2: f32[3,1] = reshape(%x, shape=[3,1])
  %3: f32[3,2] = mul(%w, %2)
  return a=%0, b=%1, c=%3
}""",
    "slices over parts, concats along different axes": """
graph g(%x: f32[2,3] input, %y: f32[2,3] input) {
  %0: f32[2,6] = concat(%x, %y, axis=1)
  %1: f32[2,2] = slice(%0, start=[0,2], stop=[2,4], step=[1,1])
  %2: f32[4,6] = concat(%0, %0, axis=0)
  return a=%1, b=%2
}""",
    "pads that overlap, leave a gap, or are not of zeros": """
graph g(%x: f32[3] input, %y: f32[3] input) {
  %0: f32[5] = pad(%x, low=[0], high=[2], interior=[], value=0.0)
  %1: f32[5] = pad(%y, low=[2], high=[0], interior=[], value=0.0)
  %2: f32[5] = add(%0, %1)
  %3: f32[7] = pad(%x, low=[0], high=[4], interior=[], value=0.0)
  %4: f32[7] = pad(%y, low=[4], high=[0], interior=[], value=0.0)
  %5: f32[7] = add(%3, %4)
  %6: f32[6] = pad(%x, low=[0], high=[3], interior=[], value=1.0)
  %7: f32[6] = pad(%y, low=[3], high=[0], interior=[], value=1.0)
  %8: f32[6] = add(%6, %7)
  return a=%2, b=%5, c=%8
}""",
    "sums of varying factors, of products, and of terms that are not summed elsewhere": """
graph g(%x: f32[B,3] input, %y: f32[B,3] input, %r: f32[B,1] input, %c: f32[3] param) {
  %0: f32[B,3] = mul(%x, %r)
  %1: f32[3] = sum(%0, axes=[0], keepdims=false)
  %2: f32[B,3] = mul(%x, %y)
  %3: f32[3] = sum(%2, axes=[0], keepdims=false)
  %4: f32[B,3] = add(%x, %y)
  %5: f32[3] = sum(%4, axes=[0], keepdims=false)
  %6: f32[B,3] = add(%y, %c)
  %7: f32[B] = sum(%6, axes=[1], keepdims=false)
  %8: f32[B,3] = sub(%x, %r)
  %9: f32[B] = sum(%8, axes=[1], keepdims=false)
  return u=%1, v=%3, w=%5, z=%7, e=%9
}""",
    "values that depend on the batch, and random ones": """
graph g(%seed: i64[] counter) {
  %0: f32[] = extent(factor=2, power=1)
  %1: f32[] = random(%seed, 0, shape=[], distribution="uniform", stream=1)
  %2: f32[] = random(%seed, 0, shape=[], distribution="uniform", stream=1)
  return a=%0, b=%1, c=%2
}""",
}
