"""What generated NumPy code calls: kernels, threads, the profiler."""
