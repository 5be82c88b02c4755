"""One element of a tensor as C text, for kernels that are written in C or CUDA."""
