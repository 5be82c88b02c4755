/* Orthonormal rows or columns of a matrix, whichever are fewer: Q of a QR decomposition with a positive diagonal of R,
   by Householder's reflections as in LAPACK (Golub and Van Loan, "Matrix Computations", 5.2), in f64. */
#pragma once
#include "step.h"

/* `count` vectors of `size` numbers, and the factor of each reflection. */
typedef struct { double *vectors, *factors; long count, size; } Reflections;

/* y += a x */
INLINE void add_multiple(double *y, double a, const double *x, long n) {
    PRAGMA(omp simd) for (long i = 0; i < n; ++i) y[i] += a * x[i];
}
INLINE double inner_product(const double *x, const double *y, long n) {
    double sum = 0;
    PRAGMA(omp simd reduction(+ : sum)) for (long i = 0; i < n; ++i) sum += x[i] * y[i];
    return sum;
}
/* The length of a vector, scaled so that no square overflows. NaN if there is a NaN or an infinity. */
UNUSED static double length_of(const double *x, long n) {
    double largest = 0, sum = 0;
    for (long i = 0; i < n; ++i) largest = __builtin_fabs(x[i]) <= largest ? largest : __builtin_fabs(x[i]);
    if (largest == 0) return 0;
    for (long i = 0; i < n; ++i) sum += x[i] / largest * (x[i] / largest);
    return largest * __builtin_sqrt(sum);
}

/* Reflects vector k, without its first k numbers, to a multiple of the first unit vector, and all later vectors with
   it. The vector becomes that of the reflection I - factor v v', with v[0] = 1. Whether the multiple is negative. */
UNUSED static bool reflect(const Reflections *all, long k) {
    double *v = all->vectors + k * all->size + k;
    const long size = all->size - k;
    const double first = v[0], rest = length_of(v + 1, size - 1);
    all->factors[k] = 0;
    if (rest == 0) return first < 0; /* it is such a multiple */
    const double sides[2] = {first, rest}, length = __builtin_copysign(length_of(sides, 2), -first);
    all->factors[k] = (length - first) / length;
    for (long i = 1; i < size; ++i) v[i] /= first - length;
    v[0] = 1;
    for (long j = k + 1; j < all->count; ++j) {
        double *other = all->vectors + j * all->size + k;
        add_multiple(other, -all->factors[k] * inner_product(v, other, size), v, size);
    }
    return length < 0;
}
/* Replaces vector k of the reflections by that of Q; later vectors are already replaced by those of the reflections
   after k. */
UNUSED static void reflect_back(const Reflections *all, long k) {
    double *v = all->vectors + k * all->size;
    const long size = all->size - k;
    v[k] = 1; /* also without a reflection */
    for (long j = k + 1; j < all->count; ++j) {
        double *other = all->vectors + j * all->size + k;
        add_multiple(other, -all->factors[k] * inner_product(v + k, other, size), v + k, size);
    }
    for (long i = 0; i < k; ++i) v[i] = 0;
    for (long i = k + 1; i < all->size; ++i) v[i] *= -all->factors[k];
    v[k] = 1 - all->factors[k];
}

/* One thread computes it, in its workspace of 8 (rows columns + 2 smaller(rows, columns)) bytes. */
#define DEFINE_ORTHOGONALIZE(suffix, type)                                                                          \
    UNUSED static void orthogonalize_##suffix(const Step *s, type *out, const type *x, long rows, long columns) {   \
        if (s->part) return;                                                                                        \
        const bool tall = rows >= columns;                                                                          \
        const long count = tall ? columns : rows, size = tall ? rows : columns;                                     \
        const long step = tall ? columns : 1, next = tall ? 1 : columns; /* in a vector, and to the next one */      \
        double *vectors = (double *)workspace_of(s, s->part), *factors = vectors + count * size;                    \
        double *signs = factors + count;                                                                            \
        const Reflections all = {vectors, factors, count, size};                                                    \
        for (long k = 0; k < count; ++k)                                                                            \
            for (long i = 0; i < size; ++i) vectors[k * size + i] = x[k * next + i * step];                         \
        for (long k = 0; k < count; ++k) signs[k] = reflect(&all, k) ? -1 : 1;                                      \
        for (long k = count - 1; k >= 0; --k) reflect_back(&all, k);                                                \
        for (long k = 0; k < count; ++k)                                                                            \
            for (long i = 0; i < size; ++i) out[k * next + i * step] = (type)(signs[k] * vectors[k * size + i]);    \
    }
DEFINE_ORTHOGONALIZE(f32, float)
DEFINE_ORTHOGONALIZE(f64, double)
