"""The runtime of generated CuPy code: CuPy, cuBLAS, kernels in CUDA."""
