"""The meaning of tensors: shapes and the batch, states, cells, inputs and outputs; tested on the generated code."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.diagnostics import Diagnostics
from compiler.driver import compile_tree
from compiler.ir.printer import print_module
from compiler.ir.types import Batch
from compiler.language.parser import parse
from runtime.datasets.dataset import ArrayInfo
from tests.elaborate.running import check_mistakes, examples, model, output, predictions
from tests.programs import compile_text, initialized, run_program

X = examples(3, 4)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return x * B", X * 3),
        ("return x * (B + 1) / B", X * 4 / 3),
        ("return x * -B", X * -3),
        ("return x * (2 * B // 2)", X * 3),
        ("return x * (B // 2) + B % 2", X * 1 + 1),
        ("return x * max(B, 2) * min(B, 2) + exp(B - B)", X * 6 + 1),
        ("return x * where(B > 2, 10, 20)", X * 10),
        ("return x * size(x) / size(x, axes=0)", X * 4),
        ("return sum(x, axes=1) / B", X.sum(1) / 3),
        ("return reshape(x, [2 * B, 2])", X.reshape(6, 2)),
        ("return reshape(x, [-1, 2])", X.reshape(6, 2)),
        ("return reshape(x, [B, -1, 2])", X.reshape(3, 2, 2)),
        ("return reshape(x, [B * 4])", X.reshape(12)),
        ("return full([B, 2], 7)", np.full((3, 2), 7)),
        ("return full(shape(x), 7) + zeros_like(x) + ones_like(x)", np.full((3, 4), 8)),
    ],
)
def test_the_batch_in_arithmetic_and_shapes(body: str, expected: np.ndarray):
    assert output(model(body), X) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return x[:, 1]", X[:, 1]),
        ("return x[:, -1:]", X[:, -1:]),
        ("return x[:, ::2]", X[:, ::2]),
        ("return x[:, 3:1]", X[:, 3:1]),
        ("return x[:]", X[:]),
        ("a, b = split(x, 2); return b - a", X[:, 2:] - X[:, :2]),
        ("return 1 - x", 1 - X),
        ("return 2 ** x", 2**X),
        ("return x ** 2 / 2", X**2 / 2),
        ("return x // 0.25 + x % 0.25", X // np.float32(0.25) + X % np.float32(0.25)),
        ("return where(x > 0.5, x, 0)", np.where(X > 0.5, X, 0)),
        ("return where(x > 0.2 and not x >= 0.6 or x == 0, 1, 0) * x", np.where((X > 0.2) & (X < 0.6), X, 0)),
        ('return cast(x != 0.5, "f32")', np.not_equal(X, 0.5).astype("f4")),
        ('return cast(x * 10, "i32") // 3', np.round(X * 10).astype("i4") // 3),
        ('return (cast(x * 10, "i32") - 5) % 3', (np.round(X * 10).astype("i4") - 5) % 3),
        ('return cast(x * 10, "i32") / 4', np.round(X * 10) / 4),
        ('return cast(x * 10, "i32") + 0.5', np.round(X * 10) + 0.5),
        ("return concat([x, x], axis=1)", np.concatenate([X, X], 1)),
        ("return x @ transpose(ones([2, 4]), [1, 0])", X @ np.ones((4, 2))),
        ("return pad(flip(x, 1), [[0, 0], [1, 0]], value=9)", np.pad(X[:, ::-1], [(0, 0), (1, 0)], constant_values=9)),
        ("return gather(ones([2, 3]), argmax(x) - 3)", np.ones((3, 3))),
        ("return random_uniform(shape(x), low=2, high=2)", np.full((3, 4), 2)),
        ("return random_normal([2], mean=x[:, 0:2], stddev=0)", X[:, :2]),
    ],
)
def test_tensors(body: str, expected: np.ndarray):
    result = output(model(body), X)
    assert result.shape == expected.shape
    assert result == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_shape_variables_are_unified_over_the_whole_signature():
    program = """
fn halved(both: f32[B, 2 * n], half: f32[B, n]) { return both[:, 0:n] + half * n }
fn scale(x: f32[..., n], by: f32[n]) { return x * by }
"""
    y = examples(3, 2)
    body, inputs = "return scale(halved(x, y), full([2], 3))", "x: f32[B, 4], y: f32[B, 2]"
    assert output(program + model(body, inputs), X, y) == pytest.approx((X[:, :2] + y * 2) * 3)
    body = "return scale(halved(§y, y), full([2], 3))"
    check_mistakes(program + model(body, inputs), "expected: f32[B, 2 * n] with n = 2", "found: f32[B,2]")
    body = "return scale(halved(x, y), §full([4], 3))"
    check_mistakes(program + model(body, inputs), "expected: f32[n] with n = 2", "found: f32[4]")


def test_an_ellipsis_means_the_same_dimensions_everywhere():
    program = "fn both(a: f32[..., n], b: f32[...]) { return a + sum(a, axes=-1, keepdims=true) * 0 }\n"
    body = "return both(reshape(x, [B, 2, 2]), x[:, 0:2])"
    assert output(program + model(body), X).shape == (3, 2, 2)
    check_mistakes(program + model("return both(x, §x)"), "expected: f32[...] with ... = [B]", "found: f32[B,4]")


def test_numbers_are_scalar_tensors():
    program = "fn affine(x: f32[B, n], a: f32[], b: f32[]) { return a * x + b }\n"
    assert output(program + model("return affine(x, 2, B)"), X) == pytest.approx(2 * X + 3)


@pytest.mark.parametrize("name", ["B", "N", "examples"])
def test_the_batch_has_any_name(name: str):
    inputs = f"x: f32[{name}, 4], k: i32[{name}]"
    program = model(f'return x * {name} + reshape(cast(k, "f32"), [{name}, 1])', inputs)
    assert output(program, X, np.array([1, 2, 3])) == pytest.approx(X * 3 + np.array([[1], [2], [3]]))


def test_several_inputs_and_outputs():
    y = examples(3, 4, 2)
    named = predictions(
        model("rest = x * y[:, :, 1]; half = x / 2; return rest, half", "x: f32[B, 4], y: f32[B, 4, 2]"), X, y
    )
    assert named["rest"] == pytest.approx(X * y[:, :, 1]) and named["half"] == pytest.approx(X / 2)
    numbered = predictions(model("half = x / 2; return half, 3 * x"), X)
    assert numbered["output_1"] == pytest.approx(X / 2) and numbered["output_2"] == pytest.approx(3 * X)
    listed = predictions(model("return [x, x * 2]"), X)
    assert listed["output_2"] == pytest.approx(X * 2)


def test_hyperparameters_have_defaults_and_may_be_tensors():
    program = """
layer Scale(by=2, twice=by * 2)(x: f32[B, n]) { return x * by * twice }
cell Decay(units, context=none)(x: f32[B, n]) {
  carry h: f32[B, n] = context
  h = 0.5 * h + x * context
  return h
}
"""
    assert output(program + model("return Scale(x)"), X) == pytest.approx(X * 8)
    assert output(program + model("return x |> Scale(3)"), X) == pytest.approx(X * 18)
    assert output(program + model("return x |> Scale(by=x, twice=1)"), X) == pytest.approx(X * X)
    assert output(program + model("return Scale(x=x)"), X) == pytest.approx(X * 8)
    sequence, context = examples(2, 3, 4), examples(2, 4) + 1
    result = output(
        program + model("return scan(Decay(4, context=c), x)", "x: f32[B, 3, 4], c: f32[B, 4]"), sequence, context
    )
    h = context
    for t in range(3):
        h = 0.5 * h + sequence[:, t] * context
        assert result[:, t] == pytest.approx(h)


def test_models_may_have_hyperparameters():
    program = "model M(width=3, act=relu)(x: f32[B, 4]) { return x |> Dense(width, activation=act) }\n"
    assert output(program, X).shape == (3, 3)


CELLS = """
cell Sum()(x: f32[B, n]) {
  carry total: f32[B, n] = 0
  total = total + x
  return total
}
cell Both(start=1)(x: f32[B, n]) {
  carry product: f32[B, n] = start
  carry count: i32[] = 0
  product = product * x
  count = count + 1
  return product, x * cast(count, "f32")
}
cell Rows()(rows: f32[B, W, n]) {
  carry best: f32[B, n] = -100
  best = max(best, last(scan(Sum, rows)))
  return best
}
cell Previous()(x: f32[B, n]) {
  carry before: f32[B, n] = 7
  y = before
  before = x
  return y
}
cell Constant()(x: f32[B, n]) { carry h: f32[B, n] = 0; y = h; h = 3; return y }
"""
SEQUENCE = examples(2, 3, 4)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return scan(Sum, x)", SEQUENCE.cumsum(1)),
        ("return scan(Sum, x, reverse=true)", SEQUENCE[:, ::-1].cumsum(1)),
        ("return scan(Previous, x)[:, 0]", np.full((2, 4), 7)),
        ("return scan(Previous, x)[:, 1:]", SEQUENCE[:, :-1]),
        ("return scan(Previous, x, reverse=true)[:, 1:]", SEQUENCE[:, :0:-1]),
        ("return scan(Constant, x)[:, 1:]", np.full((2, 2, 4), 3)),
        ("a, b = scan(Both, x); return a", SEQUENCE.cumprod(1)),
        (
            "a, b = scan(Both(start=2), x); return a + b",
            2 * SEQUENCE.cumprod(1) + SEQUENCE * np.array([[[1], [2], [3]]]),
        ),
        ("return scan(Rows, reshape(concat(x, x), [B, 3, 2, 4]))[:, -1]", None),
        ("return x |> RNN(Sum)", SEQUENCE.sum(1)),
        ("return x |> Bidirectional(Sum)", np.concatenate([SEQUENCE.sum(1)] * 2, 1)),
        (
            "return x |> Bidirectional(Sum, return_sequences=true)",
            np.concatenate([SEQUENCE.cumsum(1), SEQUENCE[:, ::-1].cumsum(1)[:, ::-1]], 2),
        ),
    ],
)
def test_scan(body: str, expected: np.ndarray | None):
    result = output(CELLS + model(body, "x: f32[B, 3, 4]"), SEQUENCE)
    if expected is None:
        inner = np.concatenate([SEQUENCE, SEQUENCE], 2).reshape(2, 3, 2, 4).sum(2)
        expected = inner.max(1)
    assert result == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_layer_twice_has_two_sets_of_parameters():
    compiled = compile_text(model("dense = Dense(4); return x |> dense |> dense |> Dense(2)"))
    names = [spec.name for spec in compiled.manifest.variables if spec.kind == "param"]
    assert names == ["dense_1.w", "dense_1.b", "dense_2.w", "dense_2.b", "dense_3.w", "dense_3.b"]


def test_paths_follow_the_layers():
    program = """
layer Block(n)(x: f32[B, c]) { param scale: f32[c] = 2; return x * scale |> Dense(n) |> BatchNorm }
""" + model("y = x |> Block(3) |> Block(2)\nparam shift: f32[2] = 1\nreturn y + shift")
    names = {spec.name: spec.kind for spec in compile_text(program).manifest.variables}
    assert names == {
        **{f"block_{i}.{name}": "param" for i in (1, 2) for name in ("scale", "dense_1.w", "dense_1.b")},
        **{f"block_{i}.batch_norm_1.{name}": "param" for i in (1, 2) for name in ("gamma", "beta")},
        **{f"block_{i}.batch_norm_1.{name}": "state" for i in (1, 2) for name in ("running_mean", "running_var")},
        "shift": "param",
        "seed": "counter",
        "step": "counter",
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("3", np.full((2, 4), 3.0)),
        ("ones", np.ones((2, 4))),
        ("constant(5)", np.full((2, 4), 5.0)),
        ("0.5 * ones([2, 4])", np.full((2, 4), 0.5)),
        ("counting", np.arange(8).reshape(2, 4)),
        ("shaped", np.full((2, 4), 24.0)),
    ],
)
def test_initial_values(value: str, expected: np.ndarray):
    program = """
fn counting(shape) { return reshape(cast(iota(prod(shape)), "f32"), shape) }
fn shaped(shape) { return full(shape, 10 * shape[0] + shape[1]) }
""" + model(f"param w: f32[2, 4] = {value}\nreturn x + w[0]")
    assert predictions(program, X)["w"] == pytest.approx(expected)


def test_initial_values_take_the_declared_float_type():
    compiled = compile_text(model('param w: f64[4] = ones\nreturn cast(x, "f64") * w'))
    assert [spec.dtype for spec in compiled.manifest.variables if spec.name == "w"] == ["f64"]


COUNTING = """
layer Counting(step)(x: f32[B, n]) {
  state calls: i32[] = 0
  state last: f32[n] = 0
  calls = calls + step
  last = mean(x, axes=0)
  return x + cast(calls, "f32")
}
""" + model("y = x |> Counting(2)\nparam w: f32[4] = 1\nreturn y * w", training=True)


def test_states_are_updated_in_training_only():
    compiled = compile_text(COUNTING)
    program = initialized(compiled)
    inputs = {"x": X, "target": X}
    for _ in range(2):
        assert run_program(program, "predict", {"x": X}, 3)["output"] == pytest.approx(X)
        assert run_program(program, "evaluate", inputs, 3)["counting_1.calls"] == 0
    for step in (1, 2):
        after = run_program(program, "train_step", inputs, 3)
        assert after["counting_1.calls"] == 2 * step
        assert after["counting_1.last"] == pytest.approx(X.mean(0))
    assert set(compiled.module["evaluate"].outputs) == {"loss"}
    assert {"counting_1.calls", "counting_1.last", "w", "step"} <= set(compiled.module["train_step"].outputs)


def test_training_is_a_compile_time_value():
    program = model("if training { x = x * 2 }\nparam w: f32[4] = 1\nreturn x * w", training=True)
    compiled = compile_text(program)
    assert len(compiled.module["train_step"].nodes) > len(compiled.module["evaluate"].nodes)
    runner = initialized(compiled)
    zero = np.zeros_like(X)
    loss = run_program(runner, "evaluate", {"x": X, "target": zero}, 3)["loss"]
    assert run_program(runner, "train_step", {"x": X, "target": zero}, 3)["loss"] == pytest.approx(4 * loss)


def test_every_draw_has_a_separate_stream():
    program = model(
        "param a: f32[2] = normal\nparam b: f32[2] = normal\n"
        "x = x |> Dropout(0.5) |> Dropout(0.5)\nreturn x * (sum(a) + sum(b)) + random_normal(shape(x))",
        training=True,
    )
    compiled = compile_text(program)
    streams = [
        node.attributes["stream"]
        for graph in compiled.module.values()
        for node in graph.walk()
        if node.op.name == "random"
    ]
    assert (
        len(streams) == 2 + 1 + 1 + 3
    )  # two initializers; noise in predict and evaluate; dropout and noise in training
    assert len(set(streams)) == len(streams)


def test_inputs_are_converted_from_the_way_they_are_stored():
    program = 'model M(image: f32[B, 4], index: i32[B]) { return image + reshape(cast(index, "f32"), [B, 1]) }'
    storage = {"image": ArrayInfo("u8", (4,), 1 / 255), "index": ArrayInfo("u8", (), 1.0)}
    compiled = compile_tree(parse(program, "test.nn", Diagnostics()), storage=storage)
    assert [(spec.name, spec.dtype, spec.shape) for spec in compiled.manifest.inputs] == [
        ("image", "u8", (None, 4)),
        ("index", "u8", (None,)),
    ]
    given = {"image": np.full((2, 4), 255, np.uint8), "index": np.array([3, 4], np.uint8)}
    result = run_program(initialized(compiled), "predict", given, 2)["output"]
    assert result == pytest.approx(np.array([[4.0] * 4, [5.0] * 4]))


def test_graphs_are_the_same_every_time():
    first, second = (print_module(compile_text(COUNTING).module) for _ in range(2))
    assert first == second
    assert compile_text(COUNTING).model.outputs["output"].shape == (Batch(), 4)
