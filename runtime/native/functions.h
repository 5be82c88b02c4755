/* Exponentials, logarithms, powers, sines and the normal distribution, for f32 and f64, to 2 units in the last place
   over the whole range. NaN, infinities and zeros are as in C's math.h. All are branch-free and call nothing, so that
   compilers vectorize loops that call them. Polynomials are Chebyshev expansions as powers, highest power first.
   Functions of f32 without digits to spare compute in f64. */
#pragma once
#include "numbers.h"

/* A polynomial of COUNT coefficients by Horner's rule. */
#define DEFINE_POLYNOMIAL(suffix, type)                                                        \
    INLINE type polynomial_##suffix(type x, const type *coefficients, int count) {             \
        type sum = coefficients[0];                                                            \
        UNROLL(32) for (int i = 1; i < count; ++i) sum = sum * x + coefficients[i];            \
        return sum;                                                                            \
    }
DEFINE_POLYNOMIAL(f32, float)
DEFINE_POLYNOMIAL(f64, double)
#define POLYNOMIAL_F32(x, ...) \
    polynomial_f32(x, (const float[]){__VA_ARGS__}, sizeof((const float[]){__VA_ARGS__}) / sizeof(float))
#define POLYNOMIAL_F64(x, ...) \
    polynomial_f64(x, (const double[]){__VA_ARGS__}, sizeof((const double[]){__VA_ARGS__}) / sizeof(double))

/* Exponentials: x = n log 2 + r with |r| < log(2) / 2, so exp(x) = 2^n exp(r) ------------------------------------- */

#define LOG2_E 0x1.71547652b82fep+0
#define LOG_2_HIGH 0x1.62e42fefa3800p-1 /* 42 bits: its products with exponents are exact */
#define LOG_2_LOW 0x1.ef35793c76730p-45
#define LOG_2_HIGH_F32 0x1.62e4p-1f
#define LOG_2_LOW_F32 0x1.7f7d1cp-20f

/* exp(r) - 1 - r */
INLINE float exp_rest_f32(float r) {
    return r * r * POLYNOMIAL_F32(r, 0.00139262038f, 0.00836319476f, 0.0416665561f, 0.166665763f, 0.5f);
}
INLINE double exp_rest_f64(double r) {
    return r * r * POLYNOMIAL_F64(
        r, 2.0914707069612355e-09, 2.510524515390137e-08, 2.7557273594799413e-07, 2.755725533255441e-06,
        2.480158732558584e-05, 0.00019841269874873975, 0.0013888888888883737, 0.00833333333332612,
        0.04166666666666667, 0.1666666666666667, 0.5);
}
/* exp(r) - 1 for a result in f32 */
INLINE double short_expm1(double r) {
    return r + r * r * POLYNOMIAL_F64(
        r, 0.0001989101718430203, 0.0013933673732931852, 0.00833331090172597, 0.04166646471137908,
        0.16666666681647016, 0.5000000013487226);
}

INLINE float exp_f32(float x) {
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    const float n = (x * (float)LOG2_E + ROUNDER_F32) - ROUNDER_F32;
    const float r = (x - n * LOG_2_HIGH_F32) - n * LOG_2_LOW_F32;
    const float sum = 1.0f + r, lost = r - (sum - 1.0f);
    return scaled_f32(sum + (lost + exp_rest_f32(r)), n);
}

/* factor exp(x + low), where low is at most a few units in the last place of x. */
INLINE double exp_of_pair(double x, double low, double factor) {
    x = x < -746.0 ? -746.0 : x;
    x = x > 710.0 ? 710.0 : x;
    const double n = (x * LOG2_E + ROUNDER_F64) - ROUNDER_F64;
    const double r = (x - n * LOG_2_HIGH) - (n * LOG_2_LOW - low);
    const Pair sum = sum_in_order(1.0, r);
    const double rest = sum.low + exp_rest_f64(r);
    return scaled_f64(factor * sum.high + factor * rest, n);
}
INLINE double exp_f64(double x) { return exp_of_pair(x, 0.0, 1.0); }

/* exp(x) for a result in f32, -1000 < x < 700 or clipped */
INLINE double short_exp(double x) {
    x = x < -700.0 ? -700.0 : x;
    x = x > 700.0 ? 700.0 : x;
    const double n = (x * LOG2_E + ROUNDER_F64) - ROUNDER_F64;
    const double power = double_of(bits_of_double(n + (ROUNDER_F64 + 1023.0)) << 52);
    return power + power * short_expm1(x - n * 0x1.62e42fefa39efp-1);
}

/* 2^n (r + exp_rest(r) + 1 - 2^-n), doubled last since 2^n may be infinite. */
INLINE float expm1_f32(float x) {
    const float clipped = x < -20.0f ? -20.0f : x > 89.0f ? 89.0f : x;
    const float n = (clipped * (float)LOG2_E + ROUNDER_F32) - ROUNDER_F32;
    const float r = (clipped - n * LOG_2_HIGH_F32) - n * LOG_2_LOW_F32;
    const float half = float_of(bits_of_float(n + (ROUNDER_F32 + 126.0f)) << 23);
    const float one = 1.0f - (n > 100.0f ? 0.0f : float_of(bits_of_float((ROUNDER_F32 + 127.0f) - n) << 23));
    const float result = 2.0f * (half * (one + (r + exp_rest_f32(r))));
    return x == 0 ? x : result;
}
/* exp(x) - 1 = 2 half (high + low) */
typedef struct { double half; Pair sum; } Expm1;
INLINE Expm1 expm1_as_pair(double x) {
    const double n = (x * LOG2_E + ROUNDER_F64) - ROUNDER_F64;
    const double r = (x - n * LOG_2_HIGH) - n * LOG_2_LOW;
    const double half = double_of(bits_of_double(n + (ROUNDER_F64 + 1022.0)) << 52);
    const double inverse = n > 1000.0 ? 0.0 : double_of(bits_of_double((ROUNDER_F64 + 1023.0) - n) << 52);
    Pair sum = sum_of_two(1.0 - inverse, r);
    sum.low += exp_rest_f64(r);
    return (Expm1){half, sum};
}
INLINE double expm1_f64(double x) {
    const Expm1 result = expm1_as_pair(x < -50.0 ? -50.0 : x > 710.0 ? 710.0 : x);
    return x == 0 ? x : 2.0 * (result.half * (result.sum.high + result.sum.low));
}

/* t / (t + 2) with t = exp(2 |x|) - 1; in f64, with what rounding t and t + 2 loses. */
INLINE float tanh_f32(float x) {
    const float size = __builtin_fabsf(x), t = expm1_f32(2.0f * (size > 10.0f ? 10.0f : size));
    return __builtin_copysignf(t / (t + 2.0f), x);
}
INLINE double tanh_f64(double x) {
    const double size = __builtin_fabs(x);
    const Expm1 power = expm1_as_pair(2.0 * (size > 20.0 ? 20.0 : size));
    const double scale = 2.0 * power.half;
    const Pair t = sum_in_order(scale * power.sum.high, scale * power.sum.low), divisor = sum_of_two(2.0, t.high);
    const double quotient = t.high / divisor.high;
    const Pair back = product_of_two(quotient, divisor.high);
    const double rest = ((t.high - back.high) - back.low) + (t.low - quotient * (divisor.low + t.low));
    return x == 0 ? x : __builtin_copysign(quotient + rest / divisor.high, x);
}

/* 1 / (1 + exp(-x)) by the exponential that does not overflow. */
INLINE float sigmoid_f32(float x) {
    const float small = exp_f32(x < 0 ? x : -x);
    return (x < 0 ? small : 1.0f) / (1.0f + small);
}
INLINE double sigmoid_f64(double x) {
    const double small = exp_f64(x < 0 ? x : -x);
    return (x < 0 ? small : 1.0) / (1.0 + small);
}
#define sigmoid_of(a) _Generic((a), float: sigmoid_f32, double: sigmoid_f64)(a)

/* Logarithms: x = 2^n m with m around 1; log(m) = 2 s + s^3 (2/3 + ...) with s = (m - 1) / (m + 1) ----------------- */

typedef struct { float m, n; } PartsF32;
typedef struct { double m, n; } PartsF64;

/* x > 0 as 2^n m with m from sqrt(1/2) to sqrt(2). */
INLINE PartsF32 parts_f32(float x) {
    const bool denormal = x < 0x1p-126f;
    const uint32_t bits = bits_of_float(denormal ? x * 0x1p23f : x) + (0x3f800000u - 0x3f3504f3u);
    const float n = (float)((int)(bits >> 23) - 127) - (denormal ? 23.0f : 0.0f);
    return (PartsF32){float_of((bits & 0x7fffffu) + 0x3f3504f3u), n};
}
INLINE PartsF64 parts_f64(double x) {
    const bool denormal = x < 0x1p-1022;
    const uint64_t bits = bits_of_double(denormal ? x * 0x1p52 : x) + (0x3ff0000000000000u - 0x3fe6a09e667f3bcdu);
    const double n = double_of((bits >> 52) | 0x4330000000000000u) - (0x1p52 + 1023.0) - (denormal ? 52.0 : 0.0);
    return (PartsF64){double_of((bits & 0xfffffffffffffu) + 0x3fe6a09e667f3bcdu), n};
}

/* log(2^n (1 + f)) + c, where log(1 + f) = f - (f^2 / 2 - s (f^2 / 2 + s^2 R(s^2))). */
INLINE float log_of_parts_f32(float n, float f, float c) {
    const float s = f / (2.0f + f), z = s * s, half = 0.5f * f * f;
    const float rest = z * POLYNOMIAL_F32(z, 0.295803994f, 0.399887711f, 0.666666865f);
    return n * LOG_2_HIGH_F32 - ((half - (s * (half + rest) + (n * LOG_2_LOW_F32 + c))) - f);
}
INLINE double log_of_parts_f64(double n, double f, double c) {
    const double s = f / (2.0 + f), z = s * s, half = 0.5 * f * f;
    const double rest = z * POLYNOMIAL_F64(
        z, 0.1461703754879165, 0.1533167403016786, 0.18182890556695602, 0.2222221111514416, 0.2857142862609589,
        0.3999999999989924, 0.666666666666667);
    return n * LOG_2_HIGH - ((half - (s * (half + rest) + (n * LOG_2_LOW + c))) - f);
}

INLINE float log_f32(float x) {
    const PartsF32 parts = parts_f32(x);
    const float result = log_of_parts_f32(parts.n, parts.m - 1.0f, 0.0f);
    const float special = x == 0 ? -INFINITY_F32 : x < 0 ? __builtin_nanf("") : x;
    return (x > 0) & (x < INFINITY_F32) ? result : special;
}
INLINE double log_f64(double x) {
    const PartsF64 parts = parts_f64(x);
    const double result = log_of_parts_f64(parts.n, parts.m - 1.0, 0.0);
    const double special = x == 0 ? -INFINITY_F64 : x < 0 ? __builtin_nan("") : x;
    return (x > 0) & (x < INFINITY_F64) ? result : special;
}

/* log(u) with u = 1 + x, plus what rounding u has lost, divided by u. */
INLINE float log1p_f32(float x) {
    const float u = 1.0f + x;
    const PartsF32 parts = parts_f32(u);
    const bool small = parts.n == 0;
    const float lost = x > 1.0f ? 1.0f - (u - x) : x - (u - 1.0f);
    const float result = log_of_parts_f32(parts.n, small ? x : parts.m - 1.0f, small ? 0.0f : lost / u);
    const float special = x == -1.0f ? -INFINITY_F32 : x < -1.0f ? __builtin_nanf("") : x;
    return (x > -1.0f) & (x < INFINITY_F32) & (x != 0) ? result : special;
}
INLINE double log1p_f64(double x) {
    const double u = 1.0 + x;
    const PartsF64 parts = parts_f64(u);
    const bool small = parts.n == 0;
    const double lost = x > 1.0 ? 1.0 - (u - x) : x - (u - 1.0);
    const double result = log_of_parts_f64(parts.n, small ? x : parts.m - 1.0, small ? 0.0 : lost / u);
    const double special = x == -1.0 ? -INFINITY_F64 : x < -1.0 ? __builtin_nan("") : x;
    return (x > -1.0) & (x < INFINITY_F64) & (x != 0) ? result : special;
}

/* Powers: exp(y log |x|), with log |x| to 68 bits for f64 ---------------------------------------------------------- */

/* The special cases of C99, Annex F, and the sign: `power` is |x|^y if both are finite. */
INLINE double pow_of_sign(double x, double y, double power) {
    const double size = __builtin_fabs(x), half = 0.5 * y;
    const bool whole = floor_f64(y) == y, odd = whole & (floor_f64(half) != half);
    const bool limit = (size == 0) | (size == INFINITY_F64) | (__builtin_fabs(y) == INFINITY_F64);
    power = limit ? ((size > 1) == (y > 0) ? INFINITY_F64 : 0.0) : power;
    power = (x < 0) & !whole & (size < INFINITY_F64) ? __builtin_nan("") : power;
    power = (x != x) | (y != y) ? x + y : power;
    power = odd & (bits_of_double(x) >> 63 != 0) ? -power : power;
    return (y == 0) | (x == 1) | ((x == -1) & (__builtin_fabs(y) == INFINITY_F64)) ? 1.0 : power;
}

/* log(x) of a positive x as a sum: 2 s, s^3 2/3 and the first digits of the rest are exact. */
INLINE Pair log_as_pair(double x) {
    const PartsF64 parts = parts_f64(x);
    const double f = parts.m - 1.0;
    const Pair divisor = sum_in_order(2.0, f);
    const double s = f / divisor.high;
    const Pair back = product_of_two(s, divisor.high);
    const double s_low = (((f - back.high) - back.low) - s * divisor.low) / divisor.high;
    Pair z = product_of_two(s, s);
    z.low += 2.0 * s * s_low;
    const double rest = z.high * POLYNOMIAL_F64(
        z.high, 0.1291402271694836, 0.13285924657242199, 0.15385575782820043, 0.18181808234003144,
        0.22222222271185313, 0.28571428571338325, 0.40000000000000024);
    Pair factor = sum_in_order(0x1.5555555555555p-1, rest);
    factor.low += 0x1.5555555555555p-55;
    Pair cube = product_of_two(z.high, factor.high);
    cube.low += z.high * factor.low + z.low * factor.high;
    Pair tail = product_of_two(s, cube.high);
    tail.low += s * cube.low + s_low * cube.high;
    const Pair head = sum_of_two(parts.n * LOG_2_HIGH, 2.0 * s), sum = sum_of_two(head.high, tail.high);
    return sum_in_order(sum.high, sum.low + (head.low + (2.0 * s_low + (tail.low + parts.n * LOG_2_LOW))));
}

INLINE double pow_f64(double x, double y) {
    const Pair log = log_as_pair(__builtin_fabs(x));
    const Pair exponent = product_of_two(log.high, y);
    const bool inside = __builtin_fabs(exponent.high) < 1000.0;
    const double power = exp_of_pair(exponent.high, inside ? exponent.low + log.low * y : 0.0, 1.0);
    return pow_of_sign(x, y, power);
}
INLINE float pow_f32(float x, float y) {
    const PartsF64 parts = parts_f64(__builtin_fabs((double)x));
    const double s = (parts.m - 1.0) / (parts.m + 1.0), z = s * s;
    const double rest = z * POLYNOMIAL_F64(
        z, 0.19363186932161763, 0.22191373380944632, 0.2857175496835035, 0.39999998795219155, 0.6666666666737665);
    const double log = parts.n * 0x1.62e42fefa39efp-1 + s * (2.0 + rest);
    return (float)pow_of_sign(x, y, short_exp(y * log));
}

/* Sines: x = (q + r) pi/2 with q whole and |r| <= 1/2 ---------------------------------------------------------------- */

/* 2/pi 2^(32 i) without multiples of 4, as a sum: with these, x 2/pi is exact enough for every x. */
UNUSED static const double TWO_OVER_PI_F64[31][4] = {
    {0x1.45f306dc9c883p-1, -0x1.6b01ec5417056p-55, -0x1.6447e493ad4cep-109, 0x1.e21c820ff28b2p-163},
    {-0x1.b1bbead603d8bp+0, 0x1.f47d4d377036ep-54, -0x1.d6a66c3bc6fbep-108, -0x1.ae9c5421443aap-168},
    {0x1.fc2757d1f534ep+0, -0x1.1f924eb53361ep-55, 0x1.c820ff28b1d5fp-111, -0x1.443a9e48db91cp-168},
    {0x1.f534ddc0db629p+0, 0x1.664f10e4107f9p-54, 0x1.163abdebbc562p-108, -0x1.236e4716f6c8bp-162},
    {0x1.b6c52b3278872p-1, 0x1.07f9458eaf7afp-58, -0x1.d4f246dc8e2dfp-115, 0x1.374b801924bbbp-170},
    {0x1.3c439041fe516p+0, 0x1.d5ef5de2b0db9p-55, 0x1.1b8e909374b80p-110, 0x1.924bba8274648p-166},
    {0x1.fe5163abdebbcp+0, 0x1.586dc91b8e909p-54, 0x1.ba5c00c925dd4p-109, 0x1.3a32439fc3bd6p-165},
    {-0x1.0a21d4f246dc9p-3, 0x1.d2126e9700325p-59, -0x1.a22bec5cdbc60p-113, -0x1.e214e34ed658cp-168},
    {0x1.b7246e3a424ddp+0, 0x1.700324977504fp-55, -0x1.cdbc603c429c7p-109, 0x1.894d39f74411bp-163},
    {-0x1.bdb22d1ff9b6dp+0, -0x1.15f62e6de301ep-56, -0x1.0a71a76b2c609p-111, 0x1.1046bea5d7689p-165},
    {0x1.924bba8274648p-6, 0x1.cfe1deb1cb12ap-60, -0x1.63045df7282b4p-114, -0x1.44bb7b16638fep-168},
    {-0x1.f62e6de301e21p+0, -0x1.38d3b5963045ep-54, 0x1.1afa975da2427p-111, 0x1.338e04d68befdp-165},
    {0x1.fc3bd63962535p-1, -0x1.822efb9415a29p-57, 0x1.a24274ce38136p-111, -0x1.741037d8cdc54p-165},
    {0x1.62534e7dd1047p-1, -0x1.0568a25dbd8b3p-55, -0x1.c7eca5d040df6p-111, -0x1.9b8a719f2b318p-166},
    {-0x1.177dca0ad144cp+0, 0x1.213a671c09ad1p-54, 0x1.f7e413991d63ap-108, -0x1.f2b3182d8dee8p-162},
    {0x1.2ebb4484e99c7p+0, 0x1.35a2fbf209cc9p-59, -0x1.4e33e566305b2p-115, 0x1.08bf177bf2507p-169},
    {0x1.d338e04d68bf0p-1, -0x1.bec66e29c67cbp-56, 0x1.9cfa4e422fc5ep-111, -0x1.036be27003b40p-167},
    {-0x1.4ba081bec66e3p+0, 0x1.8e60d4ce7d272p-54, 0x1.17e2ef7e4a0ecp-110, 0x1.ff897ffde0598p-164},
    {0x1.3991d63983534p+0, -0x1.82d8dee81d108p-54, -0x1.b5f13801da001p-110, 0x1.e05980fef2f12p-164},
    {0x1.835339f49c846p+0, -0x1.d1081b5f13802p-58, 0x1.2fffbc0b301fep-113, -0x1.a1dce94beb25cp-169},
    {0x1.3908bf177bf25p-1, 0x1.d8ffc4bffef03p-59, -0x1.9fc04343b9d29p-114, -0x1.f592e092c9813p-168},
    {-0x1.081b5f13801dap-2, -0x1.0fd33f8086877p-67, -0x1.d297d64b824b2p-122, -0x1.8130d834f648bp-176},
    {-0x1.c00ed00043f4dp-1, 0x1.fde5e2316b415p-61, -0x1.2e092c98130d8p-116, -0x1.a7b24585ce04dp-171},
    {-0x1.0fd33f8086877p-3, -0x1.d297d64b824b2p-58, -0x1.8130d834f648bp-112, -0x1.738132c3402bap-169},
    {-0x1.0d0ee74a5f593p-4, 0x1.f6d367ecf27cbp-60, 0x1.36e9e8c7ecd3dp-117, -0x1.00ae9456c229cp-171},
    {-0x1.4beb25c125930p-1, -0x1.30d834f648b0cp-56, 0x1.8fd9a797fa8b6p-110, -0x1.5b08a7028341dp-165},
    {-0x1.25930261b069fp-1, 0x1.b74f463f669e6p-56, -0x1.5d28ad8453814p-116, -0x1.a0e84c2f8c608p-172},
    {-0x1.b069ec9161738p-1, -0x1.32c3402ba515bp-57, -0x1.14e050683a131p-114, 0x1.0739f78a5292fp-168},
    {-0x1.61738132c3403p-1, 0x1.16ba93dd63f5fp-55, 0x1.7c5ecf41ce7dep-110, 0x1.4a525d4d7f6bfp-165},
    {-0x1.61a015d28ad84p+0, -0x1.4e050683a130cp-54, 0x1.ce7de294a4baap-110, -0x1.404a04ee072a3p-164},
    {0x1.7527bac7ebe5fp+0, 0x1.7b3d0739f78a5p-56, 0x1.497535fdafd89p-111, -0x1.ca8bdea7f33eep-170},
};
/* 2/pi 2^(16 i) without multiples of 4; 29 bits, so that a product with a float is exact, twice, and the rest. */
UNUSED static const double TWO_OVER_PI_F32[7][3] = {
    {0x1.45f306e000000p-1, -0x1.b1bbead000000p-32, -0x1.80f62a0b82b2dp-62},
    {0x1.836e4e4000000p+0, 0x1.054a7f1000000p-30, -0x1.8a82e0acb223fp-60},
    {-0x1.b1bbead000000p+0, -0x1.80f62a1000000p-30, 0x1.1f534ddc0db63p-60},
    {0x1.529fc27000000p-4, 0x1.5f47d4d000000p-34, 0x1.bb81b6c52b328p-65},
    {0x1.fc2757d000000p+0, 0x1.f534ddc000000p-32, 0x1.b6c52b3278872p-65},
    {-0x1.505c159000000p-1, -0x1.911f925000000p-31, 0x1.4acc9e21c8210p-63},
    {0x1.f534ddc000000p+0, 0x1.b6c52b3000000p-33, 0x1.3c439041fe516p-64},
};

typedef struct { double r, low; uint64_t quadrant; } Angle;

/* x without multiples of 4, for |x| < 2^53 */
INLINE double without_fours(double x) { return x - 4.0 * ((x * 0.25 + ROUNDER_F64) - ROUNDER_F64); }
/* x without enough multiples of 16, for any x: a few units in the last place of x are left if it is large. */
INLINE double without_most(double x) { return x - 4.0 * ((x * 0.25 + 4.0 * ROUNDER_F64) - 4.0 * ROUNDER_F64); }

INLINE Angle angle_f32(float x) {
    const int exponent = (int)(bits_of_float(x) >> 23 & 0xff) - 150; /* of the last bit */
    const int row = exponent < 0 ? 0 : exponent > 111 ? 6 : exponent >> 4;
    const double scaled = (double)x * (double)float_of((uint32_t)(127 - 16 * row) << 23);
    const double first = without_fours(scaled * TWO_OVER_PI_F32[row][0]), second = scaled * TWO_OVER_PI_F32[row][1];
    const double near = first + without_fours(second), q = (near + ROUNDER_F64) - ROUNDER_F64;
    const double r = (first - q) + without_fours(second) + scaled * TWO_OVER_PI_F32[row][2];
    return (Angle){r * 0x1.921fb54442d18p+0, 0.0, bits_of_double(q + ROUNDER_F64)};
}

INLINE Angle angle_f64(double x) {
    const int exponent = (int)(bits_of_double(x) >> 52 & 0x7ff) - 1075; /* of the last bit */
    const int row = exponent < 0 ? 0 : exponent > 991 ? 30 : exponent >> 5;
    const double scaled = x * double_of((uint64_t)(1023 - 32 * row) << 52);
    const double *factors = TWO_OVER_PI_F64[row];
    const Pair p1 = product_of_two(scaled, factors[0]), p2 = product_of_two(scaled, factors[1]);
    const Pair p3 = product_of_two(scaled, factors[2]);
    const Pair a = sum_of_two(without_fours(without_most(p1.high)), without_fours(p1.low));
    const Pair b = sum_of_two(a.high, without_fours(p2.high));
    const double q = (b.high + ROUNDER_F64) - ROUNDER_F64;
    /* The rest is a sum whose terms may cancel: sums of two, twice, keep what rounding loses. */
    double terms[7] = {p3.low + scaled * factors[3], b.low, a.low, p3.high, p2.low, b.high - q, 0.0};
    UNROLL(2) for (int pass = 0; pass < 2; ++pass) {
        UNROLL(6) for (int i = 1; i < 6; ++i) {
            const Pair sum = sum_of_two(terms[i], terms[i - 1]);
            terms[i] = sum.high, terms[i - 1] = sum.low;
        }
    }
    double low = terms[0];
    UNROLL(6) for (int i = 1; i < 5; ++i) low += terms[i];
    const Pair r = sum_in_order(terms[5], low);
    Pair angle = product_of_two(r.high, 0x1.921fb54442d18p+0);
    angle.low += r.high * 0x1.1a62633145c07p-54 + r.low * 0x1.921fb54442d18p+0;
    return (Angle){angle.high, angle.low, bits_of_double(q + ROUNDER_F64)};
}

/* The sine of an angle that is moved by `turn` quadrants. */
INLINE double short_sine(Angle angle, uint64_t turn) {
    const double r = angle.r, z = r * r;
    const double sine = r + r * z * POLYNOMIAL_F64(z, -0.00019587870583916142, 0.00833274817668276, -0.1666666466183098);
    const double cosine =
        (1.0 - 0.5 * z) + z * z * POLYNOMIAL_F64(z, 2.4547921745795434e-05, -0.0013888302941757222, 0.0416666646590179);
    const uint64_t quadrant = angle.quadrant + turn;
    const double result = (quadrant & 1) != 0 ? cosine : sine;
    return (quadrant & 2) != 0 ? -result : result;
}
INLINE double sine(Angle angle, uint64_t turn) {
    const double r = angle.r, z = r * r, half = 0.5 * z, top = 1.0 - half;
    const double s = POLYNOMIAL_F64(
        z, 1.5918117983848815e-10, -2.5051131688000297e-08, 2.755731610179909e-06, -0.0001984126983675712,
        0.008333333333330948, -0.16666666666666666);
    const double c = POLYNOMIAL_F64(
        z, -1.1382625349447592e-11, 2.0876146170183976e-09, -2.7557317271258515e-07, 2.4801587298764778e-05,
        -0.0013888888888887398, 0.041666666666666664);
    const double sine = r + (r * z * s + angle.low * (1.0 - half));
    const double cosine = top + (((1.0 - top) - half) + (z * z * c - r * angle.low));
    const uint64_t quadrant = angle.quadrant + turn;
    const double result = (quadrant & 1) != 0 ? cosine : sine;
    return (quadrant & 2) != 0 ? -result : result;
}
/* x - x is NaN for infinities and NaN. */
INLINE float sin_f32(float x) {
    const float result = (float)short_sine(angle_f32(x), 0);
    return x == 0 ? x : __builtin_fabsf(x) < INFINITY_F32 ? result : x - x;
}
INLINE float cos_f32(float x) {
    const float result = (float)short_sine(angle_f32(x), 1);
    return __builtin_fabsf(x) < INFINITY_F32 ? result : x - x;
}
INLINE double sin_f64(double x) {
    const double result = sine(angle_f64(x), 0);
    return __builtin_fabs(x) < 0x1p-30 ? x : __builtin_fabs(x) < INFINITY_F64 ? result : x - x;
}
INLINE double cos_f64(double x) {
    const double result = sine(angle_f64(x), 1);
    return __builtin_fabs(x) < INFINITY_F64 ? result : x - x;
}

/* The normal distribution and the error function, with the expansions of runtime/cpu/kernels/normal.py -------------- */

/* 1 - normcdf(t) for t >= 0: exp(-t^2 / 2) / (t + 4) times a polynomial of (t - 4) / (t + 4). */
INLINE double short_upper_tail(double t) {
    t = t > 40.0 ? 40.0 : t;
    const double p = POLYNOMIAL_F64((t - 4.0) / (t + 4.0),
    2.118298426e-05, -1.731082301e-06, -0.0002155737763, 0.0001336533871, 0.001622040106, -0.003479954637,
    -0.00753771716, 0.06039664828, -0.1865221598, 0.3871373939, -0.6078966314, 0.7552851305);
    return short_exp(-0.5 * t * t) * p / (t + 4.0);
}
/* The same: t^2 is a sum of two, as are the last terms of the polynomial, since they cancel. */
INLINE double upper_tail(double t) {
    t = t > 40.0 ? 40.0 : t;
    const Pair square = product_of_two(t, t), divisor = sum_of_two(4.0, t), difference = sum_of_two(t, -4.0);
    const double inverse = 1.0 / divisor.high, u = difference.high * inverse;
    const Pair back = product_of_two(u, divisor.high);
    const double u_low =
        (((difference.high - back.high) - back.low) + (difference.low - u * divisor.low)) * inverse;
    Pair p = {POLYNOMIAL_F64(u,
    1.175478991480774e-10, 3.403312308649495e-10, -8.546521899880147e-10, -3.73064508186837e-09,
    1.4329918401088613e-09, 2.1427603843452355e-08, 1.4630727405651175e-08, -8.686647015997893e-08,
    -1.5650236461993106e-07, 2.7246296951145873e-07, 1.0225604158296038e-06, -6.298367338492369e-07,
    -5.920586519556891e-06, 7.166587641195121e-07, 3.514479478753355e-05, -1.908246351414571e-06,
    -0.00023109495324019437, 0.00013334430941183256, 0.001630818459394586, -0.0034796923670479736,
    -0.00754018896682524, 0.060396574890917876), 0.0};
    static const double last[] = {-0.18652185795965484, 0.3871374007422149, -0.6078966419718921, 0.7552851304157515};
    UNROLL(4) for (int i = 0; i < 4; ++i) {
        const Pair term = product_of_two(u, p.high), sum = sum_of_two(last[i], term.high);
        p = (Pair){sum.high, sum.low + (term.low + (u * p.low + u_low * p.high))};
    }
    const double quotient = p.high * inverse;
    const Pair whole = product_of_two(quotient, divisor.high);
    const double rest = ((p.high - whole.high) - whole.low) + (p.low - quotient * divisor.low);
    return exp_of_pair(-0.5 * square.high, -0.5 * square.low, quotient + rest * inverse);
}

INLINE float normcdf_f32(float x) {
    const double tail = short_upper_tail(__builtin_fabs((double)x));
    return (float)(x < 0 ? tail : 1.0 - tail);
}
INLINE double normcdf_f64(double x) {
    const double tail = upper_tail(__builtin_fabs(x));
    return x < 0 ? tail : 1.0 - tail;
}

/* x times a polynomial of x^2 for |x| < 1; 1 - 2 tail(|x| sqrt(2)) with the sign of x from there on. */
INLINE float erf_f32(float x) {
    const double size = __builtin_fabs((double)x), z = size * size;
    const double outer = 1.0 - 2.0 * short_upper_tail(size * 0x1.6a09e667f3bcdp+0);
    const double inner = size * POLYNOMIAL_F64(z,
    7.88249711e-05, -0.0008018854993, 0.005189311943, -0.0268543288, 0.1128359746, -0.376126269, 1.128379166);
    return __builtin_copysignf((float)(size < 1.0 ? inner : outer), x);
}
INLINE double erf_f64(double x) {
    const double size = __builtin_fabs(x), z = size * size;
    const double outer = 1.0 - 2.0 * upper_tail(size * 0x1.6a09e667f3bcdp+0);
    const double p = z * POLYNOMIAL_F64(z,
    -7.798543850549947e-10, 1.3721520406351094e-08, -1.6208829856810202e-07, 1.6447471190594618e-06,
    -1.4924740785377576e-05, 0.00012055295112667001, -0.0008548325982543225, 0.005223977607269946,
    -0.026866170643256995, 0.1128379167094513, -0.37612638903183543);
    const double inner = size + size * (0.1283791670955126 + p);
    return __builtin_copysign(size < 1.0 ? inner : outer, x);
}
