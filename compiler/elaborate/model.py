"""A model and its train block to graphs: `init`, `predict`, `evaluate` and the forward half of `train_step`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from compiler.diagnostics import Diagnostics, Span, did_you_mean
from compiler.elaborate.context import Context, Site, Variables
from compiler.elaborate.evaluator import CONTINUE, Evaluator, Frame
from compiler.elaborate.namespaces import Namespace, user_namespace
from compiler.elaborate.signatures import Given, as_shape, unify
from compiler.elaborate.training import TrainBlock, read_train_block
from compiler.elaborate.values import Call, Closure, Poison, describe_type, is_tensor, poisoned
from compiler.ir.graph import Graph, Module, Value
from compiler.ir.types import Batch, TensorType, TypeRuleError
from compiler.language import syntax
from compiler.language.formatter import format_type

INPUT_ORDER = ("input", "target", "param", "state", "slot", "counter")


class Storage(Protocol):
    """How a data set keeps an array: the compiled step converts it."""

    @property
    def dtype(self) -> str: ...
    @property
    def scale(self) -> float: ...


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


def elaborate(
    program: syntax.Program,
    diagnostics: Diagnostics,
    model: str | None = None,
    storage: Mapping[str, Storage] | None = None,
) -> ElaboratedModel | None:
    """Elaborates one model (named, or the only one); mistakes are recorded, and then None is returned."""
    namespace = user_namespace(program, diagnostics)
    chosen = choose_model(program, diagnostics, model)
    trains = [train for train in program.trains if chosen and train.model.id == chosen.name.id]
    for twice in trains[1:]:
        diagnostics.error(
            twice.model.span, f"a second train block for {twice.model.id}", expected="one train block a model"
        )
    if chosen is None:
        return None
    return ModelBuilder(chosen, trains[0] if trains else None, namespace, diagnostics, storage or {}).build()


def check_all(program: syntax.Program, diagnostics: Diagnostics) -> list[ElaboratedModel]:
    """Elaborates every model of a file, so that all mistakes are recorded."""
    models = [function.name.id for function in program.functions if function.kind == "model"]
    known = set(models)
    for train in program.trains:
        if train.model.id not in known:
            unknown_model(train.model.id, train.model.span, models, diagnostics)
    found = [elaborate(program, diagnostics, name) for name in dict.fromkeys(models)]
    if not models:
        elaborate(program, diagnostics)
    return [model for model in found if model]


def unknown_model(name: str, span: Span, models: list[str], diagnostics: Diagnostics) -> None:
    hint = did_you_mean(name, models)
    diagnostics.error(
        span, f"there is no model {name}" + (f"; {hint}" if hint else ""), expected=", ".join(models), found=name
    )


def choose_model(program: syntax.Program, diagnostics: Diagnostics, name: str | None) -> syntax.Function | None:
    models = {function.name.id: function for function in program.functions if function.kind == "model"}
    start = Span(program.file, 1, 1, 1, 2)
    if name is not None and name not in models:
        unknown_model(name, start, list(models), diagnostics)
        return None
    trained = [train.model for train in program.trains]
    for train in trained:
        if train.id not in models:
            unknown_model(train.id, train.span, list(models), diagnostics)
    candidates = [name] if name else [t.id for t in trained if t.id in models] if len(trained) == 1 else list(models)
    if len(candidates) != 1:
        if not trained or models:
            found = ", ".join(models) or "none"
            hint = "one model, or --model NAME" if models else "model Name(x: f32[B, …]) { … }"
            diagnostics.error(
                start, "which model?" if models else "there is no model in this file", expected=hint, found=found
            )
        return None
    return models[candidates[0]]


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
        self.targets: dict[str, TensorType] = {}

    def build(self) -> ElaboratedModel | None:
        predicted = self.graph("predict", training=False)
        train = self.train_block()
        if predicted is None:
            return None
        _, frame, outputs = predicted
        assert frame.call is not None
        result = ElaboratedModel(
            self.model.name.id,
            self.module,
            self.variables,
            frame.call,
            {name: value.type for name, value in outputs.items()},
        )
        if train is not None:
            result.train = train
            evaluated = self.graph("evaluate", training=False)
            trained = self.graph("train_step", training=True)
            ready = [evaluated and self.add_loss(train, *evaluated), trained and self.add_loss(train, *trained)]
            if all(ready) and trained:
                result.trainer, result.train_root = trained[0], self.root(train.spans["optimizer"])
                self.optimizer_slots(result)
            result.targets = self.targets
        for graph in self.module.values():
            graph.inputs.sort(key=lambda value: INPUT_ORDER.index(value.kind))
        return result

    def root(self, span: Span | None = None) -> Frame:
        return Frame(self.namespace, "", "fn", span=span)

    def evaluator(self, graph: Graph, training: bool) -> Evaluator:
        return Evaluator(self.diagnostics, self.variables, Context(graph), training)

    def train_block(self) -> TrainBlock | None:
        if self.train_node is None:
            return None
        evaluator = Evaluator(self.diagnostics, self.variables, self.variables.init, training=False)
        return read_train_block(self.train_node, evaluator, self.root())

    def graph(self, name: str, training: bool) -> tuple[Evaluator, Frame, dict[str, Value]] | None:
        """The model's forward pass in a new graph; its outputs by name."""
        graph = self.module[name] = Graph(name)
        evaluator = self.evaluator(graph, training)
        frame = self.model_frame(evaluator)
        if frame is None:
            return None
        result = evaluator.run(self.model.body, frame)
        if result is CONTINUE and not self.model.damaged:
            evaluator.fail(self.model.name.span, frame, f"{self.model.name.id} returns nothing", "a return")
        outputs = self.name_outputs(result, evaluator, frame)
        if outputs is not None:
            graph.outputs |= outputs
        return None if outputs is None else (evaluator, frame, outputs)

    def model_frame(self, evaluator: Evaluator) -> Frame | None:
        closure = Closure(self.model, self.namespace)
        root = self.root(self.model.name.span)
        if len(self.model.groups) == 2:
            closure = evaluator.with_hyperparameters(closure, [], self.model.name.span, root)
            if isinstance(closure, Poison):
                return None
        frame = Frame(
            self.namespace, "", "model", {"B": Batch(), **(closure.hyperparameters or {})}, damaged=self.model.damaged
        )
        frame.call = Call(self.model.name.id, "", "model", False, False, self.model.name.span)
        good = True
        for parameter in self.model.groups[-1]:
            type = self.input_type(parameter, evaluator, frame)
            frame.variables[parameter.name.id] = type and self.declare_input(
                parameter.name, type, "input", evaluator, frame
            )
            good = good and type is not None
        return frame if good else None

    def input_type(self, parameter: syntax.Parameter, evaluator: Evaluator, frame: Frame) -> TensorType | None:
        """The type of an input or target: written out, batch first."""
        if parameter.type is None:
            evaluator.fail(
                parameter.span, frame, f"{parameter.name.id} needs a type", f"{parameter.name.id}: f32[B, …]"
            )
            return None
        dims: list[Any] = []
        for dim in parameter.type.dims:
            known = frame.variables.get("...") if isinstance(dim, syntax.EllipsisDim) else None
            dims += (
                known
                if known is not None
                else [evaluator.evaluate(dim, frame)]
                if not isinstance(dim, syntax.EllipsisDim)
                else [dim]
            )
        if poisoned(dims):
            return None
        shape = as_shape(dims)
        try:
            if shape and shape[0] == Batch() and all(isinstance(dim, int) for dim in shape[1:]):
                return TensorType(parameter.type.dtype, shape)
        except TypeRuleError as refusal:
            evaluator.fail(parameter.type.span, frame, refusal.message, refusal.expected, refusal.found)
            return None
        evaluator.fail(
            parameter.type.span,
            frame,
            f"{parameter.name.id} has no complete type with the batch first",
            "f32[B, 28, 28], say",
            format_type(parameter.type),
        )
        return None

    def declare_input(
        self, name: syntax.Name, type: TensorType, kind: str, evaluator: Evaluator, frame: Frame
    ) -> Value:
        """An input of the graph, converted from the way the data set keeps it."""
        stored = self.storage.get(name.id)
        dtype = stored.dtype if stored else type.dtype
        value = evaluator.context.input(name.id, type.with_dtype(dtype), kind)
        site = Site(evaluator, name.span, frame)
        if dtype != type.dtype:
            value = site.emit("cast", value, dtype=type.dtype)
        if stored and stored.scale != 1 and type.is_float:
            value = site.emit("mul", value, stored.scale)
        return value

    def name_outputs(self, result: Any, evaluator: Evaluator, frame: Frame) -> dict[str, Value] | None:
        """Outputs are called by the names they are returned under, or `output`."""
        values = result if isinstance(result, list) else [result]
        if result is CONTINUE or poisoned(values):
            return None
        returned = next((s for s in reversed(self.model.body) if isinstance(s, syntax.Return)), None)
        expressions = returned.values if returned and len(returned.values) == len(values) else ()
        names = [e.id for e in expressions if isinstance(e, syntax.Name)]
        if len(set(names)) != len(values):
            names = ["output"] if len(values) == 1 else [f"output_{i}" for i in range(1, len(values) + 1)]
        for value in values:
            if not is_tensor(value):
                span = returned.span if returned else self.model.name.span
                evaluator.fail(span, frame, "a model returns tensors", "a tensor", describe_type(value))
                return None
        return {name: evaluator.context.localize(value) for name, value in zip(names, values, strict=True)}

    # Loss, metrics, optimizer ----------------------------------------------------------------------------------------

    def add_loss(self, train: TrainBlock, evaluator: Evaluator, frame: Frame, outputs: dict[str, Value]) -> bool:
        """Adds `loss` and the metrics as outputs of the graph in place of the model's own."""
        root = self.root()
        span = train.spans["loss"]
        targets = self.target_inputs(train.values["loss"], list(outputs.values()), span, evaluator, root)
        if targets is None:
            return False
        graph = evaluator.context.graph
        graph.outputs.clear()
        functions = {
            "loss": train.values["loss"],
            **dict(zip(train.metric_names, train.values["metrics"], strict=True)),
        }
        for name, function in functions.items():
            at = span if name == "loss" else train.spans["metrics"]
            given = [Given(value, at) for value in (*outputs.values(), *targets)]
            value = evaluator.apply_last(function, given, at, root)
            if isinstance(value, Poison):
                return False
            if not is_tensor(value) or value.type != TensorType("f32"):
                evaluator.fail(
                    at, root, f"{function.name} does not return one number", "a scalar f32[]", describe_type(value)
                )
                return False
            graph.outputs[name] = value
        return True

    def target_inputs(
        self, loss: Any, outputs: list[Value], span: Span, evaluator: Evaluator, root: Frame
    ) -> list[Value] | None:
        """The loss' parameters after the outputs are the targets: their names and types make the graph's inputs."""
        if not isinstance(loss, Closure):
            evaluator.fail(
                span, root, "a loss says what its targets are", "a function with typed parameters", loss.name
            )
            return None
        parameters = loss.declaration.groups[-1]
        if len(parameters) < len(outputs):
            evaluator.fail(
                span,
                root,
                f"{loss.name} does not take all outputs of {self.model.name.id}",
                f"at least {len(outputs)} parameters",
                str(len(parameters)),
            )
            return None
        scope = Frame(loss.namespace, loss.name, "fn", dict(loss.hyperparameters or {}), span=span, caller=root)
        for parameter, output in zip(parameters, outputs, strict=False):
            if parameter.type and not unify(
                parameter.type, output.type, scope.variables, lambda e: evaluator.evaluate(e, scope)
            ):
                evaluator.fail(
                    span,
                    root,
                    f"{loss.name} cannot take the model's output as {parameter.name.id}",
                    format_type(parameter.type),
                    str(output.type),
                    output,
                )
                return None
        targets = []
        for parameter in parameters[len(outputs) :]:
            type = self.input_type(parameter, evaluator, scope)
            if type is None:
                return None
            self.targets[parameter.name.id] = type
            targets.append(self.declare_input(parameter.name, type, "target", evaluator, root))
        return targets

    def optimizer_slots(self, result: ElaboratedModel) -> None:
        """Lets the optimizer's initial values of slots see the parameters' own."""
        init = self.variables.init
        for name, value in result.module["init"].outputs.items():
            held = next((v for v in result.module["train_step"].inputs if v.name == name), None)
            if held is not None:
                init.captured[held] = value


def update_parameter(model: ElaboratedModel, parameter: Value, gradient: Value, step: Value) -> Value | Poison:
    """Runs the model's optimizer on one parameter; its slots become variables named after the parameter."""
    evaluator, root, train = model.trainer, model.train_root, model.train
    assert evaluator and root and train
    closure, span = train.values["optimizer"], train.spans["optimizer"]
    given = [Given(value, span) for value in (parameter, gradient, step)]
    inner = evaluator.enter(closure, given, span, Frame(root.namespace, "", "fn", path=parameter.name))
    if isinstance(inner, Poison):
        return inner
    result = evaluator.run(closure.declaration.body, inner)
    if isinstance(result, Poison):
        return result
    if not is_tensor(result) or result.type != parameter.type:
        return evaluator.fail(
            span,
            root,
            f"{closure.name} does not return the new value of {parameter.name}",
            str(parameter.type),
            "nothing" if result is CONTINUE else describe_type(result),
        )
    return result
