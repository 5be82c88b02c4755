/* What products are given. */
#pragma once
#include "step.h"

#ifndef TEMPLATE
#define TEMPLATE static UNUSED /* functions that are compiled with the text that calls them; see templates.h */
#endif

typedef void (*TileDone_f64)(
    const Step *s, const double *tile, long stride, long batch, long row, long rows, long column, long columns);

/* C[b] = A[b] B[b] for b < batch. A is rows x depth: (i, p) at a[b * a_batch + i * a_row + p * a_step]. B is
   depth x columns: (p, j) at b[b * b_batch + p * b_step + j * b_column]. A batch stride of 0 repeats a matrix. */
#define PRODUCT_OF(type, name) \
    typedef struct { \
        long batch, rows, columns, depth; \
        const type *a; \
        long a_batch, a_row, a_step; \
        const type *b; \
        long b_batch, b_step, b_column; \
    } name;
PRODUCT_OF(float, Product)
PRODUCT_OF(double, Product_f64)
