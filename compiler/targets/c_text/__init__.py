"""One element of a tensor as C text, for kernels that are written in C or CUDA."""

from compiler.targets.c_text import windows as windows  # adds its rules to those of elements.py
