"""What generated CuPy code calls: CuPy, cuBLAS, kernels in CUDA."""
