"""Derivatives: from a graph to the graph of its gradients, and a whole training step."""
