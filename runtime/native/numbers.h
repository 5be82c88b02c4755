/* Numbers as bits, sums and products without rounding errors, and what the operators of C lack: maxima and minima that
   keep NaN, quotients and remainders of Python. Functions of one number are branch-free, so that compilers vectorize
   loops that call them. */
#pragma once
#include "vectors.h"

INLINE float float_of(uint32_t bits) { float x; memcpy(&x, &bits, sizeof x); return x; }
INLINE double double_of(uint64_t bits) { double x; memcpy(&x, &bits, sizeof x); return x; }
INLINE uint32_t bits_of_float(float x) { uint32_t bits; memcpy(&bits, &x, sizeof bits); return bits; }
INLINE uint64_t bits_of_double(double x) { uint64_t bits; memcpy(&bits, &x, sizeof bits); return bits; }
#define __int_as_float(x) float_of((uint32_t)(x)) /* constants are printed as for CUDA */
#define __longlong_as_double(x) double_of((uint64_t)(x))
#define INFINITY_F32 __builtin_inff()
#define INFINITY_F64 __builtin_inf()

/* Adding this rounds to a whole number, and leaves it in the low bits, as a two's complement. */
#define ROUNDER_F32 0x1.8p23f
#define ROUNDER_F64 0x1.8p52

/* x 2^n for a whole number n, by two factors: also if 2^n is not a normal number. */
INLINE float scaled_f32(float x, float n) {
    const float half = (n * 0.5f + ROUNDER_F32) - ROUNDER_F32, rest = n - half;
    const float a = float_of(bits_of_float(half + (ROUNDER_F32 + 127.0f)) << 23);
    return x * a * float_of(bits_of_float(rest + (ROUNDER_F32 + 127.0f)) << 23);
}
INLINE double scaled_f64(double x, double n) {
    const double half = (n * 0.5 + ROUNDER_F64) - ROUNDER_F64, rest = n - half;
    const double a = double_of(bits_of_double(half + (ROUNDER_F64 + 1023.0)) << 52);
    return x * a * double_of(bits_of_double(rest + (ROUNDER_F64 + 1023.0)) << 52);
}

/* A sum of two numbers that are not rounded to one. */
typedef struct { double high, low; } Pair;

/* a + b (Knuth, 1969). */
INLINE Pair sum_of_two(double a, double b) {
    const double sum = a + b, other = sum - a;
    return (Pair){sum, (a - (sum - other)) + (b - other)};
}
/* a + b if |a| >= |b| (Dekker, 1971). */
INLINE Pair sum_in_order(double a, double b) {
    const double sum = a + b;
    return (Pair){sum, b - (sum - a)};
}
/* A number rounded to 26 bits; the rest has 26 bits, too. */
INLINE double upper_half(double x) { return double_of((bits_of_double(x) + 0x4000000) & 0xfffffffff8000000); }
/* a b: the low half by a fused multiplication, or from halves of the factors (Dekker, 1971). */
INLINE Pair product_of_two(double a, double b) {
    const double product = a * b;
#if defined(__FMA__) || defined(__aarch64__) || defined(__FP_FAST_FMA)
    return (Pair){product, __builtin_fma(a, b, -product)};
#else
    const double a_high = upper_half(a), a_low = a - a_high;
    const double b_high = upper_half(b), b_low = b - b_high;
    return (Pair){product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low};
#endif
}

/* sum += value, where `lost` is what rounding has added to the sum so far (Kahan, 1965); infinities stay infinite. */
#define add_compensated(sum, lost, value)                                        \
    do {                                                                         \
        const __typeof__(sum) corrected_ = (value) - (lost), next_ = (sum) + corrected_; \
        (lost) = next_ - next_ == 0 ? (next_ - (sum)) - corrected_ : 0;          \
        (sum) = next_;                                                           \
    } while (0)

/* Maxima and minima are NaN if an operand is NaN; |-0| is 0; the sign of NaN is NaN, that of zeros 0. */
#define DEFINE_ORDER(suffix, type)                                                                  \
    INLINE type max_##suffix(type a, type b) { return (a >= b) | (a != a) ? a : b; }                \
    INLINE type min_##suffix(type a, type b) { return (a <= b) | (a != a) ? a : b; }                \
    INLINE type sign_##suffix(type a) { return a != a ? a : (type)((a > 0) - (a < 0)); }
DEFINE_ORDER(f32, float)
DEFINE_ORDER(f64, double)
DEFINE_ORDER(i32, int)
DEFINE_ORDER(i64, long long)
DEFINE_ORDER(u8, unsigned char)
INLINE float abs_f32(float a) { return a < 0 ? -a : a == 0 ? 0 : a; }
INLINE double abs_f64(double a) { return a < 0 ? -a : a == 0 ? 0 : a; }
INLINE int abs_i32(int a) { return a < 0 ? (int)(0u - (unsigned)a) : a; }
INLINE long long abs_i64(long long a) { return a < 0 ? (long long)(0ull - (unsigned long long)a) : a; }
INLINE unsigned char abs_u8(unsigned char a) { return a; }
#define OF_TYPE(type_of, name) \
    _Generic(type_of, float: name##_f32, double: name##_f64, int: name##_i32, long: name##_i64, long long: name##_i64)
#define max_of(a, b) OF_TYPE((a) + (b), max)(a, b)
#define min_of(a, b) OF_TYPE((a) + (b), min)(a, b)
#define abs_of(a) OF_TYPE(+(a), abs)(a)
#define sign_of(a) OF_TYPE(+(a), sign)(a)

INLINE float sqrt_f32(float x) { return __builtin_sqrtf(x); }
INLINE double sqrt_f64(double x) { return __builtin_sqrt(x); }
#if defined(__SSE4_1__) || defined(__aarch64__)
INLINE float floor_f32(float x) { return __builtin_floorf(x); }
INLINE double floor_f64(double x) { return __builtin_floor(x); }
#else /* without an instruction for it: rounded to the nearest whole number, and corrected */
INLINE float floor_f32(float x) {
    const float size = __builtin_fabsf(x), nearest = __builtin_copysignf((size + 0x1p23f) - 0x1p23f, x);
    const float down = __builtin_copysignf(nearest - (nearest > x ? 1.0f : 0.0f), x);
    return size < 0x1p23f ? down : x;
}
INLINE double floor_f64(double x) {
    const double size = __builtin_fabs(x), nearest = __builtin_copysign((size + 0x1p52) - 0x1p52, x);
    const double down = __builtin_copysign(nearest - (nearest > x ? 1.0 : 0.0), x);
    return size < 0x1p52 ? down : x;
}
#endif

/* The rest of |a| / |b|, with the sign of a, as fmod: long division, eleven bits at once. Not vectorized. */
UNUSED static double rest_f64(double a, double b) {
    const double size = __builtin_fabs(a), divisor = __builtin_fabs(b);
    if (!(size < INFINITY_F64) || divisor == 0 || b != b) return __builtin_nan("");
    if (size < divisor) return a;
    const uint64_t mantissa = ((uint64_t)1 << 52) - 1;
    uint64_t m = bits_of_double(size), n = bits_of_double(divisor);
    long above = (long)(m >> 52) - (long)(n >> 52); /* exponents; those of denormals are 1 */
    above += (n >> 52 == 0) ? (m >> 52 == 0 ? 0 : -1) : 0;
    const uint64_t exponent = n >> 52 == 0 ? 1 : n >> 52;
    m = (m & mantissa) | (m >> 52 == 0 ? 0 : mantissa + 1);
    n = (n & mantissa) | (n >> 52 == 0 ? 0 : mantissa + 1);
    m %= n;
    for (long bits; above > 0; above -= bits) {
        bits = above < 11 ? above : 11;
        m = (m << bits) % n;
    }
    const double unit = double_of(exponent > 52 ? (exponent - 52) << 52 : (uint64_t)1 << (exponent - 1));
    return __builtin_copysign((double)m * unit, a); /* m units in the last place of b: exact */
}
INLINE float rest_f32(float a, float b) { return (float)rest_f64(a, b); }

/* As in Python: the remainder has the sign of b; the quotient is the whole number next to (a - a mod b) / b, which a / b
   rounded down may miss by one. */
#define DEFINE_DIVISION_OF_FLOATS(suffix, type, copysign)                                              \
    INLINE type mod_##suffix(type a, type b) {                                                         \
        const type rest = rest_##suffix(a, b);                                                         \
        return rest == 0 ? copysign(rest, b) : (rest < 0) != (b < 0) ? rest + b : rest;                \
    }                                                                                                  \
    INLINE type floor_div_##suffix(type a, type b) {                                                   \
        if (b == 0) return a / b;                                                                      \
        const type rest = rest_##suffix(a, b);                                                         \
        const type exact = (a - rest) / b - (type)((rest != 0) & ((rest < 0) != (b < 0)));             \
        const type down = floor_##suffix(exact);                                                       \
        return exact == 0 ? copysign((type)0, a / b) : exact - down > (type)0.5 ? down + (type)1 : down; \
    }
DEFINE_DIVISION_OF_FLOATS(f32, float, __builtin_copysignf)
DEFINE_DIVISION_OF_FLOATS(f64, double, __builtin_copysign)

/* 0 for b = 0; the least number divided by -1 wraps around to itself. */
#define DEFINE_DIVISION_OF_INTEGERS(suffix, type, is_minus_one)                        \
    INLINE type mod_##suffix(type a, type b) {                                         \
        if (b == 0 || (is_minus_one)) return 0;                                        \
        const type rest = (type)(a % b);                                               \
        return rest != 0 && (rest < 0) != (b < 0) ? (type)(rest + b) : rest;           \
    }                                                                                  \
    INLINE type floor_div_##suffix(type a, type b) {                                   \
        if (b == 0) return 0;                                                          \
        if (is_minus_one) return (type)(0ull - (unsigned long long)a);                 \
        return (type)(a / b - (a % b != 0 && (a < 0) != (b < 0)));                     \
    }
DEFINE_DIVISION_OF_INTEGERS(i32, int, b == -1)
DEFINE_DIVISION_OF_INTEGERS(i64, long long, b == -1)
DEFINE_DIVISION_OF_INTEGERS(u8, unsigned char, false)
