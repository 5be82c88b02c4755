"""The runtime of generated NumPy code: kernels, threads, the profiler."""
