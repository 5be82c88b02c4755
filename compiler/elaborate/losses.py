"""The loss and the metrics of a train block: their targets become inputs of a graph, their values its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from compiler.diagnostics import Span
from compiler.elaborate import calls
from compiler.elaborate.cautions import describe_dependence, warn_about_the_batch, warn_about_total
from compiler.elaborate.evaluator import Evaluator, Site
from compiler.elaborate.forward import Forward
from compiler.elaborate.frames import Frame, MetricTotal, node_span
from compiler.elaborate.inputs import Conversions, declare_input, input_type
from compiler.elaborate.over_examples import COMBINED_BY, UNKNOWN, Known, dependences
from compiler.elaborate.signatures import Given, agree, counted, match
from compiler.elaborate.totals import NotFromTotals, follow
from compiler.elaborate.training import TrainBlock
from compiler.elaborate.values import Builtin, Closure, Poison, describe, describe_type, is_tensor
from compiler.ir.graph import Graph, Node, Value, depending_on, needed_nodes
from compiler.ir.types import TensorType, extent
from compiler.language.syntax import Parameter
from runtime.program import METRICS

Targets = dict[str, Value]
LARGEST_RANK = 2  # of a metric: a number, a vector or a matrix
MOST_NUMBERS = 10_000  # of a metric: the log has them for each epoch


@dataclass
class Figures:
    """The loss and the metrics of a graph. `outputs`: by name, each a mean over the batch, or one of the totals.

    `totals` are the outputs that are totals, and `combined` how each is over batches: "sum", "max" or "min". `results`
    follow from totals, by the name of the metric. Their nodes are after the first `start` of the graph.
    """

    targets: dict[str, TensorType]
    start: int
    outputs: dict[str, Value] = field(default_factory=dict)
    totals: dict[str, Value] = field(default_factory=dict)
    combined: dict[str, str] = field(default_factory=dict)
    results: dict[str, Value] = field(default_factory=dict)


def add_losses(
    train: TrainBlock, model: str, forward: Forward, root: Frame, conversions: Conversions
) -> Figures | None:
    """Makes `loss` and the metrics, or their totals, the outputs of the graph. None after a mistake."""
    evaluator, graph, outputs = forward.evaluator, forward.evaluator.context.graph, list(forward.outputs.values())
    loss, at = train.values["loss"], train.spans["loss"]
    if not isinstance(loss, Closure):
        message, expected = "this loss does not declare its targets", "a function with typed parameters"
        evaluator.fail(at, root, message, expected, describe(loss))
        return None
    parameters = loss.declaration.groups[-1]
    scope = output_shapes(loss, parameters, model, forward, at, root)
    targets = declare_targets(parameters[len(outputs) :], forward, scope, conversions) if scope else None
    if targets is None:
        return None
    figures = Figures({name: value.type for name, value in targets.items()}, len(graph.nodes))
    named = [Given(value, at, p.name.id) for p, value in zip(parameters, outputs, strict=False)]
    named += [Given(value, at, name) for name, value in targets.items()]
    good = [add_figure(evaluator, figures, "loss", loss, named, at, root)]
    for name, metric, span in zip(train.metric_names, train.values["metrics"], train.metric_spans, strict=True):
        if name in evaluator.variables.by_name:
            message, found = f"the metric {name} cannot have this name", "the name of a variable"
            evaluator.fail(span, root, message, "another name", found)
        given = [Given(value, span) for value in (*outputs, *targets.values())]
        given = given[: count_parameters(metric)]
        good.append(add_figure(evaluator, figures, name, metric, given, span, root))
    graph.outputs.clear()
    graph.outputs |= figures.outputs
    return figures if all(good) else None


def output_shapes(
    loss: Closure, parameters: Sequence[Parameter], model: str, forward: Forward, at: Span, root: Frame
) -> Frame | None:
    """A frame of the loss in which the shape variables of its first parameters have the sizes of the outputs."""
    evaluator, outputs = forward.evaluator, list(forward.outputs.values())
    if loss.declaration.damaged:
        return None
    if len(parameters) < len(outputs):
        message = f"{loss.name} does not take all outputs of {model}"
        found = counted(len(parameters), "parameter")
        evaluator.fail(at, root, message, f"a parameter for each of {counted(len(outputs), 'output')}", found)
        return None
    complete = calls.with_hyperparameters(evaluator, loss, [], at, root)
    if isinstance(complete, Poison):
        return None
    scope = Frame(loss.namespace, loss.name, "fn", dict(complete.hyperparameters or {}), span=at, caller=root)
    for parameter, output in zip(parameters, outputs, strict=False):
        computed = match(parameter.type, output.type, scope.variables) if parameter.type else []
        if computed is None or not agree(computed, lambda dim: evaluator.evaluate(dim, scope)):
            assert parameter.type is not None
            message = f"{loss.name} cannot take the output of {model} as {parameter.name.id}"
            expected = calls.expected_type(parameter.type, scope.variables)
            evaluator.fail(at, root, message, expected, str(output.type), [output])
            return None
    return scope


def declare_targets(
    parameters: Sequence[Parameter], forward: Forward, scope: Frame, conversions: Conversions
) -> Targets | None:
    """Parameters of a loss without a default are targets, or inputs of the model with the same name and type."""
    targets: Targets = {}
    needed = [parameter for parameter in parameters if parameter.default is None]
    for parameter in needed:
        name = parameter.name.id
        type = input_type(forward.evaluator, parameter, scope)
        value = forward.inputs.get(name)
        if type and (value is None or value.type != type):
            value = declare_input(forward.evaluator, parameter.name, type, "target", conversions, scope)
        if type and value:
            targets[name] = value
    return targets if len(targets) == len(needed) else None


def count_parameters(metric: Closure | Builtin) -> int | None:
    """The number of outputs and targets that a metric takes (it may leave out targets from the end); None for all."""
    return len(metric.declaration.groups[-1]) if isinstance(metric, Closure) else None


def add_figure(
    evaluator: Evaluator,
    figures: Figures,
    name: str,
    function: Closure | Builtin,
    given: list[Given],
    span: Span,
    root: Frame,
) -> bool:
    """Adds the loss or a metric to the figures; False after reporting a mistake."""
    first = len(evaluator.totals)
    has_totals = isinstance(function, Closure) and function.kind == "metric"
    run = calls.run_closure if has_totals else calls.apply_last
    value = run(evaluator, function, given, span, root)  # type: ignore[arg-type]
    if isinstance(value, Poison):
        return False
    nodes = evaluator.context.graph.nodes[figures.start :]
    known = dependences(nodes)
    if has_totals:
        if len(evaluator.totals) == first:
            message, expected = f"{function.name} has no totals", "total name: f32[] = sum(…); or a fn, for a mean"
            evaluator.fail(span, root, message, expected, "none")
            return False
        good = name == "loss" or is_result(evaluator, function, value, span, root)
        figures.results[name] = value
        good = add_totals(evaluator, figures, name, evaluator.totals[first:], known, nodes) and good
        if not good or name != "loss":
            return good
        if is_tensor(value) and value.type == TensorType("f64"):
            value = Site(evaluator, span, root).cast(value, "f32")
    if not is_tensor(value) or value.type != TensorType("f32"):
        message, expected = f"{function.name} does not return one number", "a scalar f32[], such as a mean"
        evaluator.fail(span, root, message, expected, describe_type(value), [value])
        return False
    figures.outputs[name] = value
    if not has_totals:
        warn_about_the_batch(evaluator, function, value, known, span, root)
    return True


def is_result(evaluator: Evaluator, function: Closure | Builtin, value: Any, span: Span, root: Frame) -> bool:
    """Whether a metric with totals returns what can be reported; a mistake is recorded."""
    good = is_tensor(value) and value.type.is_float and value.type.rank <= LARGEST_RANK
    few = good and extent(value.type.shape).at(1) <= MOST_NUMBERS
    if not few:
        message, expected = f"{function.name} does not return numbers", "floats: a scalar, a vector or a matrix"
        if good:
            message, expected = f"{function.name} returns too many numbers", f"at most {MOST_NUMBERS:,}"
        evaluator.fail(span, root, message, expected, describe_type(value), [value])
    return few


def add_totals(
    evaluator: Evaluator, figures: Figures, name: str, totals: list[MetricTotal], known: Known, nodes: Sequence[Node]
) -> bool:
    """Adds the totals of a metric as outputs; False after reporting those that are no sums over the examples."""
    good, derived = True, depending_on([total.value for total in totals], nodes)
    for total in totals:
        same, count = f"{name}.{total.name}", 1
        unique = same
        while unique in figures.totals:  # of two metrics that one metric uses
            count += 1
            unique = f"{same}_{count}"
        if unique in evaluator.variables.by_name:
            message, found = f"the total {unique} cannot have this name", "the name of a variable"
            evaluator.fail(total.span, total.frame, message, "another name", found)
            good = False
        found = known[total.value]
        if any(operand in derived for node in (total.value.node,) if node for operand in node.operands):
            message, expected = f"the total {total.name} depends on another total", "a sum over the examples alone"
            evaluator.fail(total.span, total.frame, message, expected, "the value of a total for this batch")
            good = False
        elif found in COMBINED_BY:
            figures.combined[unique] = COMBINED_BY[found]
        elif found == UNKNOWN:
            figures.combined[unique] = "sum"
            warn_about_total(evaluator, total, known)
        else:
            message, expected = f"the total {total.name} is not a sum over the examples", "sum(…), reduce_max(…) or B"
            evaluator.fail(total.span, total.frame, message, expected, describe_dependence(found))
            good = False
        figures.totals[unique] = figures.outputs[unique] = total.value
    return good


def metrics_graph(figures: Figures, batch: Graph, train: TrainBlock, evaluator: Evaluator, root: Frame) -> Graph | None:
    """What follows from totals over all data; None without totals, or after reporting a mistake."""
    if not figures.results:
        return None
    graph, good = Graph(METRICS), True
    spans = dict(zip(train.metric_names, train.metric_spans, strict=True)) | {"loss": train.spans["loss"]}
    for name, value in figures.results.items():
        try:
            follow(Graph(METRICS), figures.totals, {name: value}, batch)
        except NotFromTotals as problem:
            message = f"what {name} returns depends on more than its totals"
            expected = "totals, hyperparameters and numbers; sums over the examples are totals"
            evaluator.fail(node_span(problem.node, spans[name]), root, message, expected, problem.found)
            good = False
    if good:
        follow(graph, figures.totals, figures.results, batch)
    return graph if good else None


def drop_results(figures: Figures, batch: Graph) -> None:
    """Removes what would follow from the totals of one batch, which nothing reads but a loss."""
    derived, unread = set(figures.totals.values()), set(batch.nodes)
    unread.difference_update(needed_nodes(batch.nodes, figures.outputs.values()))
    for node in batch.nodes:
        if node in unread and derived.isdisjoint(node.operands):
            unread.remove(node)  # it does not depend on totals
        elif node in unread:
            derived.update(node.results)
    batch.nodes = [node for node in batch.nodes if node not in unread]
