"""The targets there are: what a program can be compiled for.

A target is a folder with two files: `target.py` has its `TARGET`, the record for compiling (see targets/target.py), and
`running.py` its `RUNTIME`, the record for running (see targets/running.py). A row here is all that adding one takes
outside of its folder. Neither file is imported before it is asked for: a program from the cache is run by `RUNTIME`
alone.
"""

from __future__ import annotations

TARGETS = {"numpy": "compiler.targets.numpy", "cupy": "compiler.targets.cupy"}  # name -> package
HOST = (
    "numpy"  # the default; it also runs the graphs that other targets leave to the host, and is what replay looks into
)
