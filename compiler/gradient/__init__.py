"""Derivatives: from a graph to the graph of its gradients, and a whole training step.

Importing this package registers the gradient rules of ops with a body, which need the differentiation of graphs.
"""

from compiler.gradient import scans

__all__ = ["scans"]
