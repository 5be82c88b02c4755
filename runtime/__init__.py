"""Runs a compiled program: data sets, training, checkpoints and reports.

Nothing here imports the compiler, which passes on source text and a manifest of plain data: a program that was compiled
once runs with this package only.
"""
