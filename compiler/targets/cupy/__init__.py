"""CuPy source with CUDA kernels: runs on an NVIDIA GPU."""
