"""What a pass is, how a list of them runs, and how users choose among them. The lists belong to the targets.

The verifier runs after every pass.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any

from compiler.diagnostics import UserError
from compiler.ir.graph import Graph, Module
from compiler.ir.verifier import verify_module, verify_outputs
from runtime.errors import did_you_mean


@dataclass(frozen=True)
class Pass:
    """A function from graph to graph that keeps outputs and gradients.

    `required` says why nothing can be generated without the pass; empty for those that can be left out. If it `adds`
    outputs, their names begin with that.
    """

    name: str
    run: Callable[[Graph], Graph] | Callable[[Module], Module]
    required: str = ""
    of_module: bool = False  # whether it looks at all graphs together
    adds: str = ""

    @property
    def contract(self) -> str:
        """What it does, as equations: the docstring of its file."""
        return cleandoc(sys.modules[self.run.__module__].__doc__ or "")


def names_of(passes: Sequence[Pass]) -> list[str]:
    return [each.name for each in passes]


def run_pass(each: Pass, module: Module) -> Module:
    """A new module; raises VerificationError naming the pass if it broke the IR."""
    run: Callable[[Any], Any] = each.run
    result: Module = run(module) if each.of_module else {name: run(graph) for name, graph in module.items()}
    verify_module(result, each.name)
    for name, graph in module.items():
        verify_outputs(graph, result[name], each.name, each.adds)
    return result


def run_pipeline(module: Module, passes: Sequence[Pass]) -> Module:
    """The module after all passes."""
    for each in passes:
        module = run_pass(each, module)
    return module


# Choosing passes ------------------------------------------------------------------------------------------------------


def with_optional(
    pipeline: Sequence[Pass], optional: Sequence[tuple[Pass, str]], names: Sequence[str]
) -> tuple[Pass, ...]:
    """A pipeline with optional passes, each before the one named with it; raises UserError for an unknown name."""
    passes, known = list(pipeline), {each.name: (each, before) for each, before in optional}
    for name in names:
        if name not in known:
            raise unknown_pass(f"{name} is not an optional pass", name, [each for each, _ in optional])
        each, before = known[name]
        passes.insert(names_of(passes).index(before), each)
    return tuple(passes)


def choose(pipeline: Sequence[Pass], only: Sequence[str] | None, disabled: Sequence[str]) -> tuple[Pass, ...]:
    """The passes named `only`, in that order, or else those of the pipeline; less the disabled ones."""
    known = {each.name: each for each in pipeline}
    for name in (*(only or ()), *disabled):
        if name not in known:
            raise unknown_pass(f"there is no pass {name}", name, pipeline)
    chosen = pipeline if only is None else [known[name] for name in only]
    return tuple(each for each in chosen if each.name not in disabled)


def unknown_pass(message: str, name: str, passes: Sequence[Pass]) -> UserError:
    names = list(dict.fromkeys(names_of(passes)))
    hint = did_you_mean(name, names)
    message += f"; {hint}" if hint else ""
    return UserError.plain(message, expected=", ".join(names) or "nothing: there is none", found=name)


def check_complete(passes: Sequence[Pass], pipeline: Sequence[Pass]) -> None:
    """Raises UserError unless code can be generated after these passes.

    Those required are there, and after the last run of each come only passes that come after it in the pipeline.
    """
    found = ", ".join(each.name for each in passes) or "no passes"
    for each in (each for each in pipeline if each.required):
        if each not in passes:
            message = f"no code can be generated without the pass {each.name}"
            raise UserError.plain(message, expected=f"{each.name}: {each.required}", found=found)
        wrong = next((other for other in after(each, passes) if other not in after(each, pipeline)), None)
        if wrong is not None:
            message = f"no code can be generated where the pass {wrong.name} runs after {each.name}"
            raise UserError.plain(message, expected=f"{wrong.name} before {each.name}: {each.required}", found=found)


def after(each: Pass, passes: Sequence[Pass]) -> Sequence[Pass]:
    """What runs after the last run of a pass."""
    return passes[len(passes) - list(passes)[::-1].index(each) :]


def labels(passes: Sequence[Pass]) -> list[str]:
    """The names of passes, numbered where one runs several times: `simplify:1`, `dead-code`, `simplify:2`."""
    names = names_of(passes)
    return [f"{n}:{names[: i + 1].count(n)}" if names.count(n) > 1 else n for i, n in enumerate(names)]


def find_label(passes: Sequence[Pass], wanted: str) -> str:
    """The label of a pass that runs; a bare name means the last of that name."""
    for each, label in reversed(list(zip(passes, labels(passes), strict=True))):
        if wanted in (each.name, label):
            return label
    raise unknown_pass(f"the pass {wanted} does not run", wanted, passes)
