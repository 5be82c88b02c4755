"""A model and its train block to graphs: `init`, `predict`, `evaluate` and the forward half of `train_step`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from compiler.diagnostics import Diagnostics, Span
from compiler.elaborate import calls
from compiler.elaborate.context import Context, Variables
from compiler.elaborate.evaluator import Evaluator, GaveUp
from compiler.elaborate.frames import CONTINUE, Frame
from compiler.elaborate.inputs import Storage, declare_input, input_type
from compiler.elaborate.losses import add_losses
from compiler.elaborate.namespaces import Namespace
from compiler.elaborate.signatures import Given
from compiler.elaborate.training import TrainBlock, read_train_block
from compiler.elaborate.values import POISON, Call, Closure, Poison, describe_type, is_tensor
from compiler.ir.graph import Graph, Module, Value
from compiler.ir.types import Batch, TensorType
from compiler.language import syntax

INPUT_ORDER = ("input", "target", "param", "state", "slot", "counter")


@dataclass(eq=False)
class ElaboratedModel:
    """The graphs of one model. `trainer` and `train_root` can still add the optimizer to `train_step`."""

    name: str
    module: Module
    variables: Variables
    call: Call
    outputs: dict[str, TensorType]
    targets: dict[str, TensorType] = field(default_factory=dict)
    train: TrainBlock | None = None
    trainer: Evaluator | None = None
    train_root: Frame | None = None


@dataclass(frozen=True)
class Forward:
    """A forward pass of a model, the inputs and outputs by name."""

    evaluator: Evaluator
    frame: Frame
    inputs: dict[str, Value]
    outputs: dict[str, Value]


class ModelBuilder:
    """Elaborates one model several times: each graph is the same program run with other compile-time values."""

    def __init__(
        self,
        model: syntax.Function,
        train: syntax.Train | None,
        namespace: Namespace,
        diagnostics: Diagnostics,
        storage: Mapping[str, Storage],
    ):
        self.model, self.train_node, self.namespace = model, train, namespace
        self.diagnostics, self.storage = diagnostics, storage
        self.variables = Variables()
        self.module: Module = {"init": self.variables.init.graph}
        self.variables.init.counter("seed")

    def build(self) -> ElaboratedModel | None:
        """All graphs, also where an earlier one has mistakes, so that those of all are found. May raise GaveUp."""
        predicted = self.forward("predict", training=False)
        train = self.train_block()
        evaluated = self.forward("evaluate", training=False) if train else None
        trained = self.forward("train_step", training=True) if train else None
        result = self.result(predicted) if predicted else None
        for forward in filter(None, (evaluated, trained)):
            assert train
            targets = add_losses(train, self.model.name.id, forward, self.root(), self.storage)
            if result and targets is not None:
                result.train, result.targets = train, targets
        if result and result.train and trained and result.train.values["optimizer"]:
            result.trainer, result.train_root = trained.evaluator, self.root(result.train.spans["optimizer"])
            self.show_first_values_to_optimizer(result)
        for graph in self.module.values():
            graph.inputs.sort(key=lambda value: INPUT_ORDER.index(value.kind))
        return result

    def result(self, predicted: Forward) -> ElaboratedModel:
        assert predicted.frame.call is not None
        outputs = {name: value.type for name, value in predicted.outputs.items()}
        return ElaboratedModel(self.model.name.id, self.module, self.variables, predicted.frame.call, outputs)

    def root(self, span: Span | None = None) -> Frame:
        """The frame around everything: where the train block calls losses and optimizers."""
        return Frame(self.namespace, "", "fn", span=span)

    def train_block(self) -> TrainBlock | None:
        if self.train_node is None:
            return None
        evaluator = Evaluator(self.diagnostics, self.namespace, self.variables, self.variables.init, training=False)
        return read_train_block(self.train_node, evaluator, self.root())

    def forward(self, name: str, training: bool) -> Forward | None:
        """The model's forward pass in a new graph."""
        graph = self.module[name] = Graph(name)
        evaluator = Evaluator(self.diagnostics, self.namespace, self.variables, Context(graph), training)
        frame = self.model_frame(evaluator)
        inputs = self.declare_inputs(evaluator, frame) if frame else None
        if frame is None or inputs is None:
            return None
        result = evaluator.run(self.model.body, frame)
        if result is CONTINUE:
            result = POISON
            if not self.model.damaged:
                message = f"{self.model.name.id} returns nothing"
                evaluator.fail(self.model.name.span, frame, message, "a return of tensors", "its end")
        outputs = None if isinstance(result, Poison) else self.name_outputs(result, evaluator, frame)
        if outputs is None:
            return None
        graph.outputs |= outputs
        return Forward(evaluator, frame, inputs, outputs)

    def model_frame(self, evaluator: Evaluator) -> Frame | None:
        """The frame in which the model's body runs, with the hyperparameters' defaults."""
        closure = Closure(self.model, self.namespace)
        name = self.model.name
        if closure.waits_for_hyperparameters:
            applied = calls.with_hyperparameters(evaluator, closure, [], name.span, self.root(name.span))
            if isinstance(applied, Poison):
                return None
            closure = applied
        variables = {"B": Batch(), **(closure.hyperparameters or {})}
        frame = Frame(self.namespace, "", "model", variables, damaged=self.model.damaged)
        frame.parameters = frozenset(p.name.id for group in self.model.groups for p in group)
        frame.call = Call(name.id, "", "model", False, False, name.span)
        return frame

    def declare_inputs(self, evaluator: Evaluator, frame: Frame) -> dict[str, Value] | None:
        inputs: dict[str, Value] = {}
        for parameter in self.model.groups[-1]:
            type = input_type(evaluator, parameter, frame)
            value = type and declare_input(evaluator, parameter.name, type, "input", self.storage, frame)
            if value:
                inputs[parameter.name.id] = value
        frame.variables |= inputs
        return inputs if len(inputs) == len(self.model.groups[-1]) else None

    def name_outputs(self, result: Value | list[Value], evaluator: Evaluator, frame: Frame) -> dict[str, Value] | None:
        """Outputs are called by the names they are returned under, or `output`."""
        values = result if isinstance(result, list) else [result]
        returned = next((s for s in reversed(self.model.body) if isinstance(s, syntax.Return)), None)
        if not values or not all(map(is_tensor, values)):
            span = returned.span if returned else self.model.name.span
            wrong = next((value for value in values if not is_tensor(value)), result)
            evaluator.fail(span, frame, "a model returns tensors", "a tensor", describe_type(wrong))
            return None
        expressions = returned.values if returned and len(returned.values) == len(values) else ()
        names = [e.id for e in expressions if isinstance(e, syntax.Name)]
        if len(set(names)) != len(values):
            names = ["output"] if len(values) == 1 else [f"output_{i}" for i in range(1, len(values) + 1)]
        return dict(zip(names, values, strict=True))

    def show_first_values_to_optimizer(self, result: ElaboratedModel) -> None:
        """Lets the optimizer's first values of slots read those of the parameters."""
        init = self.variables.init
        for held in result.module["train_step"].inputs:
            if held.name in init.graph.outputs:
                init.captured[held] = init.graph.outputs[held.name]


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
    return evaluator.fail(span, root, message, f"{parameter.type}, as {parameter.name} is", found)
