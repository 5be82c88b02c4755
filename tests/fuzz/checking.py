"""All checks of one program: IR text, gradients by finite differences, passes in the interpreter, generated code.

The unoptimized graph in the float64 interpreter is the oracle. The result is an `Outcome`: a bucket, the stage at which
a problem showed, and a description of it.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from compiler.diagnostics import Diagnostics, UserError
from compiler.driver import differentiate_one, elaborate_one
from compiler.elaborate.library import with_imports
from compiler.gradient.autodiff import NotDifferentiable
from compiler.ir.graph import Graph, Module
from compiler.ir.interpreter import Arrays
from compiler.ir.printer import print_module
from compiler.ir.reader import read_module
from compiler.ir.verifier import verify_module
from compiler.language.parser import parse
from compiler.passes.pipeline import Pass, labels, run_pass, with_optional
from compiler.targets.target import find_target
from tests.fuzz.comparing import FLOAT32, FLOAT64, Tolerance, finite, problem, unstable
from tests.fuzz.differences import gradient_problem
from tests.fuzz.drafts import BATCH
from tests.fuzz.graphs import add_gradients
from tests.fuzz.trajectories import (
    FAILED,
    Trajectory,
    generated,
    interpreted,
    interpreted_with_other_indices,
    trajectory,
)
from tests.liveness import check_liveness
from tests.programs import PIPELINES

DRAWS = 3  # attempts with new values, if the first ones meet a tie or a pole


@dataclass(frozen=True)
class Outcome:
    """`bucket`: passed, invalid, unstable, nan, mismatch or crash; `stage`: the guilty pass, plan, generate …"""

    bucket: str
    stage: str = ""
    detail: str = ""

    @property
    def is_finding(self) -> bool:
        return self.bucket in ("mismatch", "crash")

    @property
    def signature(self) -> tuple[str, str, str]:
        """What must stay the same while a program is reduced; for a crash, also the type of the exception."""
        kind = self.detail.split(":")[0] if self.bucket == "crash" else ""
        return self.bucket, self.stage.split(":")[0], kind


class Found(Exception):
    """A check failed."""

    def __init__(self, outcome: Outcome):
        super().__init__(str(outcome))
        self.outcome = outcome


PASSED = Outcome("passed")


def check_graph(forward: Graph, seed: int, *, differentiate: bool = True, brief: bool = False) -> Outcome:
    """Checks a graph, by default together with its gradients."""
    module = {forward.name: forward}
    try:
        with crashes("text"):
            check_text(module)
        if differentiate:
            with crashes("differentiate"):
                module = {forward.name: add_gradients(forward, seed)}
                verify_module(module, "differentiation")
    except Found as found:
        invalid = found.outcome.detail.startswith(NotDifferentiable.__name__)
        return Outcome("invalid", "differentiate", found.outcome.detail) if invalid else found.outcome
    return check_module(module, seed, brief, forward if differentiate else None)


def check_model(text: str, seed: int, *, brief: bool = False) -> Outcome:
    """Checks a program in the language."""
    try:
        with crashes("elaborate"):
            diagnostics = Diagnostics()
            tree = with_imports(parse(text, "fuzz.nn", diagnostics), diagnostics)
            elaborated = elaborate_one(tree, None, None, diagnostics)
            module = differentiate_one(elaborated, diagnostics)
    except Found as found:
        invalid = isinstance(found.__cause__, UserError)
        return Outcome("invalid", "elaborate", str(found.__cause__)) if invalid else found.outcome
    return check_module(module, seed, brief)


def check_module(module: Module, seed: int, brief: bool = False, forward: Graph | None = None) -> Outcome:
    """Checks a module with the values of a seed, and with new ones if those meet a tie or a pole.

    `brief`: at most one pipeline in the interpreter and one choice of passes for generated code, picked by the seed.
    `forward`: the graph without its gradients, if those are to be checked against finite differences.
    """
    outcome = PASSED
    for draw in range(DRAWS):
        outcome = check_values(module, 1000 * draw + seed, seed, brief, forward)
        if outcome.bucket not in ("unstable", "nan"):
            break
    return outcome


def check_values(module: Module, values: int, seed: int, brief: bool, forward: Graph | None) -> Outcome:
    try:
        with crashes("text"):
            check_text(module)
        with crashes("interpret"):
            path = trajectory(module, values)
            check = Check(module, path)
        if forward and finite(check.expected):
            check.gradients(forward, values)
        turn = seed // 7 % 3
        for i, target in enumerate(PIPELINES):
            if not brief or turn == i:
                check.passes(target, with_added=seed % 4 == 0)
        for i, chosen in enumerate(choices(seed)):
            if not brief or turn == i:
                check.code(chosen)
        if seed % 4 == 1 and not brief:
            check.source("cupy")
    except Found as found:
        return found.outcome
    return PASSED


def check_text(module: Module) -> None:
    """IR text reads back to the same text."""
    text = print_module(module)
    if print_module(read_module(text)) != text:
        raise Found(Outcome("mismatch", "text", "IR text does not read back to itself"))


def choices(seed: int) -> list[tuple[Pass, ...]]:
    """Choices of passes: NumPy's pipeline, the same without one optional pass, and with a random subset of those."""
    pipeline, random = PIPELINES["numpy"], Random(seed)
    optional = list(dict.fromkeys(each.name for each in pipeline if not each.required))
    without = optional[seed % len(optional)]
    dropped = {name for name in optional if random.random() < 0.5}
    return [
        tuple(pipeline),
        tuple(each for each in pipeline if each.name != without),
        tuple(each for each in pipeline if each.required or each.name not in dropped),
    ]


class crashes:
    """Turns any exception raised inside, except `Found`, into a crash at this stage."""

    def __init__(self, stage: str):
        self.stage = stage

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, Found):
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{frame.filename.rsplit('/', 1)[-1]}:{frame.name}"
            raise Found(Outcome("crash", self.stage, f"{type(error).__name__}: {error} ({place})")) from error


@dataclass
class State:
    """A module after some passes, its text, and whether the interpreter has confirmed it."""

    module: Module
    text: str
    interpreted: bool


def results_without(module: Module, path: Trajectory) -> Sequence[Arrays] | None:
    """The results if those indices outside their tables do not matter; None if a result depends on them."""
    first, second = (interpreted_with_other_indices(module, path, seed) for seed in (0, 1))
    return None if problem(first, second, FLOAT64) else first


class Check:
    """A module, its runs and their expected results. `states`: the module after each list of passes that was run."""

    def __init__(self, module: Module, path: Trajectory):
        self.module, self.path = module, path
        self.expected: Sequence[Arrays] = interpreted(module, path)
        self.unchecked = None if not self.expected or self.expected[-1] is not FAILED else results_without(module, path)
        self.states: dict[tuple[object, ...], State] = {(): State(module, print_module(module), True)}

    def compare(self, stage: str, found: Sequence[Arrays], tolerance: Tolerance) -> None:
        """Raises Found if the results differ; if the expected ones are not all finite, with a separate bucket."""
        text = problem(found, self.expected, tolerance)
        if text and self.unchecked and not problem(found, self.unchecked, tolerance):
            return  # a pass found that nothing depends on the index, so it need not be in its table
        if text:
            if not finite(self.expected):
                raise Found(Outcome("nan", stage, text))
            explained = unstable(lambda: interpreted(self.module, self.path), found, self.expected, tolerance)
            raise Found(Outcome("unstable" if explained else "mismatch", stage, text))

    def gradients(self, forward: Graph, seed: int) -> None:
        """Checks the gradients against finite differences of the outputs."""
        run = self.path.runs[0]
        with crashes("differentiate"):
            text = gradient_problem(self.module[run.graph], forward, run, self.path.variables, seed)
        if text:
            raise Found(Outcome("mismatch", "differentiate", text))

    def passes(self, target: str, with_added: bool) -> None:
        """Interprets the module after every pass that changed it."""
        optional = find_target(target).optional
        added = [each.name for each, _ in optional] if with_added else []
        pipeline = with_optional(PIPELINES[target], optional, added)
        for end, label in enumerate(labels(pipeline), start=1):
            state = self.after(pipeline[:end], label)
            if not state.interpreted:
                with crashes(label):
                    found = interpreted(state.module, self.path)
                self.compare(label, found, FLOAT64)
                state.interpreted = True

    def code(self, passes: Sequence[Pass]) -> None:
        """Generates NumPy code with these passes and runs it."""
        module = self.optimized(passes)
        with crashes("generate"):
            found = generated(module, self.path)
        if problem(found, self.expected, FLOAT32):
            with crashes("interpret"):
                after_passes = interpreted(module, self.path)
            self.compare("passes", after_passes, FLOAT64)
        self.compare("generate", found, FLOAT32)

    def source(self, target: str) -> None:
        """Generates the source for a target without running it."""
        chosen = find_target(target)
        module = self.optimized(chosen.pipeline)
        with crashes(f"generate {target}"):
            here = {name: graph for name, graph in module.items() if name not in chosen.on_host}
            plans, variables = chosen.plan(here, BATCH)
            for plan in plans:
                check_liveness(plan)
            with suppress(UserError):  # some ops run on the host only
                compile(chosen.generate("a fuzzed program", plans, variables), "<fuzz>", "exec")

    def optimized(self, passes: Sequence[Pass]) -> Module:
        for end, label in enumerate(labels(passes), start=1):
            self.after(passes[:end], label)
        return self.after(passes, "").module

    def after(self, passes: Sequence[Pass], label: str) -> State:
        """The module after some passes; all but the last, called `label`, have been run before."""
        key = tuple(each.run for each in passes)
        if key not in self.states:
            before = self.states[key[:-1]]
            with crashes(label):
                module = run_pass(passes[-1], before.module)
                text = print_module(module)
            self.states[key] = State(module, text, interpreted=before.interpreted and text == before.text)
        return self.states[key]
