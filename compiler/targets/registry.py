"""The registry of targets that a program can be compiled for.

A target is a folder with two files: `target.py` has its `TARGET`, the record for compiling (see targets/target.py), and
`running.py` its `RUNTIME`, the record for running (see targets/running.py). Adding a target takes its folder and a row
here. Each file is imported only when needed: running a program from the cache needs only `RUNTIME`.
"""

from __future__ import annotations

TARGETS = {
    "numpy": "compiler.targets.numpy",
    "c": "compiler.targets.c",
    "cupy": "compiler.targets.cupy",
}  # name -> package
# The default target. It also runs the graphs that other targets leave to the host, and replay uses it.
HOST = "numpy"
