"""C: fused kernels, compiled for the machine that they run on."""
