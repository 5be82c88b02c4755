"""What runs a compiled program: data sets, training, checkpoints and reports.

Nothing here imports the compiler. The compiler hands over source text and a manifest of plain data; a program that was
compiled once can be run with this package alone.
"""
