"""A program to its models: the one to compile is chosen, and the mistakes of all are recorded."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from compiler.diagnostics import Diagnostics, Note, Span
from compiler.elaborate.declarations import check_declarations
from compiler.elaborate.evaluator import GaveUp
from compiler.elaborate.inputs import Storage
from compiler.elaborate.library import user_namespace
from compiler.elaborate.model import ElaboratedModel, ModelBuilder
from compiler.elaborate.recursion import recursive
from compiler.elaborate.values import Namespace
from compiler.language import syntax
from runtime.errors import did_you_mean


@recursive
def elaborate(
    program: syntax.Program,
    diagnostics: Diagnostics,
    model: str | None = None,
    storage: Mapping[str, Storage] | None = None,
) -> ElaboratedModel | None:
    """One model: by name, else the trained or the only one. If there are mistakes, those of all models are recorded."""
    namespace = checked(program, diagnostics)
    chosen = choose_model(program, diagnostics, model)
    result = None
    with suppress(GaveUp):
        result = build(program, chosen, namespace, diagnostics, storage) if chosen else None
        others = [model for model in models_of(program).values() if model is not chosen]
        for other in others if len(diagnostics) else ():
            build(program, other, namespace, diagnostics)
    return result


@recursive
def check_all(program: syntax.Program, diagnostics: Diagnostics) -> list[ElaboratedModel]:
    """All models of a file and its imports, if any; mistakes are recorded."""
    namespace, models = checked(program, diagnostics), models_of(program)
    if not program.functions and not len(diagnostics):
        choose_model(program, diagnostics, None)
    found: list[ElaboratedModel | None] = []
    with suppress(GaveUp):
        found += (build(program, model, namespace, diagnostics) for model in models.values())
    return [model for model in found if model]


def checked(program: syntax.Program, diagnostics: Diagnostics) -> Namespace:
    """The declarations of a program, after recording mistakes in them and in the names of train blocks."""
    namespace, models = user_namespace(program, diagnostics), models_of(program)
    check_declarations(program, namespace, diagnostics)
    first: dict[str, syntax.Train] = {}
    for train in program.trains:
        name, span = train.model.id, train.model.span
        if name not in models:
            unknown_model(name, span, list(models), diagnostics)
        elif first.setdefault(name, train) is not train:
            message, notes = f"a second train block for {name}", [Note("the first is here", first[name].model.span)]
            diagnostics.error(span, message, expected="one train block per model", found=name, notes=notes)
    return namespace


def build(
    program: syntax.Program,
    model: syntax.Function,
    namespace: Namespace,
    diagnostics: Diagnostics,
    storage: Mapping[str, Storage] | None = None,
) -> ElaboratedModel | None:
    train = next((train for train in program.trains if train.model.id == model.name.id), None)
    return ModelBuilder(model, train, namespace, diagnostics, storage or {}).build()


def models_of(program: syntax.Program) -> dict[str, syntax.Function]:
    return {function.name.id: function for function in program.functions if function.kind == "model"}


def unknown_model(name: str, span: Span | None, models: list[str], diagnostics: Diagnostics) -> None:
    hint = did_you_mean(name, models)
    message, expected = f"there is no model {name}" + (f"; {hint}" if hint else ""), ", ".join(models) or "a model"
    diagnostics.error(span, message, expected=expected, found=name)


def choose_model(program: syntax.Program, diagnostics: Diagnostics, name: str | None) -> syntax.Function | None:
    """The model with this name; else the trained one, the only one of the file, or the only one of all."""
    models = models_of(program)
    if name is not None:
        if name not in models:
            unknown_model(name, None, list(models), diagnostics)
        return models.get(name)
    trained = list(dict.fromkeys(train.model.id for train in program.trains))
    own = [model for model, function in models.items() if function.span.file == program.file]
    candidates = next((names for names in (trained, own, list(models)) if len(names) == 1), None)
    if candidates:
        return models.get(candidates[0])
    start = Span(program.file, 1, 1, 1, 2)
    if models:
        message, expected = "the file has several models", "--model NAME, or one train block"
        diagnostics.error(start, message, expected=expected, found=", ".join(models))
    elif not trained:
        expected = "model Name(x: f32[B, …]) { … }"
        diagnostics.error(start, "there is no model in this file", expected=expected, found=declared_kinds(program))
    return None


def declared_kinds(program: syntax.Program) -> str:
    kinds = dict.fromkeys(function.kind for function in program.functions)
    return " and ".join(f"declarations of kind {kind}" for kind in kinds) or "no declarations"
