/* Functions of runtime/native as loops over arrays, for test_functions.py. */
#include "functions.h"
#include "random.h"

#define LOOP(name, suffix, type, call)                                                              \
    void name##_##suffix##_loop(long n, const type *x, const type *y, type *out) {                  \
        PRAGMA(omp simd) for (long i = 0; i < n; ++i) out[i] = call;                                \
    }
#define ONE(name) LOOP(name, f32, float, name##_f32(x[i])) LOOP(name, f64, double, name##_f64(x[i]))
#define TWO(name) LOOP(name, f32, float, name##_f32(x[i], y[i])) LOOP(name, f64, double, name##_f64(x[i], y[i]))
#define WHOLE(name) \
    LOOP(name, i32, int, name##_i32(x[i], y[i])) LOOP(name, i64, long long, name##_i64(x[i], y[i])) \
    LOOP(name, u8, unsigned char, name##_u8(x[i], y[i]))

ONE(exp) ONE(expm1) ONE(log) ONE(log1p) ONE(tanh) ONE(sigmoid) ONE(sin) ONE(cos) ONE(erf) ONE(normcdf)
ONE(floor) ONE(sqrt) ONE(abs) ONE(sign)
TWO(pow) TWO(mod) TWO(floor_div) TWO(max) TWO(min)
WHOLE(mod) WHOLE(floor_div) WHOLE(max) WHOLE(min)

void uniform(int part, int parts, float *out, long long seed, int step, unsigned long long stream, long long first, long count) {
    const Step s = {.part = part, .parts = parts};
    fill_uniform(&s, out, seed, step, stream, first, count);
}
float one_uniform(long long seed, int step, unsigned long long stream, long long n) {
    return philox_uniform(seed, step, stream, n);
}

#define NORMAL(name) \
    void name(int part, int parts, float *out, long long seed, int step, unsigned long long stream, long long row, \
              long rows, long count) { \
        const Step s = {.part = part, .parts = parts}; \
        fill_##name(&s, out, seed, step, stream, row, rows, count); \
    }
NORMAL(normal) NORMAL(truncated_normal)
