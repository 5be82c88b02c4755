"""Checks of declarations before anything runs: their signatures, names that nothing declares, and unused names.

So mistakes are found even in a layer that no model uses, and in a branch that never runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from compiler.diagnostics import Diagnostics
from compiler.elaborate.expressions import CONSTANTS
from compiler.elaborate.values import Namespace
from compiler.language import syntax
from runtime.errors import did_you_mean

# Kinds that the compiler calls, not the program: how many tensors it passes, at least and at most.
TAKES = {
    "optimizer": (3, 3, "a parameter, its gradient and the step", "(p, g, step)"),
    "cell": (1, 1, "one step of a sequence", "(x: f32[B, n])"),
    "metric": (1, 1_000, "any output or target", "(prediction: f32[B], target: f32[B])"),
    "model": (1, 1_000, "any input", "(x: f32[B, n])"),
}
TRAIN_NOUNS = {"loss": "loss", "optimizer": "optimizer", "metrics": "metric"}
TRAIN_FORMS = {"scale": "arrays"}  # names that mean something only in this entry


def check_declarations(program: syntax.Program, namespace: Namespace, diagnostics: Diagnostics) -> None:
    """Records the mistakes in the declarations of a program, whether they are used or not."""
    for function in program.functions:
        check_signature(function, diagnostics)
        bound, uses = names_of(function)
        lost = function.damaged  # an assignment may be lost with a statement that has a syntax error
        unknown = [name for name in uses if name.id not in bound and not (lost and not name.id[0].isupper())]
        report_unknown(unknown, bound, namespace, diagnostics)
        if not lost:
            warn_about_unused(function, {name.id for name in uses}, diagnostics)
    for train in program.trains:
        for entry in train.entries:
            if entry.key.id != "data" or not isinstance(entry.value, syntax.Name):
                form, noun = TRAIN_FORMS.get(entry.key.id), TRAIN_NOUNS.get(entry.key.id)
                uses = [name for name in names_of(entry.value)[1] if name.id != form]
                report_unknown(uses, set(), namespace, diagnostics, noun)


def check_signature(function: syntax.Function, diagnostics: Diagnostics) -> None:
    """Parameters: unique names, hyperparameters without types, and as many tensors as the compiler passes."""
    name, tensors = function.name, function.groups[-1]
    seen: set[str] = set()
    for parameter in [parameter for group in function.groups for parameter in group]:
        if parameter.name.id in seen:
            message = f"{name.id} has two parameters named {parameter.name.id}"
            diagnostics.error(parameter.name.span, message, expected="unique names", found=parameter.name.id)
        seen.add(parameter.name.id)
        if parameter.type and sum(isinstance(dim, syntax.EllipsisDim) for dim in parameter.type.dims) > 1:
            diagnostics.error(parameter.type.span, "`...` occurs twice in a type", expected="one `...`", found="two")
    for parameter in function.groups[0] if len(function.groups) == 2 else ():
        if parameter.type:
            message, expected = f"the hyperparameter {parameter.name.id} has a type", "a name, or name = default"
            diagnostics.error(parameter.type.span, message, expected=expected, found="a tensor type")
    if function.kind in TAKES and not function.damaged:
        least, most, takes, expected = TAKES[function.kind]
        required = sum(parameter.default is None for parameter in tensors)
        if len(tensors) < least or required > most:
            found = "(" + ", ".join(parameter.name.id for parameter in tensors) + ")"
            diagnostics.error(name.span, f"{name.id} does not take {takes}", expected=expected, found=found)


def warn_about_unused(function: syntax.Function, used: set[str], diagnostics: Diagnostics) -> None:
    """Warns about assigned names, variables and hyperparameters that the declaration never reads.

    Not about tensors of a signature, which callers prescribe, loop variables, or names that begin with `_`; nor about
    some names of an unpacked list, if others are read.
    """
    types = [parameter.type for group in function.groups for parameter in group if parameter.type]
    used = used | {name.id for type in types for name in descendants(type) if isinstance(name, syntax.Name)}
    nodes = list(descendants(function))
    declared = {node.name.id for node in nodes if isinstance(node, syntax.Declare)}
    assigned = {target.id for node in nodes if isinstance(node, syntax.Assign) for target in node.targets}
    reported: set[str] = set()
    for node in nodes:
        noun, names, needed = "", (), used
        if isinstance(node, syntax.Assign):
            names, needed = node.targets, used | declared
        elif isinstance(node, syntax.Declare):
            noun, names, needed = f"the {node.kind} ", (node.name,), used | assigned
        elif node is function and len(function.groups) == 2 and not stands_in(function):
            noun, names = "the hyperparameter ", tuple(parameter.name for parameter in function.groups[0])
        if isinstance(node, syntax.Assign) and any(name.id in needed for name in names):
            continue
        for name in names:
            if name.id not in needed and name.id not in reported and not name.id.startswith("_"):
                reported.add(name.id)
                diagnostics.warn(name.span, f"{noun}{name.id} is never used in {function.name.id}")


def stands_in(function: syntax.Function) -> bool:
    """Whether it returns a parameter as it is: it may stand in for a declaration that needs its hyperparameters."""
    return all(
        isinstance(s, syntax.Return) and all(isinstance(v, syntax.Name) for v in s.values) for s in function.body
    )


def names_of(node: syntax.SyntaxNode) -> tuple[set[str], list[syntax.Name]]:
    """The names that a declaration binds anywhere in it, and all uses of names, in source order."""
    binders = {id(name): name for name in binders_in(node)}
    names = [name for name in descendants(node) if isinstance(name, syntax.Name)]
    bound = {name.id for name in binders.values()}
    if isinstance(node, syntax.Function):
        bound |= {"B"} if node.kind == "model" else set()
    return bound, [name for name in names if id(name) not in binders]


def binders_in(node: syntax.SyntaxNode) -> Iterator[syntax.Name]:
    """The names where they are bound: as parameters, shape variables and targets of assignments."""
    for each in descendants(node):
        if isinstance(each, syntax.Assign):
            yield from each.targets
        elif isinstance(each, syntax.For):
            yield each.variable
        elif isinstance(each, syntax.Declare | syntax.Function):
            yield each.name
        elif isinstance(each, syntax.Parameter):
            yield each.name
            yield from (dim for dim in (each.type.dims if each.type else ()) if isinstance(dim, syntax.Name))


def descendants(node: syntax.SyntaxNode) -> Iterator[syntax.SyntaxNode]:
    """The node and everything below it, in source order."""
    pending = [node]
    while pending:
        each = pending.pop()
        yield each
        pending += reversed(list(syntax.children(each)))


def report_unknown(
    names: list[syntax.Name], bound: set[str], namespace: Namespace, diagnostics: Diagnostics, noun: str | None = None
) -> None:
    """Reports names that are not declared, and marks them so that they are reported only once."""
    for name in names:
        if name.id in CONSTANTS or name.id == "training" or namespace.find(name.id):
            continue
        namespace.unknown.add(name.span)
        what = noun or ("layer" if name.id[0].isupper() else "name")
        hint = did_you_mean(name.id, [*bound, *CONSTANTS, "training", *namespace.names()])
        diagnostics.error(
            name.span,
            f"unknown {what} {name.id}" + (f"; {hint}" if hint else ""),
            expected="a name declared in the file, its imports or the standard library",
            found=name.id,
        )
