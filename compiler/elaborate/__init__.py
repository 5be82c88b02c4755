"""Syntax tree to graph IR: runs the compile-time part of a program, and what is left of it is the graph.

namespaces.py   which declarations a name can mean: the file, its imports, the standard library
values.py       what an expression can be at compile time
context.py      the graph being built: nodes, variables, captures of scan bodies
signatures.py   arguments to parameters, shapes to shape variables
evaluator.py    expressions, statements, calls
arithmetic.py   operators
builtins.py     the functions that are not written in the language
scans.py        a cell to a `scan` node
training.py     the train block
model.py        a model to its graphs init, predict, evaluate and train_step
"""
