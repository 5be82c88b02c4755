"""The metrics of the library on whole data, in batches of several sizes: values of scikit-learn, and plain formulas.

`python tests/runtime/test_standard_metrics.py` prints the values of scikit-learn, which must be installed; those below
are of version 1.9.1.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest

from compiler.ir.interpreter import interpret
from compiler.ir.types import at_batch
from runtime.datasets.dataset import Split
from runtime.program import LoadedProgram
from runtime.training.trainer import evaluate
from tests.programs import compile_text

ROWS = 301  # no multiple of a batch below
BATCHES = (1, 7, 64, ROWS)
CLASSES = 6

# Of scikit-learn 1.9.1
SKLEARN: dict[str, Any] = {
    "f1": 0.6639004149377593,
    "precision": 0.5369127516778524,
    "recall": 0.8695652173913043,
    "f1(0.75)": 0.5662650602409639,
    "precision(0.995)": 1.0,
    "auc": 0.838854795090493,
    "binary_accuracy": 0.7308970099667774,
    "accuracy": 0.49169435215946844,
    "top_k_accuracy(2)": 0.5548172757475083,
    "multiclass_precision": 0.4124031007751938,
    'multiclass_precision(average="micro")': 0.49169435215946844,
    'multiclass_precision(average="weighted")': 0.461510726518839,
    "multiclass_precision(average=none)": [0.6744186046511628, 0.6976744186046512, 0.689922480620155, 0.0, 0.0, 0.0],
    "multiclass_recall": 0.40904006046863195,
    'multiclass_recall(average="micro")': 0.49169435215946844,
    'multiclass_recall(average="weighted")': 0.49169435215946844,
    "multiclass_recall(average=none)": [0.5370370370370371, 0.6, 0.9081632653061225, 0.0, 0.0, 0.0],
    "multiclass_f1": 0.4054480807630946,
    'multiclass_f1(average="micro")': 0.49169435215946844,
    'multiclass_f1(average="weighted")': 0.46974265544158483,
    "multiclass_f1(average=none)": [0.5979381443298969, 0.6451612903225806, 0.7841409691629956, 0.0, 0.0, 0.0],
    "per_class_accuracy": [0.5370370370370371, 0.6, 0.9081632653061225, 0.0, 0.0, 0.0],
    "confusion_matrix": [
        [29, 4, 12, 9, 0, 0],
        [6, 30, 9, 5, 0, 0],
        [0, 2, 89, 7, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [8, 7, 19, 65, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ],
    "perplexity": 6.46835459075813,
    "r2": -1.2185871815906597,
    "explained_variance": 0.45541155459438754,
    "root_mean_squared_error": 0.4285002629162066,
    "mean_absolute_error": 0.327739526191649,
    "mean_squared_error": 0.18361247531925795,
}


def spread(count: int, step: float) -> np.ndarray:
    """Numbers in 0 … 1 that look random, the same on every machine."""
    return np.modf(np.arange(1, count + 1) * step)[0]


def binary() -> dict[str, np.ndarray]:
    """Probabilities with two decimals, so that many are equal, and labels that they predict more or less."""
    p = np.round(spread(ROWS, 0.6180339887498949), 2).astype(np.float32)
    return {"p": p, "y": (p + spread(ROWS, 0.7548776662466927) > 1.2).astype(np.float32)}


def classes() -> dict[str, np.ndarray]:
    """Logits of 6 classes; class 3 never is the label, class 4 never the guess, class 5 neither. Labels have noise."""
    logits = spread(ROWS * CLASSES, 0.5698402909980532).reshape(ROWS, CLASSES).astype(np.float32)
    logits[:, 4:] = -1
    noise = spread(ROWS, 0.8191725133961645)
    label = np.where(noise < 0.6, logits.argmax(1), (noise * 1000).astype(int) % 5)
    return {"p": logits, "label": np.where(label == 3, 4, label).astype(np.int32)}


def regression(offset: float = 0.0) -> dict[str, np.ndarray]:
    """Two outputs; the second is predicted worse. `offset` is added to predictions and targets."""
    y = np.stack([spread(ROWS, 0.6180339887498949), spread(ROWS, 0.7548776662466927)], 1)
    error = np.stack([spread(ROWS, 0.5698402909980532) * 0.3, spread(ROWS, 0.3247179572447460)], 1)
    return {"p": (offset + y + error).astype(np.float32), "y": (offset + y).astype(np.float32)}


METRICS = {
    "binary": (
        "f1, precision, recall, f1(0.75), precision(0.995), auc, binary_accuracy",
        "model M(p: f32[B])",
        "y: f32[B]",
    ),
    "classes": (
        "accuracy, top_k_accuracy(2), multiclass_precision, multiclass_recall, multiclass_f1, "
        + ", ".join(f"multiclass_{name}(average={how})" for name in ("precision", "recall", "f1")
                    for how in ('"micro"', '"weighted"', "none"))
        + ", per_class_accuracy, confusion_matrix, perplexity",
        "model M(p: f32[B, 6])",
        "label: i32[B]",
    ),
    "regression": (
        "r2, explained_variance, root_mean_squared_error, mean_absolute_error, mean_squared_error",
        "model M(p: f32[B, 2])",
        "y: f32[B, 2]",
    ),
}  # fmt: skip
# Means of batches, and their terms, are in f32.
IN_F32 = ("perplexity", "accuracy", "binary_accuracy", "top_k_accuracy(2)", "mean_absolute_error", "mean_squared_error")
DATA = {"binary": binary, "classes": classes, "regression": regression}


def program_text(kind: str, batch: int) -> str:
    """A program that evaluates the metrics of a kind for predictions that are its data."""
    metrics, head, target = METRICS[kind]
    signature = head.partition("M(")[2]
    return f"""fn none_of_it({signature[:-1]}, {target}) {{ return mean(p) }}
    {head} {{ return p }}
    train M {{ loss = none_of_it; metrics = [{metrics}]; optimizer = SGD(lr=0.1); batch = {batch} }}"""


@cache
def reported(kind: str, batch: int) -> dict[str, Any]:
    """The metrics of a kind as evaluation reports them, by their text."""
    compiled = compile_text(program_text(kind, batch))
    program = LoadedProgram(compiled.executable, compiled.manifest)
    program.initialize(0)
    found = list(evaluate(program, Split(DATA[kind]())).values())[1:]
    return dict(zip(METRICS[kind][0].split(", "), found, strict=True))


def by_formulas() -> dict[str, Any]:
    """Plain formulas on the whole data, in f64; not those of the library."""
    found: dict[str, Any] = {}
    p, y = (array.astype(np.float64) for array in binary().values())
    for names, threshold in (
        (("f1", "precision", "recall"), 0.5),
        (("f1(0.75)",), 0.75),
        (("precision(0.995)",), 0.995),
    ):
        hits, found_, relevant = ((p > threshold) & (y == 1)).sum(), (p > threshold).sum(), (y == 1).sum()
        precision, recall = hits / found_, hits / relevant
        values = {"f1": 2 / (1 / precision + 1 / recall), "precision": precision, "recall": recall}
        found |= {name: values[name.partition("(")[0]] for name in names}
    ones, zeros = p[y == 1][:, None], p[y == 0][None, :]
    found["auc"] = np.mean((ones > zeros) + 0.5 * (ones == zeros))
    found["binary_accuracy"] = np.mean((p > 0.5) == (y == 1))
    logits, label = classes().values()
    counts = np.zeros((CLASSES, CLASSES))
    for truth, guess in zip(label, logits.argmax(1), strict=True):
        counts[truth, guess] += 1
    hits, guesses, truths = np.diag(counts), counts.sum(0), counts.sum(1)
    present = [k for k in range(CLASSES) if guesses[k] + truths[k] > 0]
    for name, part, whole in (
        ("precision", hits, guesses),
        ("recall", hits, truths),
        ("f1", 2 * hits, guesses + truths),
    ):
        each = np.array([a / b if b else 0.0 for a, b in zip(part, whole, strict=True)])
        found[f"multiclass_{name}"] = each[present].mean()
        found[f'multiclass_{name}(average="micro")'] = part.sum() / whole.sum()
        found[f'multiclass_{name}(average="weighted")'] = (each * truths).sum() / ROWS
        found[f"multiclass_{name}(average=none)"] = each
    found["top_k_accuracy(2)"] = np.mean(
        [each in np.argsort(-row)[:2] for row, each in zip(logits, label, strict=True)]
    )
    found["accuracy"], found["confusion_matrix"] = hits.sum() / ROWS, counts
    found["per_class_accuracy"] = found["multiclass_recall(average=none)"]
    shares = np.exp(logits.astype(np.float64))
    found["perplexity"] = np.exp(-np.log(shares[range(ROWS), label] / shares.sum(1)).mean())
    p, y = (array.astype(np.float64) for array in regression().values())
    found["r2"] = np.mean(1 - ((p - y) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0))
    found["explained_variance"] = np.mean(1 - (p - y).var(0) / y.var(0))
    found["mean_absolute_error"], found["mean_squared_error"] = np.abs(p - y).mean(), ((p - y) ** 2).mean()
    found["root_mean_squared_error"] = np.sqrt(found["mean_squared_error"])
    return found


def by_scikit_learn() -> dict[str, Any]:
    """The same, computed by scikit-learn."""
    from sklearn import metrics as sk  # pyright: ignore[reportMissingImports]

    found: dict[str, Any] = {}
    p, y = binary().values()
    for name, score in (("f1", sk.f1_score), ("precision", sk.precision_score), ("recall", sk.recall_score)):
        found[name] = score(y, p > np.float32(0.5), zero_division=0)
    found["f1(0.75)"] = sk.f1_score(y, p > np.float32(0.75), zero_division=0)
    found["precision(0.995)"] = sk.precision_score(y, p > np.float32(0.995), zero_division=0)
    found["auc"], found["binary_accuracy"] = sk.roc_auc_score(y, p), sk.accuracy_score(y, p > np.float32(0.5))
    logits, label = classes().values()
    guess = logits.argmax(1)
    found["accuracy"] = sk.accuracy_score(label, guess)
    found["top_k_accuracy(2)"] = sk.top_k_accuracy_score(label, logits, k=2, labels=range(CLASSES))
    for name, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        found[f"multiclass_{name}"] = score(label, guess, average="macro", zero_division=0)
        for how in ("micro", "weighted"):
            found[f'multiclass_{name}(average="{how}")'] = score(label, guess, average=how, zero_division=0)
        each = score(label, guess, average=None, labels=range(CLASSES), zero_division=0)
        found[f"multiclass_{name}(average=none)"] = each.tolist()
    found["per_class_accuracy"] = found["multiclass_recall(average=none)"]
    found["confusion_matrix"] = sk.confusion_matrix(label, guess, labels=range(CLASSES)).tolist()
    softmax = np.exp(logits.astype(np.float64))
    found["perplexity"] = np.exp(sk.log_loss(label, softmax / softmax.sum(1, keepdims=True), labels=range(CLASSES)))
    p, y = regression().values()
    p, y = p.astype(np.float64), y.astype(np.float64)
    found["r2"], found["explained_variance"] = sk.r2_score(y, p), sk.explained_variance_score(y, p)
    found["root_mean_squared_error"] = sk.root_mean_squared_error(y.ravel(), p.ravel())
    found["mean_absolute_error"], found["mean_squared_error"] = (
        sk.mean_absolute_error(y, p),
        sk.mean_squared_error(y, p),
    )
    return found


@pytest.mark.parametrize("name", SKLEARN)
@pytest.mark.parametrize("batch", BATCHES)
def test_metrics_are_those_of_scikit_learn_for_every_batch(batch: int, name: str):
    kind = next(kind for kind, (metrics, *_) in METRICS.items() if name in metrics.split(", "))
    found, whole = reported(kind, batch), by_formulas()[name]
    tolerance = 1e-6 if name in IN_F32 else 1e-12
    np.testing.assert_allclose(whole, SKLEARN[name], rtol=1e-12)
    np.testing.assert_allclose(found[name], SKLEARN[name], rtol=tolerance)


@pytest.mark.parametrize("kind", METRICS)
def test_what_follows_is_what_the_interpreter_computes(kind: str):
    compiled = compile_text(program_text(kind, 64))
    graph = compiled.module["metrics"]
    counts = np.random.default_rng(0).integers
    totals = {v.name: counts(0, 1000, at_batch(v.type.shape, 1)).astype(np.float64) for v in graph.inputs}
    found, expected = LoadedProgram(compiled.executable, compiled.manifest).follow(totals), interpret(graph, totals)
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-10, atol=1e-12, err_msg=name)


def of(metrics: str, kind: str, arrays: dict[str, np.ndarray], batch: int = 7) -> Any:
    """The value of one metric for some arrays."""
    known = METRICS[kind], DATA[kind]
    METRICS[kind], DATA[kind] = (metrics, *METRICS[kind][1:]), lambda: arrays
    try:
        (value,) = reported.__wrapped__(kind, batch).values()
    finally:
        METRICS[kind], DATA[kind] = known
    return value


def test_auc_is_exact_up_to_bins():
    """Half of the pairs in one bin are lost at most: with 10 bins less than with 100."""
    data = binary() | {"p": spread(ROWS, 0.6180339887498949).astype(np.float32)}
    ones, zeros = data["p"][data["y"] == 1][:, None], data["p"][data["y"] == 0][None, :]
    exact = np.mean((ones > zeros) + 0.5 * (ones == zeros))
    for bins in (10, 100, 1000):
        shared = np.mean(np.floor(ones * bins) == np.floor(zeros * bins))
        assert abs(of(f"auc({bins})", "binary", data) - exact) <= shared / 2 + 1e-12
    logits = np.log(data["p"] / (1 - data["p"]))
    assert of("auc(100,from_logits=true)", "binary", data | {"p": logits}) == pytest.approx(exact, abs=5e-3)
    for p in (logits, data["p"] * np.nan):
        assert np.isnan(of("auc", "binary", data | {"p": p}))  # no probabilities
    assert np.isnan(of("auc", "binary", data | {"y": np.ones_like(data["y"])}))  # as in scikit-learn


@pytest.mark.parametrize("name", ["f1", "precision", "recall"])
def test_nothing_found_and_nothing_relevant_is_0(name: str):
    data = {"p": np.zeros(9, np.float32), "y": np.zeros(9, np.float32)}
    assert of(name, "binary", data) == 0


@pytest.mark.parametrize(("offset", "center", "tolerance"), [(1e2, 0, 2e-10), (1e4, 0, 2e-6), (1e4, 10_000, 1e-12)])
@pytest.mark.parametrize("name", ["r2", "explained_variance"])
def test_targets_far_from_0(name: str, offset: float, center: int, tolerance: float):
    data = regression(offset)
    p, y = (array.astype(np.float64) for array in data.values())
    errors = ((p - y) ** 2).mean(0) if name == "r2" else (p - y).var(0)
    found = of(f"{name}(center={center})" if center else name, "regression", data)
    np.testing.assert_allclose(found, np.mean(1 - errors / y.var(0)), rtol=tolerance)


def test_constant_targets_as_scikit_learn_has_them():
    """1 for perfect predictions, 0 for others; the mean over both outputs."""
    y = np.full((20, 2), 0.1, np.float32)
    p = y + np.array([0, 0.5], np.float32) * np.arange(20, dtype=np.float32)[:, None]
    assert of("r2", "regression", {"p": p, "y": y}) == 0.5
    assert of("explained_variance", "regression", {"p": p, "y": y}) == 0.5
    assert of("explained_variance", "regression", {"p": y + 1, "y": y}) == 1
    assert np.isnan(of("r2", "regression", {"p": p[:1], "y": y[:1]}))


def test_perplexity_leaves_labels_out():
    logits, label = classes().values()
    shares = np.exp(logits.astype(np.float64))
    each = np.log(shares.sum(1) / shares[range(ROWS), label])
    found = of("perplexity(ignore=0)", "classes", {"p": logits, "label": label})
    np.testing.assert_allclose(found, np.exp(each[label != 0].mean()), rtol=1e-6)
    outside = np.where(label == 0, -100, label).astype(np.int32)
    again = of("perplexity(ignore=-100)", "classes", {"p": logits, "label": outside})
    np.testing.assert_allclose(again, found, rtol=1e-6)


@pytest.mark.parametrize("ignore", [None, 4])
def test_perplexity_of_logits_that_exclude_classes(ignore: int | None):
    """The masked class 0 counts neither among the others, nor where the label is ignored."""
    logits = np.tile(np.array([-np.inf, 1, 2, -np.inf, 3, 0], np.float32), (8, 1))
    label = np.array([1, 2, 4, 5, 1, 2, 4, 5], np.int32)
    kept = label != ignore
    log_p = logits[0] - np.log(np.exp(logits[0]).sum())
    expected = np.exp(-log_p[label[kept]].mean())
    name = "perplexity" if ignore is None else f"perplexity(ignore={ignore})"
    assert of(name, "classes", {"p": logits, "label": label}) == pytest.approx(expected, rel=1e-6)


if __name__ == "__main__":
    for name, value in by_scikit_learn().items():
        print(f"    {json.dumps(name)}: {json.dumps(np.asarray(value).tolist())},")
