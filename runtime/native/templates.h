/* Products and convolutions. With NNC_TEMPLATES they are in a library of their own (templates.c), which is compiled once
   for all programs; without it they are part of the text, as in a program of one file. */
#pragma once
#ifdef NNC_TEMPLATES
#define multiply nnc_multiply
#define multiply_f64 nnc_multiply_f64
#define convolve nnc_convolve
#define convolve_input_grad nnc_convolve_input_grad
#define convolve_filter_grad nnc_convolve_filter_grad
#define convolve_f64 nnc_convolve_f64
#define convolve_input_grad_f64 nnc_convolve_input_grad_f64
#define convolve_filter_grad_f64 nnc_convolve_filter_grad_f64
#include "product.h"
#include "tiles.h"
#include "windows.h"

void multiply(const Step *s, const Product *p, TileDone done);
void multiply_f64(const Step *s, const Product_f64 *p, TileDone_f64 done);
void convolve(
    const Step *s, const Convolution *c, const float *x, const float *w, TileDone done);
void convolve_input_grad(
    const Step *s, const Convolution *c, const float *dy, const float *w, TileDone done);
void convolve_filter_grad(
    const Step *s, const Convolution *c, const float *x, const float *dy, TileDone done);
void convolve_f64(
    const Step *s, const Convolution *c, const double *x, const double *w, TileDone_f64 done);
void convolve_input_grad_f64(
    const Step *s, const Convolution *c, const double *dy, const double *w, TileDone_f64 done);
void convolve_filter_grad_f64(
    const Step *s, const Convolution *c, const double *x, const double *dy, TileDone_f64 done);
#else
#include "products.h"
#include "convolutions.h"
#endif
