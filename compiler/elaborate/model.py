"""A model and its train block to graphs: `init`, `predict`, `evaluate`, `metrics`, the forward part of `train_step`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from compiler.diagnostics import Diagnostics
from compiler.elaborate import calls
from compiler.elaborate.cautions import warn_about_pairs
from compiler.elaborate.context import Context, Variables
from compiler.elaborate.evaluator import Evaluator, GaveUp
from compiler.elaborate.forward import Forward, run_forward
from compiler.elaborate.frames import CONTINUE, Frame, root_frame
from compiler.elaborate.index_errors import report_indices
from compiler.elaborate.inputs import Conversions, Storage, check_chosen
from compiler.elaborate.losses import add_losses, drop_results, metrics_graph
from compiler.elaborate.signatures import Given
from compiler.elaborate.training import TrainBlock, read_train_block
from compiler.elaborate.values import POISON, CallRecord, Namespace, Poison, describe_type, is_tensor
from compiler.ir.graph import Graph, Module, Value
from compiler.ir.types import TensorType
from compiler.language import syntax
from runtime.program import METRICS

INPUT_ORDER = ("input", "target", "place", "total", "param", "state", "slot", "counter")


@dataclass(eq=False)
class ElaboratedModel:
    """The graphs of one model. `trainer` and `train_root` can still add the optimizer to `train_step`."""

    name: str
    module: Module
    variables: Variables
    call: CallRecord
    outputs: dict[str, TensorType]
    targets: dict[str, TensorType] = field(default_factory=dict)
    totals: dict[str, str] = field(default_factory=dict)  # of metrics, with how each is combined over batches
    total_types: dict[str, TensorType] = field(default_factory=dict)
    train: TrainBlock | None = None
    conversions: Conversions = field(default_factory=lambda: Conversions({}))  # of inputs and targets
    trainer: Evaluator | None = None
    train_root: Frame | None = None


class ModelBuilder:
    """Elaborates one model several times: each graph is the same program, run with other compile-time values."""

    def __init__(
        self,
        model: syntax.Function,
        train: syntax.Train | None,
        namespace: Namespace,
        diagnostics: Diagnostics,
        storage: Mapping[str, Storage],
    ):
        self.model, self.train_node, self.namespace = model, train, namespace
        self.diagnostics, self.conversions = diagnostics, Conversions(storage)
        self.variables = Variables()
        self.module: Module = {"init": self.variables.init.graph}
        self.variables.init.counter("seed")

    def build(self) -> ElaboratedModel | None:
        """All graphs, even after mistakes in one, so that the mistakes in all are found. May raise GaveUp."""
        train = self.train_block()
        predicted = self.forward("predict", training=False)
        evaluated = self.forward("evaluate", training=False) if train else None
        trained = self.forward("train_step", training=True) if train else None
        result = self.result(predicted) if predicted else None
        for forward in filter(None, (evaluated, trained)):
            assert train
            self.add_figures(result, train, forward)
        if result and result.train and predicted and (span := result.train.spans.get("scale")):
            types = {name: value.type for name, value in predicted.inputs.items()} | result.targets
            floats = {name: type.is_float for name, type in types.items()}
            check_chosen(self.conversions, floats, predicted.evaluator, span, root_frame(self.namespace))
        for forward in filter(None, (predicted, evaluated, trained)):
            warn_about_pairs(forward.evaluator)
        report_indices(self.module, self.diagnostics)
        if result and result.train and trained and result.train.values["optimizer"]:
            result.trainer = trained.evaluator
            result.train_root = root_frame(self.namespace, result.train.spans["optimizer"])
            self.show_initial_values_to_optimizer(result)
        for graph in self.module.values():
            graph.inputs.sort(key=lambda value: INPUT_ORDER.index(value.kind))
        return result

    def add_figures(self, result: ElaboratedModel | None, train: TrainBlock, forward: Forward) -> None:
        """Adds loss and metrics to a graph, and what follows from their totals, which is the same for all graphs."""
        evaluator, root = forward.evaluator, root_frame(self.namespace)
        figures = add_losses(train, self.model.name.id, forward, root, self.conversions)
        if figures is None or result is None:
            return
        result.train, result.targets = train, figures.targets
        if figures.results:
            graph = metrics_graph(figures, evaluator.context.graph, train, evaluator, root)
            if graph:
                self.module.setdefault(METRICS, graph)
                drop_results(figures, evaluator.context.graph)
            types = {name: value.type for name, value in figures.totals.items()}
            if result.totals and (types, figures.combined) != (result.total_types, result.totals):
                message = "the totals of the metrics differ between training and evaluation"
                found = f"{show_types(types)}, and {show_types(result.total_types)}"
                evaluator.fail(train.spans["loss"], root, message, "the same totals", found)
            result.totals, result.total_types = figures.combined, types

    def result(self, predicted: Forward) -> ElaboratedModel:
        assert predicted.frame.call is not None
        outputs = {name: value.type for name, value in predicted.outputs.items()}
        call, conversions = predicted.frame.call, self.conversions
        return ElaboratedModel(self.model.name.id, self.module, self.variables, call, outputs, conversions=conversions)

    def train_block(self) -> TrainBlock | None:
        if self.train_node is None:
            return None
        evaluator = Evaluator(self.diagnostics, self.namespace, self.variables, self.variables.init, training=False)
        train = read_train_block(self.train_node, evaluator, root_frame(self.namespace))
        if train:
            self.conversions.chosen = train.values["scale"]
        return train

    def forward(self, name: str, training: bool) -> Forward | None:
        """The model's forward pass in a new graph."""
        graph = self.module[name] = Graph(name)
        evaluator = Evaluator(self.diagnostics, self.namespace, self.variables, Context(graph), training)
        return run_forward(self.model, evaluator, self.conversions)

    def show_initial_values_to_optimizer(self, result: ElaboratedModel) -> None:
        """Lets the initial values of the optimizer's slots read those of the parameters."""
        init = self.variables.init
        for variable in result.module["train_step"].inputs:
            if variable.name in init.graph.outputs:
                init.captured[variable] = init.graph.outputs[variable.name]


def show_types(types: Mapping[str, TensorType]) -> str:
    return ", ".join(f"{name}: {type}" for name, type in types.items()) or "none"


def update_parameter(model: ElaboratedModel, parameter: Value, gradient: Value, step: Value) -> Value | Poison:
    """Runs the model's optimizer on one parameter; its slots become variables named after the parameter."""
    evaluator, root, train = model.trainer, model.train_root, model.train
    assert evaluator and root and train
    closure, span = train.values["optimizer"], train.spans["optimizer"]
    given = [Given(value, span) for value in (parameter, gradient, step)]
    around = Frame(root.namespace, "", "fn", path=parameter.name)
    try:
        inner = calls.enter(evaluator, closure, given, span, around)
        result = POISON if isinstance(inner, Poison) else evaluator.run(closure.declaration.body, inner)
    except GaveUp:
        return POISON
    if isinstance(result, Poison) or (is_tensor(result) and result.type == parameter.type):
        return result
    message = f"{closure.name} does not return the new value of its parameter"
    found = "no return" if result is CONTINUE else describe_type(result)
    return evaluator.fail(span, root, message, f"{parameter.type}, the type of {parameter.name}", found)
