"""Warnings: each has programs that it fires in, at the marks, and near misses without marks."""

from __future__ import annotations

import pytest

from compiler.diagnostics import Diagnostics
from compiler.driver import check_models, load_tree
from tests.elaborate.running import check_warnings, model
from tests.programs import ROOT


@pytest.mark.parametrize("path", sorted([*ROOT.glob("models/*.nn"), *ROOT.glob("examples/*.nn")]), ids=lambda p: p.stem)
def test_shipped_programs_do_not_warn(path):
    diagnostics = Diagnostics()
    check_models(load_tree(path, diagnostics=diagnostics), None, diagnostics)
    assert diagnostics.warning_texts() == ()


# Unused names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "program",
    [
        model("§h = Dense(3)(x); return relu(x)"),
        model("§h = relu(x); h = tanh(x); return x"),
        model("§a, §b = split(x, 2); return x"),
        model("if rank(x) == 3 { §y = x }; return x"),
        "layer L(units, §rate=0.5)(x: f32[B, n]) { return x |> Dense(units) }\n" + model("return x |> L(2)"),
        "layer L()(x: f32[B, n]) { param §b: f32[n] = zeros; return relu(x) }\n" + model("return x |> L"),
        "layer L()(x: f32[B, n]) { state §s: f32[n] = zeros; return relu(x) }\n" + model("return x |> L"),
        "fn never_called(x) { §y = 2 * x; return x }\n" + model("return x"),
    ],
)
def test_unused_name(program: str):
    check_warnings(program, "is never used in ")


@pytest.mark.parametrize(
    "program",
    [
        model("h = Dense(3)(x); return h"),
        model("a, b = split(x, 2); return a"),  # one part of two
        model("_h = Dense(3)(x); return x"),
        model("for i in range(3) { x = relu(x) }; return x"),
        "layer Same(momentum=0.9)(x) { return x }\n" + model("return x |> Same"),  # in place of BatchNorm
        "layer L(n)(x: f32[B, n]) { return relu(x) }\n" + model("return x |> L(4)"),  # it checks the shape
        "layer L(n, m=n)(x: f32[B, k]) { return x |> Dense(m) }\n" + model("return x |> L(4)"),
        "layer L()(x: f32[B, n]) { state s: f32[n] = zeros; s = mean(x, axes=0); return x }\n" + model("return x |> L"),
        "cell C(n)(x: f32[B, k]) { carry h: f32[B, n] = 0; h = x @ full([k, n], 1); return x }\n"
        + model("return last(scan(C(2), x))", "x: f32[B, 3, 4]"),
        "optimizer Plain(rate)(p, g, step) { return p - rate * g }\n" + model("return x"),
        "fn of_two(x, y) { return x }\n" + model("return of_two(x, x)"),
    ],
)
def test_used_name(program: str):
    check_warnings(program)


# Pairs of examples ----------------------------------------------------------------------------------------------------


def fitted(
    loss: str, output: str = "x |> Dense(1)", parameters: str = "p: f32[B, 1], y: f32[B]", more: str = ""
) -> str:
    """A program with this loss; the target is `y: f32[B]`."""
    return (
        f"fn own({parameters}) {{ {loss} }}\nmodel M(x: f32[B, 4]) {{ return {output} }}\n"
        f"train M {{ loss = own; optimizer = SGD(lr=0.1){more} }}\n"
    )


MEAN, PAIRS = "return mean(p - reshape(y, [B, 1]))", "the operands make [B,B], a value for each pair of examples"


@pytest.mark.parametrize(
    "program",
    [
        fitted("return mean(square(§p - y))"),
        fitted("return mean(square(§y - p))"),
        fitted("return sum(mean(abs(§p - y), axes=-1))"),
        fitted('return mean(square(§2 * p - cast(y, "f32")))'),
        fitted("return mean(§max(p, y))"),
        fitted('return mean(p) + mean(cast(§p != y, "f32"))'),
        fitted("return mean(§where(y > 0, p, 1 - p))"),
        fitted("e = §p - y; return mean(e * §(p + y))"),
        fitted(MEAN, more="; metrics = [hits]")
        + 'fn hits(p: f32[B, 1], y: f32[B]) { return mean(cast(§p == y, "f32")) }',
        fitted(
            MEAN.replace("- reshape(y, [B, 1])", ""),
            output="§x[:, 0] * (x |> Dense(1)) |> reduce",
            parameters="p: f32[B]",
        )
        + "fn reduce(x) { return mean(x, axes=1) }",
    ],
)
def test_pairs_of_examples(program: str):
    check_warnings(program, PAIRS)


def test_pairs_of_examples_name_shapes_and_origins():
    check_warnings(
        fitted("return mean(square(§p - y))"),
        "found: f32[B,1] and f32[B]",
        "note: test.nn:2:37: f32[B,1] from Dense",
        "note: test.nn:1:22: f32[B] from the target y",
    )


@pytest.mark.parametrize(
    "program",
    [
        fitted("return mean(square(reshape(p, [B]) - y))"),
        fitted("return mean(square(p - reshape(y, [B, 1])))"),
        fitted("return mean(square(p - y))", parameters="p: f32[B, 1], y: f32[B, 1]"),
        fitted("return mean(square(p - y))", output="x |> Dense(3)", parameters="p: f32[B, 3], y: f32[B, 1]"),
    ],
)
def test_no_pairs_of_examples(program: str):
    check_warnings(program)


@pytest.mark.parametrize(
    "program",
    [
        fitted("return mean(square(p - reshape(y, [1, B])))"),  # all pairs, written out
        fitted("return mean(square(p - reshape(p, [B])))"),  # all pairs of one tensor
        fitted('s = cast(reshape(y, [B, 1]) == y, "f32"); return mean(s * (p @ transpose(p, [1, 0])))'),
        fitted("q = square(p); return mean(q + square(y) - 2 * (p @ reshape(y, [1, B])))"),  # distances of all pairs
        fitted("return mean(square(p - mean(y)))"),
    ],
)
def test_pairs_that_are_meant(program: str):
    """They do not warn about the pairs, but such a loss depends on which examples share a batch."""
    check_warnings(program.replace("loss = own", "loss = §own"), "own may not be a mean over the examples")


# Losses that expect logits --------------------------------------------------------------------------------------------


def classifier(output: str, loss: str = "softmax_cross_entropy", more: str = "") -> str:
    train = f"train M {{ loss = {loss}; optimizer = SGD(lr=0.1) }}"
    return f"{more}\nmodel M(x: f32[B, 4]) {{ return {output} }}\n{train}\n"


OWN = "fn own(p: f32[B, n], y: i32[B]) { return §softmax_cross_entropy(p, y) + mean(p) }"
SIGMOID_LOSS = "binary_cross_entropy_with_logits"


@pytest.mark.parametrize(
    "program",
    [
        classifier("x |> Dense(3) |> softmax", "§softmax_cross_entropy"),
        classifier("x |> Dense(3, activation=softmax)", "§softmax_cross_entropy"),
        classifier("x |> Dense(3) |> log_softmax", "§softmax_cross_entropy"),
        classifier("x |> Dense(6) |> Reshape([2, 3]) |> softmax |> Reshape([2, 3])", "§softmax_cross_entropy"),
        classifier("x |> Dense(3) |> softmax", "own", OWN),
        classifier("x |> Dense(1) |> sigmoid", f"§{SIGMOID_LOSS}"),
        classifier("x |> Dense(2, activation=softmax)", f"§{SIGMOID_LOSS}"),
    ],
)
def test_activation_before_a_loss_that_applies_it(program: str):
    check_warnings(program, "itself, but is given the result of ", "is applied here")


@pytest.mark.parametrize(
    "program",
    [
        classifier("x |> Dense(3)"),
        classifier("x |> Dense(3, activation=sigmoid)"),
        classifier("(x |> Dense(3) |> softmax) * 10"),
        classifier("x |> Dense(3) |> softmax |> Dense(3)"),
        classifier("x |> Dense(1) |> sigmoid", "binary_cross_entropy"),
        classifier("x |> Dense(1)", SIGMOID_LOSS),
        classifier("softmax(x)", more="fn softmax(x: f32[B, n]) { return x }").replace(
            "softmax(x) }", "x |> Dense(3) }"
        ),
        classifier(
            "x |> Dense(3) |> softmax", "own", "fn own(p: f32[B, n], y: i32[B]) { return mean(log(p) * one_hot(y, n)) }"
        ),
        classifier("x |> Dense(3)").replace("optimizer", "metrics = [accuracy, most]; optimizer")
        + "fn most(p: f32[B, n]) { return mean(reduce_max(softmax(p), axes=-1)) }",
    ],
)
def test_logits_before_a_loss(program: str):
    check_warnings(program)


# Layers that are applied twice ----------------------------------------------------------------------------------------

ENCODER = "layer Encoder(units)(x: f32[B, n]) { return x |> Dense(units) |> relu }\n"
CELL = """cell Sum(units)(x: f32[B, n]) {
  param w: f32[n, units] = zeros
  carry h: f32[B, units] = 0
  h = h + x @ w
  return h
}
"""
SEQUENCE = "x: f32[B, 3, 4]"


@pytest.mark.parametrize(
    "program",
    [
        ENCODER + model("enc = Encoder(2); return enc(x) + §enc(2 * x)"),
        ENCODER + model("enc = Encoder(2); return enc(x) + (2 * x |> §enc) + (3 * x |> enc)"),
        model("layer_ = Dense(4); for i in range(3) { x = x |> §layer_ }; return x"),
        model("layers = [Dense(4), Dense(4)]; return x |> layers[0] |> §layers[0] |> layers[1]"),
        model("norm = BatchNorm(0.9); return norm(x) + §norm(2 * x)"),
        CELL + model("c = Sum(2); return last(scan(c, x)) + last(§scan(c, 2 * x))", SEQUENCE),
        ENCODER
        + "layer Both(units)(x: f32[B, n]) { enc = Encoder(units); return enc(x) + §enc(2 * x) }\n"
        + model("return x |> Both(2)"),
    ],
)
def test_layer_applied_twice(program: str):
    check_warnings(program, "is applied a second time, with a second set of parameters", "the first time is here")


@pytest.mark.parametrize(
    "program",
    [
        ENCODER + model("enc = Encoder(2); return enc(x)"),
        ENCODER + model("return (x |> Encoder(2)) + (2 * x |> Encoder(2))"),
        ENCODER + model("a = Encoder(2); b = Encoder(2); return a(x) + b(2 * x)"),
        model("drop = Dropout(0.5); return x |> drop |> drop"),  # no parameters
        model("act = leaky_relu(0.1); return x |> act |> act"),
        model("for i in range(3) { x = x |> Dense(4) }; return x"),
        model("for each in [Dense(4), Dense(4)] { x = x |> each }; return x"),
        "layer Twice(block)(x: f32[B, n]) { return x |> block |> block }\n" + model("return x |> Twice(Dense(4))"),
        "layer Twice(blocks)(x: f32[B, n]) { return x |> blocks[0] |> blocks[0] }\n"
        + model("return x |> Twice([Dense(4)])"),
        model("norm = BatchNorm; return x |> norm |> relu |> norm"),  # another name of the declaration
        model("return x |> Bidirectional(LSTM(4))", SEQUENCE),
    ],
)
def test_layer_applied_once(program: str):
    check_warnings(program)


# Settings of a train block --------------------------------------------------------------------------------------------


def trained(optimizer: str, more: str = "") -> str:
    train = f"train M {{ loss = mean_squared_error; optimizer = {optimizer}{more} }}"
    return f"model M(x: f32[B, 4]) {{ return x |> Dense(1) }}\n{train}\n"


@pytest.mark.parametrize(
    "optimizer, fragment",
    [
        ("§SGD(lr=1000)", "far above the usual for SGD"),
        ("§SGD(lr=1e-10)", "far below the usual for SGD"),
        ("§Adam(lr=1)", "mostly between 1e-05 and 0.01"),
        ("§Adam(1)", "found: 1"),
        ("§AdamW(lr=0.5)", "far above"),
        ("§RMSprop(lr=1e-9)", "far below"),
        ("§Adagrad(lr=50)", "far above"),
        ("§Adam(lr=cosine(1, steps=100))", "far above"),
        ("§Adam(lr=constant(1, warmup=10))", "far above"),
    ],
)
def test_unusual_learning_rate(optimizer: str, fragment: str):
    check_warnings(trained(optimizer), fragment)


@pytest.mark.parametrize(
    "optimizer",
    [
        "SGD",
        "Adam",
        "SGD(lr=30)",
        "SGD(lr=1e-6)",
        "SGD(lr=0)",
        "Adam(lr=0.3)",
        "Adam(lr=1e-7)",
        "Adagrad(lr=1)",
        "Adam(lr=cosine(0.005, steps=3760, warmup=100))",
        "Adam(lr=later)",
        "Mine(lr=1000)",
    ],
)
def test_usual_learning_rate(optimizer: str):
    mine = (
        'optimizer Mine(lr)(p, g, step) { return p - lr * g }\nfn later(step) { return 1 / (cast(step, "f32") + 9) }\n'
    )
    check_warnings(mine + trained(optimizer))


# Stopping by the test rows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patience", ["§1", "§3 + 2"])
def test_patience_that_watches_the_test_rows(patience: str):
    program = model("return x |> Dense(3)") + (
        f"train M {{ loss = mean_squared_error; optimizer = SGD; patience = {patience} }}"
    )
    check_warnings(
        program, "patience watches the loss on the test rows", "look too good afterwards", "validation = 0.1"
    )


@pytest.mark.parametrize("entries", ["patience = 3; validation = 0.1", "patience = none", "validation = 0.5", ""])
def test_patience_that_does_not(entries: str):
    check_warnings(
        model("return x |> Dense(3)") + f"train M {{ loss = mean_squared_error; optimizer = SGD; {entries} }}"
    )
