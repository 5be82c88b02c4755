"""From a captured step to a report: compiles its program again, runs the step again, and reports the first bad op."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from compiler.diagnostics import Diagnostics, UserError
from compiler.driver import Compilation, compile_tree
from compiler.language.parser import parse
from compiler.numerics.blame import find
from compiler.numerics.report import Places, batch_line, blame_lines, report_of
from compiler.numerics.runs import Run, fitting, run_generated, run_in_float64, without_joining
from compiler.passes.pipeline import Pass, choose
from compiler.targets.registry import HOST
from compiler.targets.target import find_target
from runtime.errors import RuntimeUserError, quoted
from runtime.program import LoadedProgram
from runtime.training.captures import Capture, Recipe, StepResult
from runtime.training.conditions import TARGET, changes, conditions

AGAIN = "the step is finite as NumPy code, which differs in rounding: the numbers are close to the limits of the type"
HOW = "found by running the step again as NumPy code, which is equal up to rounding"
PROGRAM = "program.nn"  # the resolved program in the folder of a run, next to its dumps


@dataclass(frozen=True)
class Stored:
    """How a data set stored an array."""

    dtype: str
    scale: float


@dataclass(frozen=True)
class Source:
    """The text of a program and how it was compiled; `check` may raise UserError for a compiled program."""

    recipe: Recipe
    file: str
    check: Callable[[Compilation], None]

    def compile(self, passes: Sequence[Pass], diagnostics: Diagnostics) -> Compilation:
        """Raises UserError, or RuntimeUserError if the text is not a resolved program."""
        diagnostics.sources[self.file] = self.recipe.text
        tree = parse(self.recipe.text, self.file, diagnostics)
        if tree.imports:
            raise RuntimeUserError(
                "the program of a dump imports files", expected="a resolved program", found="imports"
            )
        storage = {name: Stored(str(dtype), float(scale)) for name, (dtype, scale) in self.recipe.storage.items()}
        compiled = compile_tree(
            tree,
            model=self.recipe.model,
            storage=storage,
            passes=passes,
            diagnostics=diagnostics,
            rows=self.recipe.rows,
        )
        self.check(compiled)
        return compiled

    def passes(self) -> tuple[Pass, ...]:
        """Raises UserError if a name is not a pass."""
        return choose(find_target().pipeline, self.recipe.passes, ())


def places_of(compiled: Compilation, sources: Mapping[str, str]) -> Places:
    parameters = (spec.name for spec in compiled.manifest.variables if spec.kind == "param")
    return Places(sources, frozenset(parameters))


def same_target(capture: Capture) -> bool:
    """Whether the step was trained by code for the host, which runs it again to the same bits."""
    return capture.conditions.get(TARGET, HOST) == HOST


def first_report(compiled: Compilation, capture: Capture, sources: Mapping[str, str]) -> str:
    """The report when training stops: the first bad op in the code that ran, and the batch.

    A program of another target is run again as NumPy code, which is equal to it up to rounding.
    """
    run = run_generated("fused", compiled, capture)
    blame, places = find(run.trace), places_of(compiled, sources)
    if not same_target(capture):
        lines = [AGAIN] if blame is None else [*blame_lines(blame, capture, places), HOW]
        return "\n".join([*lines, batch_line(capture)])
    if blame is None or run.found.differing(capture.result):
        return f"{batch_line(capture)}\nthe step gave different numbers when run again: the machine may be faulty"
    return "\n".join([*blame_lines(blame, capture, places), batch_line(capture)])


def replay(capture: Capture, recipe: Recipe, file: str, check: Callable[[Compilation], None]) -> str:
    """The report of a dump; raises RuntimeUserError where the dump does not fit the program in it.

    `check` is called with each compiled program before it runs, and may raise UserError.
    """
    diagnostics = Diagnostics()
    source = Source(recipe, file, check)
    try:
        fused = source.compile(source.passes(), diagnostics)
        if problem := fitting(capture, fused):
            raise RuntimeUserError("the dump does not fit the program in it", found=quoted(problem))
    except UserError as error:
        raise RuntimeUserError(f"the program of the dump cannot be compiled: {error}") from error
    places = places_of(fused, diagnostics.sources)
    again = capture.run(LoadedProgram(fused.executable, fused.manifest))
    lines = [batch_line(capture), "", f"fused code: {sameness(again, capture)}"]
    run = run_generated("fused", fused, capture)
    lines += indented(report_of(run, capture, places))
    lines += ["", "code without fusion"]
    unfused = source.compile(without_joining(source.passes()), Diagnostics())
    lines += indented(report_of(run_generated("unfused", unfused, capture), capture, places))
    lines += ["", "interpreter in float64"]
    exact = run_in_float64("float64", fused, capture)
    lines += indented(report_of(exact, capture, places))
    return "\n".join([*lines, "", verdict(run, exact)])


def indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def sameness(again: StepResult, capture: Capture) -> str:
    """Whether the step gave the same bits as in training, and possible reasons if not."""
    differing = again.differing(capture.result)
    if not differing:
        return "the same bits as in training"
    if not same_target(capture):
        target = quoted(str(capture.conditions[TARGET]))
        return f"NumPy code; it was trained by target {target}, which is equal up to rounding"
    changed = "; ".join(changes(capture.conditions, conditions()))
    return f"different bits than in training ({', '.join(differing)}); {changed or 'no known reason'}"


def verdict(fused: Run, exact: Run) -> str:
    """The conclusion from both runs."""
    if not fused.trace.bad:
        return "the step is finite now"
    if not exact.trace.bad:
        return "finite in float64: the numbers are beyond the range of float32"
    return "not finite in float64 either: precision is not the cause"
