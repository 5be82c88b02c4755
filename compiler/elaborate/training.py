"""The train block: every key with its default and the values it accepts, and warnings about unusual values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from compiler.diagnostics import Span
from compiler.elaborate.evaluator import Evaluator
from compiler.elaborate.frames import Frame
from compiler.elaborate.inputs import ALL_INPUTS
from compiler.elaborate.values import POISON, Closure, describe, is_function, is_number, named_without_quotes, poisoned
from compiler.elaborate.variables import RESERVED
from compiler.language import syntax
from compiler.language.formatter import format_expression
from runtime.datasets import BUILT_IN
from runtime.errors import did_you_mean

LARGEST = 2**31 - 1
LEAST_SCALE = 1e-30  # and the largest is 1 / LEAST_SCALE: both are normal numbers in f32


def whole(low: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= LARGEST


def is_share(value: Any) -> bool:
    return isinstance(value, float) and 0 < value < 1


def functions(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_function, value))


def printable(value: Any) -> bool:
    return isinstance(value, str) and all(map(str.isprintable, value))


@dataclass(frozen=True)
class TrainKey:
    """One key of a train block."""

    default: Any
    accepts: Callable[[Any], bool]
    expected: str


KEYS: dict[str, TrainKey] = {
    "data": TrainKey("digits", printable, "mnist, digits, or the path of a data set as a string"),
    "loss": TrainKey(None, is_function, "a function of the outputs and targets"),
    "metrics": TrainKey([], functions, "a list of functions of the outputs and targets"),
    "optimizer": TrainKey(None, lambda v: isinstance(v, Closure) and v.kind == "optimizer", "an optimizer"),
    "batch": TrainKey(128, whole(1), f"a whole number from 1 to {LARGEST}"),
    "epochs": TrainKey(1, whole(1), f"a whole number from 1 to {LARGEST}"),
    "scale": TrainKey(
        {},
        lambda v: isinstance(v, dict),
        "none, a number from 1e-30 to 1e30 or its negative, or arrays(name=number, …)",
    ),
    "seed": TrainKey(0, whole(0), f"a whole number from 0 to {LARGEST}"),
    "shuffle": TrainKey(True, lambda v: isinstance(v, bool), "true or false"),
    "patience": TrainKey(None, lambda v: v is None or whole(1)(v), f"none, or a number of epochs from 1 to {LARGEST}"),
    "validation": TrainKey(
        None, lambda v: v is None or is_share(v), "none, or a share of the training rows such as 0.1"
    ),
    "checkpoint": TrainKey(1, whole(1), f"a number of epochs from 1 to {LARGEST}"),
}
NEEDED = ("loss", "optimizer")


@dataclass(frozen=True)
class TrainBlock:
    """A train block with its values; `spans` has the position of each given key, `metric_spans` of each metric."""

    model: str
    values: dict[str, Any]
    spans: dict[str, Span]
    metric_spans: list[Span]
    span: Span

    @property
    def metric_names(self) -> list[str]:
        """The names of the metrics, numbered if they would not be unique among the outputs of a step."""
        names: list[str] = []
        for metric in self.values["metrics"]:
            used, count, name = {*names, *RESERVED}, 1, metric.name
            while name in used:
                count += 1
                name = f"{metric.name}_{count}"
            names.append(name)
        return names


def read_train_block(node: syntax.Train, evaluator: Evaluator, frame: Frame) -> TrainBlock | None:
    """Checks and evaluates a train block and records its mistakes; None without a usable loss."""
    values: dict[str, Any] = {}
    spans: dict[str, Span] = {}
    metric_spans: list[Span] = []
    for entry in node.entries:
        name = entry.key.id
        if name not in KEYS:
            hint = did_you_mean(name, KEYS)
            message = f"unknown key {name} in train {node.model.id}" + (f"; {hint}" if hint else "")
            evaluator.fail(entry.key.span, frame, message, ", ".join(KEYS), name)
        elif name in spans:
            expected = f"one {name}; the first is in line {spans[name].line}"
            evaluator.fail(entry.key.span, frame, f"{name} is given twice", expected, "a second one")
        else:
            spans[name] = entry.value.span
            values[name] = entry_value(entry, evaluator, frame)
            if name == "metrics" and isinstance(values[name], list):
                metric_spans = item_spans(entry.value, len(values[name]))
    for name in NEEDED:
        if name not in spans and not node.damaged:
            message, expected = f"train {node.model.id} has no {name}", f"{name} = …, {KEYS[name].expected}"
            evaluator.fail(node.model.span, frame, message, expected, ", ".join(spans) or "no entries")
    good = {name: value for name, value in values.items() if not poisoned(value)}
    complete = {name: good.get(name, key.default) for name, key in KEYS.items()}
    train = TrainBlock(node.model.id, complete, spans, metric_spans, node.span)
    warn_about_settings(train, evaluator, frame)
    return train if "loss" in good else None


def entry_value(entry: syntax.Entry, evaluator: Evaluator, frame: Frame) -> Any:
    """The value of an entry, or POISON after a mistake; the name of a built-in data set is its own value."""
    name, key = entry.key.id, KEYS[entry.key.id]
    if name == "data" and isinstance(entry.value, syntax.Name):
        if entry.value.id in BUILT_IN:
            return entry.value.id
        hint = did_you_mean(entry.value.id, BUILT_IN)
        message = f"there is no built-in data set {entry.value.id}" + (f"; {hint}" if hint else "")
        return evaluator.fail(entry.value.span, frame, message, key.expected, entry.value.id)
    value = scale_values(entry, evaluator, frame) if name == "scale" else evaluator.evaluate(entry.value, frame)
    if poisoned(value) or key.accepts(value):
        return value
    if name == "data" and isinstance(value, str):
        expected = "a path of printable characters; a backslash is written \\\\"
        return evaluator.fail(entry.value.span, frame, "invalid value for data", expected, ascii(value))
    expected = named_without_quotes(key.expected, value)
    return evaluator.fail(entry.value.span, frame, f"invalid value for {name}", expected, describe(value))


def scale_values(entry: syntax.Entry, evaluator: Evaluator, frame: Frame) -> Any:
    """The factors in `scale = …` by name, under ALL_INPUTS that of all inputs; POISON after a mistake."""
    node, named = entry.value, {ALL_INPUTS: entry.value}
    if isinstance(node, syntax.Call) and isinstance(node.function, syntax.Name) and node.function.id == "arrays":
        named = {argument.name: argument.value for argument in node.arguments if argument.name}
        if not named or len(named) < len(node.arguments):
            expected = "arrays(name=number, …), each name once"
            return evaluator.fail(node.span, frame, "invalid value for scale", expected, format_expression(node))
    values = {name: evaluator.evaluate(value, frame) for name, value in named.items()}
    for name, value in values.items():
        if not poisoned(value) and not is_scale(value):
            expected, span = KEYS["scale"].expected, named[name].span
            values[name] = evaluator.fail(span, frame, "invalid value for scale", expected, describe(value))
    return POISON if poisoned(*values.values()) else {n: 1.0 if v is None else float(v) for n, v in values.items()}


def is_scale(value: Any) -> bool:
    return value is None or (is_number(value) and LEAST_SCALE <= abs(value) <= 1 / LEAST_SCALE)


def item_spans(node: syntax.Expression, count: int) -> list[Span]:
    """The spans of the items of a list, if it is written out; else the span of the whole list for each."""
    written = isinstance(node, syntax.ListLiteral) and len(node.items) == count
    return [item.span for item in node.items] if written else [node.span] * count  # type: ignore[union-attr]


# Warnings -------------------------------------------------------------------------------------------------------------

# For the optimizers of the library: the learning rates that most programs use, and the largest without a warning.
# Recurrent networks have been trained with SGD(lr=30) (arXiv:1708.02182).
USUAL_RATES = {
    "SGD": (1e-3, 1, 100),
    "Adam": (1e-5, 1e-2, 0.3),
    "AdamW": (1e-5, 1e-2, 0.3),
    "RMSprop": (1e-5, 1e-2, 0.3),
    "Adagrad": (1e-3, 1e-1, 10),
}
LEAST_RATE = 1e-8  # below it, updates mostly vanish in the rounding of weights in f32


def warn_about_settings(train: TrainBlock, evaluator: Evaluator, frame: Frame) -> None:
    """Warns about a learning rate far outside of the usual, and about stopping by the loss of the test rows."""
    optimizer = train.values["optimizer"]
    if isinstance(optimizer, Closure) and optimizer.namespace.is_library and optimizer.name in USUAL_RATES:
        rate, (low, high, largest) = peak_rate((optimizer.hyperparameters or {}).get("lr")), USUAL_RATES[optimizer.name]
        if rate is not None and (rate > largest or 0 < rate < LEAST_RATE):
            side, usual = "above" if rate > largest else "below", f"mostly between {low:g} and {high:g}"
            message = f"the learning rate is far {side} the usual for {optimizer.name}"
            evaluator.warn(train.spans["optimizer"], frame, message, usual, f"{rate:g}", [])
    if train.values["patience"] is not None and train.values["validation"] is None:
        message = "patience watches the loss on the test rows, so their loss and metrics look too good afterwards"
        expected = "validation = 0.1, which sets rows apart for patience"
        evaluator.warn(train.spans["patience"], frame, message, expected, "no validation", [])


def peak_rate(rate: Any) -> float | None:
    """A learning rate that is a number, or the one that a schedule of the library starts from; else None."""
    if isinstance(rate, Closure) and rate.namespace.is_library:
        values = rate.hyperparameters or {}
        rate = values.get("lr", values.get("value"))
    return rate if is_number(rate) else None
