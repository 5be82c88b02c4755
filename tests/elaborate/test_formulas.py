"""The standard library against its formulas, written out in float64 NumPy: optimizers step by step, normalizations.

The graphs, the interpreter and the generated code all follow the library: if it is wrong, they still agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from compiler.ir.types import NUMPY_NAMES
from tests.elaborate.running import examples, model
from tests.programs import compile_text, initialized, run_program

STEPS, BATCH = 5, 6
Slots = dict[str, np.ndarray]
Update = Callable[[np.ndarray, np.ndarray, Slots, int], np.ndarray]  # p, g, slots, the step from 0: the new p


def kept(slots: Slots, name: str, value: Callable[[np.ndarray | float], np.ndarray], start: float = 0) -> np.ndarray:
    """The new value of a slot, from the old one."""
    slots[name] = value(slots.get(name, start))
    return slots[name]


def plain(p: np.ndarray, g: np.ndarray, slots: Slots, t: int) -> np.ndarray:
    return p - 0.1 * g


def momentum(p: np.ndarray, g: np.ndarray, slots: Slots, t: int) -> np.ndarray:
    return p + kept(slots, "v", lambda v: 0.9 * v - 0.1 * g)


def nesterov(p: np.ndarray, g: np.ndarray, slots: Slots, t: int) -> np.ndarray:
    return p + 0.9 * kept(slots, "v", lambda v: 0.9 * v - 0.1 * g) - 0.1 * g


def decayed(p: np.ndarray, g: np.ndarray, slots: Slots, t: int) -> np.ndarray:
    return p - 0.1 / (1 + 0.3 * t) * g


def shrunk(p: np.ndarray, g: np.ndarray, slots: Slots, t: int) -> np.ndarray:
    return p * (1 - 0.1 * 0.2) - 0.1 * g


def halved(p: np.ndarray, g: np.ndarray, slots: Slots, t: int) -> np.ndarray:
    return p - 0.1 * 0.5 ** (t // 2) * g


def warmed_up(p: np.ndarray, g: np.ndarray, slots: Slots, t: int) -> np.ndarray:
    return p - 0.1 * min((t + 1) / 3, 1) * g


def adam(p: np.ndarray, g: np.ndarray, slots: Slots, t: int) -> np.ndarray:
    return p - 0.05 * adam_direction(g, slots, t)


def adam_direction(g: np.ndarray, slots: Slots, t: int) -> np.ndarray:
    m = kept(slots, "m", lambda m: 0.9 * m + 0.1 * g) / (1 - 0.9 ** (t + 1))
    v = kept(slots, "v", lambda v: 0.999 * v + 0.001 * g**2) / (1 - 0.999 ** (t + 1))
    return m / np.sqrt(v)


def adamw(p: np.ndarray, g: np.ndarray, slots: Slots, t: int) -> np.ndarray:
    return p - 0.05 * (adam_direction(g, slots, t) + 0.2 * p)


def rmsprop(p: np.ndarray, g: np.ndarray, slots: Slots, t: int) -> np.ndarray:
    return p - 0.05 * g / np.sqrt(kept(slots, "v", lambda v: 0.9 * v + 0.1 * g**2))


def rmsprop_all(p: np.ndarray, g: np.ndarray, slots: Slots, t: int) -> np.ndarray:
    v = kept(slots, "v", lambda v: 0.8 * v + 0.2 * g**2) - kept(slots, "a", lambda a: 0.8 * a + 0.2 * g) ** 2
    return p * (1 - 0.05 * 0.2) - kept(slots, "m", lambda m: 0.7 * m + 0.05 * g / np.sqrt(v + 1e-3))


def adagrad(p: np.ndarray, g: np.ndarray, slots: Slots, t: int) -> np.ndarray:
    return p * (1 - 0.1 * 0.2) - 0.1 * g / np.sqrt(kept(slots, "a", lambda a: a + g**2, start=0.1))


OPTIMIZERS: dict[str, Update] = {
    "SGD(lr=0.1)": plain,
    "SGD(lr=0.1, momentum=0.9)": momentum,
    "SGD(lr=0.1, momentum=0.9, nesterov=true)": nesterov,
    "SGD(lr=0.1, decay=0.3)": decayed,
    "SGD(lr=0.1, weight_decay=0.2)": shrunk,
    "SGD(lr=step(0.1, every=2, factor=0.5))": halved,
    "SGD(lr=constant(0.1, warmup=3))": warmed_up,
    "Adam(lr=0.05)": adam,
    "AdamW(lr=0.05, weight_decay=0.2)": adamw,
    "RMSprop(lr=0.05)": rmsprop,
    "RMSprop(lr=0.05, rho=0.8, momentum=0.7, eps=1e-3, centered=true, weight_decay=0.2)": rmsprop_all,
    "Adagrad(lr=0.1, weight_decay=0.2)": adagrad,
}


def batches(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(0)
    for _ in range(count):
        yield tuple(generator.normal(0, 1, (BATCH, 4)).astype(np.float32) for _ in range(2))  # type: ignore[misc]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizer(optimizer: str):
    """Fits x * w to targets by mean squared error."""
    text = model("param w: f32[4] = 0.5\nreturn x * w")
    text += f"train M {{ loss = mean_squared_error; optimizer = {optimizer}; batch = {BATCH} }}"
    program = initialized(compile_text(text))
    w, slots = np.full(4, 0.5), Slots()
    for t, (x, target) in enumerate(batches(STEPS)):
        gradient = (2 * (x * w - target) * x).sum(0) / x.size
        w = OPTIMIZERS[optimizer](w, gradient, slots, t)
        after = run_program(program, "train_step", {"x": x, "target": target}, BATCH)
        np.testing.assert_allclose(after["w"], w, rtol=1e-4, atol=1e-5, err_msg=f"step {t}")


@pytest.mark.parametrize("dtype", ["f64", "i32", "i64", "u8"])
def test_means_over_the_batch(dtype: str):
    """In f64 with all digits; of whole numbers, whose sum would overflow in i32, in f32."""
    wide = "f64" if dtype == "f64" else "f32"
    text = f"""model M(x: {dtype}[B]) {{ return mean(x), max(cast(mean(x), "{wide}"), B) + B * variance(x), x }}
fn own(m, v, x: {dtype}[B], t: f32[B]) {{ return mean(t) }}
train M {{ loss = own; optimizer = SGD(lr=0); batch = {BATCH} }}"""
    values = {"f64": [2e9 + 0.5, 1e9, 0, 7, -3, 1], "u8": [200] * 6}.get(dtype, [2e9, 1e9, 2e9, 7, 2e9, 2e9])
    x = np.array(values, NUMPY_NAMES[dtype])
    compiled = compile_text(text)
    found = run_program(initialized(compiled), "predict", {"x": x}, BATCH)
    m, v, _ = (found[output.name] for output in compiled.manifest.outputs)
    rounding = 1e-15 if dtype == "f64" else 3e-7
    np.testing.assert_allclose(m, x.mean(), rtol=rounding)
    np.testing.assert_allclose(v, max(x.mean(), BATCH) + BATCH * x.var(), rtol=rounding)
    assert m.dtype == v.dtype == NUMPY_NAMES[wide]


@pytest.mark.parametrize("inputs", ["f32[B, 4]", "f32[B, 3, 2, 4]"])
def test_batch_norm(inputs: str):
    """In training with the statistics of a batch whose third channel hardly varies; then with the running ones."""
    layer = "x = x |> BatchNorm(momentum=0.8, eps=0.01)\nreturn x"
    text = model(layer, f"x: {inputs}") + "train M { loss = mean_squared_error; optimizer = SGD(lr=0); batch = 6 }"
    compiled = compile_text(text)
    program, generator = initialized(compiled), np.random.default_rng(1)
    shape = (BATCH, *(size for size in compiled.manifest.inputs[0].shape if size))
    mean, variance = np.zeros(4), np.ones(4)
    for _ in range(3):
        x = (generator.normal(0.5, 1, shape) * [1, 2, 0.05, 1]).astype(np.float32)
        axes = tuple(range(x.ndim - 1))
        m, v = x.mean(axes, np.float64), x.var(axes, np.float64)
        mean, variance = 0.8 * mean + 0.2 * m, 0.8 * variance + 0.2 * v
        target = np.zeros(shape, np.float32)
        after = run_program(program, "train_step", {"x": x, "target": target}, BATCH)
        np.testing.assert_allclose(after["loss"], np.square((x - m) / np.sqrt(v + 0.01)).mean(), rtol=1e-4)
        np.testing.assert_allclose(after["batch_norm_1.running_mean"], mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(after["batch_norm_1.running_var"], variance, rtol=1e-4)
    found = run_program(program, "predict", {"x": x}, BATCH)[compiled.manifest.outputs[0].name]
    np.testing.assert_allclose(found, (x - mean) / np.sqrt(variance + 0.01), rtol=1e-4, atol=1e-5)


FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "LayerNorm(eps=0.1)": lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.1),
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
    "log_softmax": lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_function(function: str):
    x = examples(3, 5, 4) - 2
    compiled = compile_text(model(f"y = x |> {function}\nreturn y", "x: f32[B, 5, 4]"))
    found = run_program(initialized(compiled), "predict", {"x": x}, 3)["y"]
    np.testing.assert_allclose(found, FUNCTIONS[function](x.astype(np.float64)), rtol=1e-5, atol=1e-6)
