"""The train block: every key with its default and what it may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from compiler.diagnostics import Span, did_you_mean
from compiler.elaborate.evaluator import Evaluator, Frame
from compiler.elaborate.values import Closure, describe, is_function, poisoned
from compiler.language import syntax

LARGEST = 2**31 - 1


def whole(low: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= LARGEST


def functions(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_function, value))


@dataclass(frozen=True)
class Key:
    """One key of a train block."""

    default: Any
    accepts: Callable[[Any], bool]
    expected: str


KEYS: dict[str, Key] = {
    "data": Key("digits", lambda v: isinstance(v, str), "mnist, digits, or the path of a data set as a string"),
    "loss": Key(None, is_function, "a function of the outputs and targets"),
    "metrics": Key([], functions, "a list of functions of the outputs and targets"),
    "optimizer": Key(None, lambda v: isinstance(v, Closure) and v.kind == "optimizer", "an optimizer"),
    "batch": Key(128, whole(1), "a whole number from 1"),
    "epochs": Key(1, whole(1), "a whole number from 1"),
    "seed": Key(0, whole(0), "a whole number from 0"),
    "shuffle": Key(True, lambda v: isinstance(v, bool), "true or false"),
    "patience": Key(None, lambda v: v is None or whole(1)(v), "none or a number of epochs from 1"),
    "checkpoint": Key(1, whole(1), "a number of epochs from 1"),
}
NEEDED = ("loss", "optimizer")


@dataclass(frozen=True)
class TrainBlock:
    """A train block with its values; `spans` says where each given key stands."""

    model: str
    values: dict[str, Any]
    spans: dict[str, Span]
    span: Span

    @property
    def metric_names(self) -> list[str]:
        names: list[str] = []
        for metric in self.values["metrics"]:
            count = sum(name == metric.name or name.startswith(f"{metric.name}_") for name in names)
            names.append(f"{metric.name}_{count + 1}" if count else metric.name)
        return names


def read_train_block(node: syntax.Train, evaluator: Evaluator, frame: Frame) -> TrainBlock | None:
    """Checks and evaluates a train block; None after recording its mistakes."""
    values: dict[str, Any] = {}
    spans: dict[str, Span] = {}
    faults = evaluator.fail
    for entry in node.entries:
        name = entry.key.id
        if name not in KEYS:
            hint = did_you_mean(name, KEYS)
            faults(
                entry.key.span,
                frame,
                f"unknown key {name} in train {node.model.id}" + (f"; {hint}" if hint else ""),
                ", ".join(KEYS),
                name,
            )
            continue
        if name in spans:
            faults(entry.key.span, frame, f"{name} is given twice", f"one {name}, as in line {spans[name].line}")
            continue
        spans[name] = entry.value.span
        value = entry_value(entry, evaluator, frame)
        if not poisoned(value) and not KEYS[name].accepts(value):
            faults(entry.value.span, frame, f"not a value for {name}", KEYS[name].expected, describe(value))
            value = None
        values[name] = value
    for name in NEEDED:
        if name not in spans:
            faults(node.model.span, frame, f"train {node.model.id} has no {name}", f"{name} = {KEYS[name].expected}")
    complete = {name: values.get(name, key.default) for name, key in KEYS.items()}
    usable = all(not poisoned(value) for value in complete.values()) and all(complete[name] for name in NEEDED)
    return TrainBlock(node.model.id, complete, spans, node.span) if usable else None


def entry_value(entry: syntax.Entry, evaluator: Evaluator, frame: Frame) -> Any:
    """The value of an entry; a data set's name is a name of its own."""
    if entry.key.id == "data" and isinstance(entry.value, syntax.Name):
        return entry.value.id
    return evaluator.evaluate(entry.value, frame)
