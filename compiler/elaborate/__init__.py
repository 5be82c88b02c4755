"""Syntax tree to graph IR: the compile-time part of a program is run, and what remains is the graph.

program.py                          a program to its models
declarations.py                     what can be checked before anything runs
model.py                            a model to its graphs init, predict, evaluate, train_step and metrics
losses.py training.py               the train block: losses, metrics and settings
forward.py inputs.py                a forward pass of a model; inputs and targets
library.py                          which declaration a name means: the file, its imports, the standard library
expressions.py statements.py        how each kind of expression and statement runs
totals.py                           totals of metrics, and what follows from them
tensor_builtins.py number_builtins.py   functions that are not written in the language
scans.py                            a cell to a `scan` node
variables.py                        assignments; params, states and carries
calls.py                            hyperparameters, tensors and shape variables of a call
indexing.py arithmetic.py           x[i, a:b] and operators
arguments.py                        checks of the arguments of builtins
builtins.py                         how builtins are registered and called
signatures.py                       arguments to parameters, shapes to shape variables
evaluator.py                        runs nodes of the tree with the tables that the files above fill; reports mistakes
frames.py                           the declarations that are running
context.py                          the graph being built: nodes, variables, captures of scan bodies
values.py                           compile-time values and namespaces
recursion.py                        stack space for nested calls

A file imports only files below it.
"""
