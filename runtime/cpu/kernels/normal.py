"""The error function and the normal distribution, to a few units in the last place of f32 and f64.

Both are polynomials without branches, in the type of their operand, over arrays in the order of memory. `out` may be
the operand; `scratch` has room for four arrays like it.
"""

from __future__ import annotations

import math

import numpy as np

from runtime.cpu.kernels.basic import clip


def normal_cdf(x: np.ndarray, out: np.ndarray, scratch: np.ndarray) -> None:
    """The probability that a standard normal number is less than x: the tail below zero, 1 - the tail from zero on."""
    x, out, t, tail, rest, other = in_order(x, out, scratch)
    np.absolute(x, out=t)
    upper_tail(t, tail, rest, other)
    np.heaviside(x, 1.0, out=out)
    np.multiply(out, -2.0, out=t)
    np.add(t, 1.0, out=t)
    np.multiply(tail, t, out=tail)
    np.add(out, tail, out=out)


def erf(x: np.ndarray, out: np.ndarray, scratch: np.ndarray) -> None:
    """The error function: x times a polynomial of x² for |x| < 1, 1 - 2 tail(|x| √2) beyond, with the sign of x."""
    x, out, t, tail, rest, other = in_order(x, out, scratch)
    np.absolute(x, out=t)
    np.multiply(t, math.sqrt(2), out=t)
    upper_tail(t, tail, rest, other)
    np.multiply(tail, -2.0, out=tail)
    np.add(tail, 1.0, out=tail)
    np.copysign(tail, x, out=tail)
    np.absolute(x, out=rest)
    clip(rest, 0.0, 1.0, out=rest)
    np.floor(rest, out=rest)  # 1 from 1 on, else 0
    clip(x, -1.0, 1.0, out=out)
    np.multiply(out, out, out=other)
    evaluate(ERF[out.itemsize], other, out=t)
    np.multiply(out, t, out=out)
    np.subtract(tail, out, out=tail)  # exact where it counts, since the two differ by less than a factor of 2
    np.multiply(tail, rest, out=tail)
    np.add(out, tail, out=out)


def in_order(x: np.ndarray, out: np.ndarray, scratch: np.ndarray) -> tuple[np.ndarray, ...]:
    """x, out and the arrays of the scratch space, all with axes in the order of out in memory."""
    order = sorted(range(out.ndim), key=lambda axis: -out.strides[axis])
    out = out.transpose(order)
    rows = scratch.reshape(4, *out.shape)
    return x.transpose(order), out, *(rows[i, ...] for i in range(4))


def upper_tail(t: np.ndarray, out: np.ndarray, high: np.ndarray, low: np.ndarray) -> None:
    """1 - normal_cdf(t) for t >= 0: exp(-t² / 2) / (t + 4) times a polynomial of (t - 4) / (t + 4).

    With h, t rounded down to a sixteenth, h² is exact: exp(-h² / 2) exp(-(t - h) (t + h) / 2) does not have the
    rounding of t², which the exponential would multiply by t² / 2. All but `out` are overwritten.
    """
    clip(t, 0.0, 40.0, out=t)  # beyond, the result is zero
    np.multiply(t, 16.0, out=high)
    np.floor(high, out=high)
    np.multiply(high, 1 / 16, out=high)
    np.subtract(t, high, out=low)
    np.add(t, high, out=out)
    np.multiply(low, out, out=low)
    np.multiply(low, -0.5, out=low)
    np.exp(low, out=low)
    np.multiply(high, high, out=high)
    np.multiply(high, -0.5, out=high)
    np.exp(high, out=high)
    np.add(t, 4.0, out=out)
    np.divide(low, out, out=low)
    np.subtract(t, 4.0, out=t)
    np.divide(t, out, out=t)
    evaluate(TAIL[out.itemsize], t, out=out)
    np.multiply(out, low, out=out)
    np.multiply(out, high, out=out)


def evaluate(coefficients: tuple[float, ...], x: np.ndarray, out: np.ndarray) -> None:
    """A polynomial by Horner's rule, highest power first."""
    out.fill(coefficients[0])
    for coefficient in coefficients[1:]:
        np.multiply(out, x, out=out)
        np.add(out, coefficient, out=out)


# By the bytes of the type: Chebyshev expansions as powers, of (t + 4) exp(t² / 2) (1 - normal_cdf(t)) in
# (t - 4) / (t + 4), and of erf(x) / x in x² for |x| <= 1
TAIL = {
    4: (
        2.118298426e-05, -1.731082301e-06, -2.155737763e-04, 1.336533871e-04, 1.622040106e-03, -3.479954637e-03,
        -7.537717160e-03, 6.039664828e-02, -1.865221598e-01, 3.871373939e-01, -6.078966314e-01, 7.552851305e-01,
    ),
    8: (
        1.175478991480774e-10, 3.403312308649495e-10, -8.546521899880147e-10, -3.73064508186837e-09,
        1.4329918401088613e-09, 2.1427603843452355e-08, 1.4630727405651175e-08, -8.686647015997893e-08,
        -1.5650236461993106e-07, 2.7246296951145873e-07, 1.0225604158296038e-06, -6.298367338492369e-07,
        -5.920586519556891e-06, 7.166587641195121e-07, 3.514479478753355e-05, -1.908246351414571e-06,
        -0.00023109495324019437, 0.00013334430941183256, 0.001630818459394586, -0.0034796923670479736,
        -0.00754018896682524, 0.060396574890917876, -0.18652185795965484, 0.3871374007422149, -0.6078966419718921,
        0.7552851304157515,
    ),
}  # fmt: skip
ERF = {
    4: (
        7.882497110e-05, -8.018854993e-04, 5.189311943e-03, -2.685432880e-02, 1.128359746e-01, -3.761262690e-01,
        1.128379166e+00,
    ),
    8: (
        -7.798543850549947e-10, 1.3721520406351094e-08, -1.6208829856810202e-07, 1.6447471190594618e-06,
        -1.4924740785377576e-05, 0.00012055295112667001, -0.0008548325982543225, 0.005223977607269946,
        -0.026866170643256995, 0.1128379167094513, -0.37612638903183543, 1.1283791670955126,
    ),
}  # fmt: skip
