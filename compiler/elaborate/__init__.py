"""Syntax tree to graph IR: runs the compile-time part of a program, and what is left of it is the graph.

program.py           a program to its models; declarations.py what can be said before anything runs
model.py             a model to its graphs init, predict, evaluate and train_step; inputs.py, losses.py, training.py
evaluator.py         runs expressions.py and statements.py; reports mistakes where the author made them
calls.py             hyperparameters, tensors, shape variables (signatures.py); scans.py a cell to a `scan` node
variables.py         names, params, states, carries
builtins.py          functions that are not written in the language: tensor_builtins.py, number_builtins.py, indexing.py
arithmetic.py        operators; arguments.py what builtins accept
namespaces.py        which declarations a name can mean: the file, its imports, the standard library
values.py frames.py  what expressions are at compile time, and what is running
recursion.py         room for calls within calls
context.py           the graph being built: nodes, variables, captures of scan bodies
"""
