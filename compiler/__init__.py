"""nnc: a compiler for neural networks written in a small text language."""

__version__ = "0.1.0"
