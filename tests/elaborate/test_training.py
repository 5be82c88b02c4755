"""User-defined losses, metrics, optimizers and schedules can do all that the library can; the train block."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.elaborate.training import KEYS
from tests.elaborate.running import examples, model
from tests.programs import compile_text, initialized, run_program

X = examples(3, 4)
SCALE = "param w: f32[4] = 1\nreturn x * w"


def train(entries: str, body: str = SCALE, inputs: str = "x: f32[B, 4]", declarations: str = "") -> str:
    return declarations + model(body, inputs) + f"train M {{ {entries} }}"


def steps(program: str, count: int = 1, **inputs: np.ndarray) -> list[dict[str, np.ndarray]]:
    """The results of training steps, with variables."""
    runner = initialized(compile_text(program))
    return [run_program(runner, "train_step", inputs, len(inputs["x"])) for _ in range(count)]


def gradient_of_mean_square(w: np.ndarray, target: np.ndarray) -> np.ndarray:
    return (2 * (X * w - target) * X).sum(0) / X.size


TARGET = examples(3, 4)[::-1].copy()

OWN = """
fn own_loss(weight=1)(output: f32[B, n], target: f32[B, n]) { return weight * mean(square(output - target)) }
fn largest(output: f32[B, n], target: f32[B, n]) { return reduce_max(output) }
fn untargeted(output: f32[B, n]) { return mean(output) }
fn inverse(rate)(now) { return rate / (1 + cast(now, "f32")) }
optimizer Sign(lr)(p, g, step) { return p - value_at(lr, step) * sign(g) }
optimizer Heavy(lr, momentum=0.5)(p, g, step) {
  state v = zeros_like(p)
  state calls: i32[] = 0
  v = momentum * v + g
  calls = calls + 1
  return p - lr * v
}
optimizer Pulled(lr)(p, g, step) { state start = p; return start - lr * g }
optimizer Noisy(lr)(p, g, step) { return p - lr * random_normal(shape(p)) }
"""


def test_a_user_defined_loss():
    program = train("loss = own_loss(3); optimizer = SGD(lr=0.5)", declarations=OWN)
    (after,) = steps(program, x=X, target=TARGET)
    assert after["loss"] == pytest.approx(3 * np.square(X - TARGET).mean())
    assert after["w"] == pytest.approx(1 - 0.5 * 3 * gradient_of_mean_square(np.ones(4), TARGET))


def test_user_defined_metrics():
    metrics = "largest, untargeted, own_loss(2), own_loss, binary_accuracy(threshold=0)"
    program = train(f"loss = own_loss; optimizer = SGD; metrics = [{metrics}]", declarations=OWN)
    names = ("largest", "untargeted", "own_loss", "own_loss_2", "binary_accuracy")
    assert compile_text(program).manifest.metrics == names
    (after,) = steps(program, x=X, target=TARGET)
    loss = np.square(X - TARGET).mean()
    wanted = (X.max(), X.mean(), 2 * loss, loss, ((X > 0) == TARGET).mean())
    assert [after[name] for name in names] == pytest.approx(wanted)


def test_metrics_never_take_the_names_of_other_results():
    declarations = """
fn loss(a: f32[B, n], target: f32[B, n]) { return mean(a * target) }
fn step(a: f32[B, n]) { return mean(a) }
"""
    program = train("loss = loss; optimizer = SGD; metrics = [loss, step]", declarations=declarations)
    assert compile_text(program).manifest.metrics == ("loss_2", "step_2")
    (after,) = steps(program, x=X, target=TARGET)
    assert after["loss"] == after["loss_2"] and after["step"] == 1


@pytest.mark.parametrize(
    ("optimizer", "update"),
    [
        ("Sign(0.1)", lambda t, g, v: 0.1 * np.sign(g)),
        ("Sign(inverse(0.1))", lambda t, g, v: 0.1 / (1 + t) * np.sign(g)),
        ("Sign(constant(0.1))", lambda t, g, v: 0.1 * np.sign(g)),
        ("SGD(lr=exponential(0.1, 1, factor=0.5))", lambda t, g, v: 0.1 * 0.5**t * g),
        ("Heavy(lr=0.1)", lambda t, g, v: 0.1 * v),
        ("SGD(lr=0.1)", lambda t, g, v: 0.1 * g),
    ],
)
def test_optimizers_and_schedules(optimizer: str, update):
    results = steps(train(f"loss = own_loss; optimizer = {optimizer}", declarations=OWN), 3, x=X, target=TARGET)
    w, v = np.ones(4), np.zeros(4)
    for t, after in enumerate(results):
        g = gradient_of_mean_square(w, TARGET)
        v = 0.5 * v + g
        w = w - update(t, g, v)
        assert after["w"] == pytest.approx(w, rel=1e-5)


def test_slots_are_kept_for_each_parameter():
    compiled = compile_text(
        train("loss = own_loss; optimizer = Heavy(lr=0.1)", "return x |> Dense(4)", declarations=OWN)
    )
    slots = {spec.name: spec.shape for spec in compiled.manifest.variables if spec.kind == "slot"}
    assert slots == {
        "dense_1.w.v": (4, 4),
        "dense_1.w.calls": (),
        "dense_1.b.v": (4,),
        "dense_1.b.calls": (),
    }


def test_a_slot_may_start_from_its_parameter():
    body = "param w: f32[4] = normal\nreturn x * w"
    program = compile_text(train("loss = own_loss; optimizer = Pulled(lr=0)", body, declarations=OWN))
    runner = initialized(program)
    variables = {name: value.copy() for name, value in runner.variables().items()}
    assert variables["w.start"] == pytest.approx(variables["w"]) and variables["w"].any()


def test_an_optimizer_may_draw_random_numbers():
    first, second = steps(train("loss = own_loss; optimizer = Noisy(lr=1)", declarations=OWN), 2, x=X, target=TARGET)
    moves = first["w"] - 1, second["w"] - first["w"]
    assert all(move.all() for move in moves) and not np.allclose(*moves)


def test_a_loss_sees_all_outputs_and_targets():
    declarations = """
fn both(main: f32[B, n], aside: f32[B], label: i32[B], score: f32[B], weight=0.5) {
  return softmax_cross_entropy(main, label) + weight * mean(square(aside - score))
}
fn main_accuracy(main: f32[B, n], aside: f32[B], label: i32[B]) { return accuracy(main, label) }
"""
    body = "param w: f32[4] = 1\nmain = x * w\naside = sum(x, axes=1)\nreturn main, aside"
    program = train("loss = both; optimizer = SGD; metrics = [main_accuracy]", body, declarations=declarations)
    assert [(spec.name, spec.dtype) for spec in compile_text(program).manifest.targets] == [
        ("label", "i32"),
        ("score", "f32"),
    ]
    label, score = np.array([3, 3, 0], np.int32), np.array([1, 2, 3], np.float32)
    (after,) = steps(program, x=X, label=label, score=score)
    cross_entropy = np.mean([np.log(np.exp(row - row[k]).sum()) for row, k in zip(X, label, strict=True)])
    assert after["loss"] == pytest.approx(cross_entropy + 0.5 * np.square(X.sum(1) - score).mean(), rel=1e-5)
    assert after["main_accuracy"] == pytest.approx(2 / 3)


def test_an_input_can_be_the_target():
    declarations = "fn reconstruction(output: f32[B, n], x: f32[B, n]) { return mean(square(output - x)) }\n"
    program = train("loss = reconstruction; optimizer = SGD", "return x |> Dense(4)", declarations=declarations)
    assert compile_text(program).manifest.targets == ()
    (after,) = steps(program, x=X)
    assert after["loss"] > 0


def test_a_loss_may_have_parameters():
    declarations = """
layer Centered()(output: f32[B, n], target: f32[B, n]) {
  param center: f32[n] = 0.5
  return mean(square(output - target - center))
}
"""
    (after,) = steps(train("loss = Centered; optimizer = SGD(lr=1)", declarations=declarations), x=X, target=TARGET)
    assert after["loss"] == pytest.approx(np.square(X - TARGET - 0.5).mean())
    assert not np.allclose(after["centered_1.center"], 0.5)


def test_the_batch_of_a_target_has_any_name():
    declarations = 'fn l(a: f32[..., n], t: i32[examples]) { return mean(a) * mean(cast(t, "f32")) }\n'
    compiled = compile_text(train("loss = l; optimizer = SGD", declarations=declarations))
    assert compiled.manifest.targets[0].shape == (None,)


def test_defaults_of_the_train_block():
    settings = compile_text(train("loss = mean_squared_error; optimizer = SGD")).manifest.settings
    assert all(getattr(settings, name) == key.default for name, key in KEYS.items() if hasattr(settings, name))


def test_entries_are_expressions():
    declarations = "fn small(n) { return n // 2 }\n"
    entries = (
        'loss = mean_squared_error; optimizer = SGD; batch = small(2 ** 6); epochs = len([1, 2]); data = "a" + ".npz"'
    )
    settings = compile_text(train(entries, declarations=declarations)).manifest.settings
    assert (settings.batch, settings.epochs, settings.data) == (32, 2, "a.npz")
