"""The passes, in the order they run, each with its reason, and how some of them are chosen.

The verifier runs after every one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from inspect import cleandoc
from typing import Any

from compiler.diagnostics import UserError
from compiler.ir.graph import Graph, Module
from compiler.ir.verifier import verify_module, verify_outputs
from compiler.passes.batch_norm_folding import fold_batch_norms
from compiler.passes.common_subexpressions import merge_common_subexpressions
from compiler.passes.constant_folding import fold_constants
from compiler.passes.dead_code import remove_dead_code
from compiler.passes.materialize import materialize_apart, materialize_outputs
from compiler.passes.parameter_folding import fold_parameters
from compiler.passes.pooling import pool_early
from compiler.passes.scan_hoisting import hoist_from_scans
from compiler.passes.scans_together import bring_scans_together
from compiler.passes.simplify import simplify
from compiler.passes.sums_of_products import sum_products
from compiler.targets.cupy.grouping import make_kernels
from compiler.targets.cupy.im2col import multiply_patches
from compiler.targets.numpy.convolutions import lower_convolutions
from compiler.targets.numpy.fusion import fuse
from compiler.targets.numpy.regions import tile
from runtime.errors import did_you_mean


@dataclass(frozen=True)
class Pass:
    """A function from graph to graph that keeps outputs and gradients.

    `required` says why nothing can be generated without the pass; empty for those that can be left out.
    """

    name: str
    run: Callable[[Graph], Graph] | Callable[[Module], Module]
    required: str = ""
    of_module: bool = False  # whether it looks at all graphs together

    @property
    def contract(self) -> str:
        """What it does, as equations: the docstring of its file."""
        return cleandoc(sys.modules[self.run.__module__].__doc__ or "")


def names_of(passes: Sequence[Pass]) -> list[str]:
    return [each.name for each in passes]


NUMPY_PIPELINE = (
    Pass("scan-hoisting", hoist_from_scans),  # first: what leaves a body is then treated like everything else
    Pass("dead-code", remove_dead_code),  # autodiff leaves gradients that nobody asked for
    Pass("common-subexpressions", merge_common_subexpressions),  # equations must see which operands are the same
    Pass("constant-folding", fold_constants),  # elaboration leaves numbers, which the equations are about
    Pass("simplify", simplify),  # behind scan-hoisting, which knows sums in loops by their plain form
    Pass("dead-code", remove_dead_code),  # what the equations did without; the next counts who reads a product
    Pass("batch-norm-folding", fold_batch_norms),  # while there are convolutions, and factors stand right behind them
    Pass("pooling", pool_early, required="NumPy has no kernel that looks for maxima again"),  # offsets are one by now
    Pass("convolutions", lower_convolutions, required="NumPy's kernels take no padding and no groups"),
    Pass("simplify", simplify),  # offsets that the folding brought together, and the shapes of products
    Pass("common-subexpressions", merge_common_subexpressions),  # forward and backward share patches; schedules repeat
    Pass("sums-of-products", sum_products),  # before it is asked who reads the products
    Pass("dead-code", remove_dead_code),  # once more what nobody reads any longer
    Pass("fold-parameters", fold_parameters, of_module=True),  # all that depends on the variables alone is known by now
    Pass("fusion", fuse),  # what is left is what has to be computed
    Pass("tiling", tile, required="NumPy runs the nodes of a region one by one"),  # in parts that stay in the cache
    Pass("scans-together", bring_scans_together),  # the order is final but for copies
    Pass("materialize", materialize_outputs, required="the memory plan relies on it"),  # last: nothing may undo it
)

CUPY_PIPELINE = (
    # The passes above "convolutions" are not about how a target computes, and none of them has to run for this one.
    *(replace(each, required="") for each in NUMPY_PIPELINE[: names_of(NUMPY_PIPELINE).index("convolutions")]),
    Pass("simplify", simplify),  # the kernels of convolutions take padding and groups as they are
    Pass("common-subexpressions", merge_common_subexpressions),
    Pass("sums-of-products", sum_products),
    Pass("dead-code", remove_dead_code),
    Pass("fold-parameters", fold_parameters, of_module=True),
    Pass("materialize", materialize_apart, required="the memory plan relies on it"),
    Pass("kernels", make_kernels),  # regions, each of which is one launch; copies are part of them
    Pass("scans-together", bring_scans_together),  # the order is final
)

PIPELINES = {"numpy": NUMPY_PIPELINE, "cupy": CUPY_PIPELINE}
# Passes that run if they are asked for, by target, each with the one before which it then runs.
OPTIONAL: dict[str, Sequence[tuple[Pass, str]]] = {
    "numpy": (),
    "cupy": ((Pass("im2col", multiply_patches), "sums-of-products"),),
}


def run_pass(each: Pass, module: Module) -> Module:
    """A new module; raises VerificationError naming the pass if it broke the IR."""
    run: Callable[[Any], Any] = each.run
    result: Module = run(module) if each.of_module else {name: run(graph) for name, graph in module.items()}
    verify_module(result, each.name)
    for name, graph in module.items():
        verify_outputs(graph, result[name], each.name)
    return result


def run_pipeline(module: Module, passes: Sequence[Pass] = NUMPY_PIPELINE) -> Module:
    """The module after all passes."""
    for each in passes:
        module = run_pass(each, module)
    return module


# Choosing passes ------------------------------------------------------------------------------------------------------


def with_optional(target: str, names: Sequence[str]) -> tuple[Pass, ...]:
    """The pipeline of a target with optional passes in their places; raises UserError for a name that is none."""
    pipeline, optional = list(PIPELINES[target]), {each.name: (each, before) for each, before in OPTIONAL[target]}
    for name in names:
        if name not in optional:
            raise unknown_pass(f"{name} is no pass that could be added", name, [each for each, _ in OPTIONAL[target]])
        each, before = optional[name]
        pipeline.insert(names_of(pipeline).index(before), each)
    return tuple(pipeline)


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

    Those required are there, and behind the last of each run only passes that stand behind it in the pipeline.
    """
    found = ", ".join(each.name for each in passes) or "no passes"
    for each in (each for each in pipeline if each.required):
        if each not in passes:
            message = f"no code can be generated without the pass {each.name}"
            raise UserError.plain(message, expected=f"{each.name}: {each.required}", found=found)
        wrong = next((other for other in behind(each, passes) if other not in behind(each, pipeline)), None)
        if wrong is not None:
            message = f"no code can be generated where the pass {wrong.name} runs behind {each.name}"
            raise UserError.plain(message, expected=f"{wrong.name} before {each.name}: {each.required}", found=found)


def behind(each: Pass, passes: Sequence[Pass]) -> Sequence[Pass]:
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
