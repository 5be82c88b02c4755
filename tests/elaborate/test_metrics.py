"""Metrics with totals: what they become, mistakes in them, and which losses and totals are sums over the examples."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.elaborate.library import LIBRARY_FOLDER, LIBRARY_HEAD, library
from compiler.ir.interpreter import interpret
from compiler.ir.printer import print_module
from compiler.ir.reader import read_module
from compiler.language.formatter import format_program, format_type
from compiler.language.parser import parse
from runtime.program import METRICS
from tests.elaborate.running import Diagnostics, check_mistakes, check_warnings
from tests.programs import compile_text

LOSS = "softmax_cross_entropy"
MODEL = "model M(x: f32[B, 3]) { return x |> Dense(1) |> Reshape([]) }\n"
F1 = """metric F1(threshold=0.5)(p: f32[B], y: f32[B]) {
  total hits: f32[] = sum(cast(p > threshold, "f32") * y)
  total found: f32[] = sum(cast(p > threshold, "f32"))
  total relevant: f32[] = sum(y)
  return 2 * hits / (found + relevant)
}
"""


def figures_in(file: str) -> list[str]:
    """The losses and metrics of a file of the library; other functions have no outputs and targets."""
    names = LIBRARY_HEAD.findall((LIBRARY_FOLDER / file).read_text("utf-8"))
    functions = [library().declarations[name] for name in names]
    return [f.name.id for f in functions if len(f.groups[-1]) == 2 and all(each.type for each in f.groups[-1])]


def trained(loss: str = "squares", metrics: str = "", model: str = MODEL) -> str:
    squares = "fn squares(p: f32[B], y: f32[B]) { return mean(square(p - y)) }\n"
    block = f"train M {{ loss = {loss}; metrics = [{metrics}]; optimizer = SGD(lr=0.1) }}\n"
    return (squares if loss == "squares" else "") + model + block


def metric(body: str, signature: str = "(p: f32[B], y: f32[B])") -> str:
    return f"metric Own{signature} {{ {body} }}\n" + trained(metrics="Own")


def test_totals_are_outputs_and_what_follows_is_a_graph():
    module = compile_text(F1 + trained(metrics="F1, F1(0.2)")).module
    totals = [f"{name}.{total}" for name in ("F1", "F1_2") for total in ("hits", "found", "relevant")]
    for graph in ("train_step", "evaluate"):
        assert [name for name in module[graph].outputs if "." in name and name in totals] == totals
    graph = module[METRICS]
    assert [str(value.type) for value in graph.inputs] == ["f64[]"] * 6
    found = interpret(graph, dict(zip(totals, (3.0, 4, 5, 0, 0, 0), strict=True)))
    assert found["F1"] == 2 * 3 / 9 and np.isnan(found["F1_2"])  # 0 / 0, as it is written
    assert print_module(read_module(print_module(module))) == print_module(module)


def test_what_follows_from_one_batch_is_not_computed():
    """It might be 0 / 0, and `replay` would find it; a loss needs it."""
    compiled = compile_text(F1 + trained(metrics="F1"))
    parts = {name: {node.op.name for node in graph.nodes} for name, graph in compiled.module.items()}
    assert "div" in parts[METRICS]
    (mean,) = (node for node in compiled.module["evaluate"].nodes if node.op.name == "div")
    assert mean.result is compiled.module["evaluate"].outputs["loss"]
    text = metric('k = cast(iota(2), "f32"); total a: f32[2] = sum(p) * k; return a / k')  # both need k
    assert {"iota", "cast"} <= {node.op.name for node in compile_text(text).module["evaluate"].nodes}


def test_floats_become_wide():
    body = 'total a: f32[2] = full([2], 1) * B; return cast(a, "f32") * 0.1 + cast(iota(2), "f32")'
    graph = compile_text(metric(body)).module[METRICS]
    assert all("f32" not in str(value.type) for node in graph.nodes for value in node.results)
    (result,) = interpret(graph, {"Own.a": np.array([7.0, 7.0])}).values()
    np.testing.assert_array_equal(result, np.array([7.0, 7.0]) * 0.1 + [0, 1])


def test_a_metric_in_a_metric():
    text = F1 + "metric Twice(p: f32[B], y: f32[B]) { return F1(p, y) + F1(0.2)(p, y) }\n" + trained(metrics="Twice")
    names = [value.name for value in compile_text(text).module[METRICS].inputs]
    assert names == [f"Twice.{name}{n}" for n in ("", "_2") for name in ("hits", "found", "relevant")]


@pytest.mark.parametrize(
    ("text", "combined"),
    [
        ("sum(p)", "sum"),
        ("B", "sum"),
        ("2 * sum(p) - B", "sum"),
        ("mean(p) * B", "sum"),
        ("reduce_max(p)", "max"),
        ("reduce_min(p)", "min"),
        ("-reduce_max(-abs(p - y))", "min"),
        ("p |> reduce_max", "max"),
    ],
)
def test_how_totals_combine(text: str, combined: str):
    check_warnings(metric(f"total a: f32[] = {text}; return a"))
    assert compile_text(metric(f"total a: f32[] = {text}; return a")).manifest.totals == {"Own.a": combined}


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        (metric("total §a: f32[] = mean(p); return a"), "found: a mean over the examples"),
        (metric("total §a: f32[] = sum(full([1], 3)); return a"), "found: a value that does not depend on"),
        (metric("total a: f32[2] = §sum(p); return a"), "expected: f32[2]"),
        (metric("total a: f32[] = §3; return a"), "found: the number 3"),
        (metric("total a: §f32[B] = p; return a"), "f32 or f64, and a shape without the batch"),
        (metric('total a: §i32[] = sum(cast(p, "i32")); return a'), "f32 or f64"),
        (metric("§total a = sum(p); return a"), "the total a needs a type"),
        (metric("§total a: f32[]; return a"), "the total a needs a value"),
        (metric("total a: f32[] = sum(p); total §a: f32[] = sum(p); return a"), "a is declared twice"),
        (metric("total §p: f32[] = sum(y); return p"), "p is declared twice"),
        (metric("total a: f32[] = sum(p); return §a / B"), "the number of examples in a batch"),
        (metric("total a: f32[] = sum(p); return a / §sum(p)"), "found: a tensor f32[B]"),
        (metric("total a: f32[] = sum(p); b = §sum(p); return a / b"), "depends on more than its totals"),
        (metric("return mean(p - y)").replace("[Own]", "[§Own]"), "Own has no totals"),
        (metric("total a: f32[] = sum(p); return 3").replace("[Own]", "[§Own]"), "floats: a scalar, a vector or a"),
        (metric("total a: f32[] = sum(p); return full([2, 2, 2], 1) * a").replace("[Own]", "[§Own]"), "f32[2,2,2]"),
        (metric("total a: f32[] = sum(p); return full([101, 100], 1) * a").replace("[Own]", "[§Own]"), "10,000"),
        (F1 + trained(loss="F1", model=MODEL.replace("|> Reshape([])", "")).replace("= F1", "= §F1"), "F1 cannot take"),
        ("layer L()(x: f32[B, n]) { §total a: f32[] = sum(x); return x + a }\n"
         "model M(x: f32[B, 3]) { return x |> L }", "a total in a layer"),
        (F1 + "model M(x: f32[B]) { return §F1(x, x) }", "a metric runs in a train block, or in another metric"),
        (metric("total a: f32[] = sum(p); total §b: f32[] = sum(square(p - a)); return a + b"), "b depends on another"),
        (metric("if training { total a: f32[] = sum(p) } else { total b: f32[] = B; a = b }; return a").replace(
            "loss = ", "loss = §"), "found: Own.a: f32[], and Own.b: f32[]"),
        ("metric F(p: f32[B]) { total a: f32[] §sum(p) }\nmodel M(x: f32[B, 3]) { return x }", "found: `sum`"),
    ],
)  # fmt: skip
def test_mistakes(text: str, fragment: str):
    check_mistakes(text, fragment)


def test_total_is_a_keyword_only_before_a_name():
    text = "fn f(x) {\n  total = 2 * x\n  total = total - 1\n  return total\n}\n\n" + F1
    diagnostics = Diagnostics()
    tree = parse(text, "test.nn", diagnostics)
    assert len(diagnostics) == 0 and format_program(tree) == text


# Sums and means over the examples -------------------------------------------------------------------------------------

TWO = "model M(x: f32[B, 3, 4]) { return x |> Dense(5) }\n"


def loss(body: str, signature: str = "(p: f32[B, 3, 5], y: f32[B, 3, 5])", mark: str = "") -> str:
    cells = "\n".join(
        f"cell {name}()(x: f32[B, n]) {{ carry h: f32[B, n] = 0; h = {new}; return h }}"
        for name, new in (("SimpleSum", "h + tanh(x)"), ("Centred", "h + x - mean(x)"))
        if name in body
    )
    text = f"fn own{signature} {{ {body} }}\n{cells}\n{TWO}train M {{ loss = {mark}own; optimizer = SGD(lr=0.1) }}\n"
    return text


@pytest.mark.parametrize(
    "body",
    [
        "return mean(square(p - y))",
        "return mean(mean(square(p - y), axes=[1, 2]))",
        "return sum(mean(square(p - y), axes=0))",
        "return 0.5 * mean(abs(p)) + 3 * mean(relu(p - y)) - 1",
        "return sum(p * y) / B",
        "return sum(p * y / B)",
        "return mean(sqrt(sum(square(p - y), axes=-1)))",
        "return mean(-log_softmax(p) * softmax(y))",
        "return mean(reduce_max(p, axes=1)) - mean(logsumexp(p, axes=2))",
        "return mean(transpose(p, [1, 0, 2]) * transpose(y, [1, 0, 2]))",
        "return mean(reshape(p, [-1, 5]) @ transpose(reshape(full([5, 2], 1), [2, 5]), [1, 0]))",
        "d = reshape(p - y, [-1]); return sum(d * d) / size(d)",
        "return mean(p @ transpose(y, [0, 2, 1]))",
        "return mean(concat(p, y)) + mean(p[:, 1:] - y[:, :-1])",
        'return mean(p) + mean(cast(argmax(p) == argmax(y), "f32"))',
        "return mean(where(y > 0, p, 2 * p))",
        "return huber(delta=2)(p, y) + mean_absolute_error(p, y)",
        "return mean(last(scan(SimpleSum(), p)) - y[:, 0])",
        "return sum(transpose(reshape(p, [B, 15]), [1, 0]) @ reshape(y, [B, 15])) / B",
    ],
)
def test_means_do_not_warn(body: str):
    check_warnings(loss(body))


@pytest.mark.parametrize(
    ("body", "fragment"),
    [
        (
            "return 1 - mean(square(p - y)) / variance(y)",
            "`sub` of values of single examples and a mean over the examples",
        ),
        ("return sqrt(mean(square(p - y)))", "`sqrt` of a mean over the examples"),
        ("return sum(p * y)", "found: a sum over the examples"),
        ("return mean(p) * mean(y)", "`mul` of a mean over the examples"),
        ("return sum(p * y) / sum(y)", "`div` of a sum over the examples"),
        ("return reduce_max(p)", "found: the largest value of the examples"),
        ("return mean(p - mean(p, axes=0, keepdims=true))", "a value of the whole batch"),
        ("return logsumexp(p)", "a value of the whole batch"),
        ("return mean(last(scan(SimpleSum(), p - mean(p))))", "a value of the whole batch"),
        ("return mean(last(scan(Centred(), p)))", "`scan` of values of single examples"),
    ],
)
def test_what_depends_on_the_batch(body: str, fragment: str):
    check_warnings(loss(body, mark="§"), "a mean over the examples, so its figures", fragment)


def test_a_root_of_a_mean_depends_on_the_batch():
    check_warnings(loss("return sqrt(mean(square(p - y)))", mark="§"), "a mean over the examples, so its figures")


def test_a_total_that_is_no_sum_warns():
    text = metric("total §a: f32[] = sqrt(sum(square(p - y))); return a")
    check_warnings(text, "the total a may not be a sum over the examples", "`sqrt` of a sum over the examples")


def test_a_sum_as_a_bool_is_no_sum():
    """Also not as a smaller integer: it wraps around. A wider one keeps all numbers."""
    for dtype, warns in (("bool", True), ("u8", True), ("i64", False)):
        total = f'total {"§" * warns}a: f32[] = cast(cast(sum(cast(y, "i32")), "{dtype}"), "f32"); return a'
        check_warnings(metric(total), *["`cast` of a sum over the examples"] * warns)


def test_the_number_of_examples_has_the_type_of_its_total():
    module = compile_text(metric('total n: f64[] = B; total s: f64[] = sum(cast(p, "f64")); return s / n')).module
    assert interpret(module[METRICS], {"Own.n": 4.0, "Own.s": 6.0})["Own"] == 1.5


def test_batch_statistics_of_the_model_do_not_count():
    text = "model M(x: f32[B, 3]) { return x |> Dense(4) |> BatchNorm |> Dropout(0.5) |> Dense(1) |> Reshape([]) }\n"
    check_warnings(F1 + trained(metrics="F1", model=text))
    scalar = "model M(x: f32[B, 3]) { h = x |> Dense(4); return mean(square(h)) }\n"
    block = "fn first(a: f32[]) { return a }\ntrain M { loss = first; optimizer = SGD(lr=0.1) }"
    check_warnings(scalar + block)


# The model's output for each signature that a loss or metric of the library has, and the names of those.
OUTPUTS = {
    "f32[B, ...]": ("x |> Dense(4)", "f32"),
    "f32[B, ..., n]": ("x |> Dense(4)", "i32"),
}


@pytest.mark.parametrize("name", sorted(name for file in ("losses.nn", "metrics.nn", "classification_metrics.nn",
                                        "regression_metrics.nn") for name in figures_in(file)))  # fmt: skip
def test_the_library_does_not_warn(name: str):
    function = library().declarations[name]
    first = function.groups[-1][0].type
    assert first is not None
    output, _ = OUTPUTS[format_type(first)]
    model = f"model M(x: f32[B, 3, 4]) {{ return {output} }}\n"
    metrics = f"metrics = [{name}]; loss = {'mean_squared_error' if OUTPUTS[format_type(first)][1] == 'f32' else LOSS}"
    check_warnings(model + f"train M {{ {metrics}; optimizer = SGD(lr=0.1) }}\n")
