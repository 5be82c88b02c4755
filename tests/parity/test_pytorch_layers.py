"""Single layers, cells and activations against PyTorch: outputs, and gradients by input and parameters.

Where PyTorch and Keras differ, nnc follows Keras: PyTorch gets other settings, or the expected value is written out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from tests.parity.pytorch_models import (
    F,
    Tensor,
    Tensors,
    batch_norm,
    channels_first,
    channels_last,
    conv2d,
    dense,
    depthwise_conv2d,
    hard_sigmoid,
    leaves,
    lstm,
)
from tests.parity.small_programs import BATCH, layer_program, randomize
from tests.parity.torch_or_skip import torch
from tests.programs import compile_text, initialized, run_program

IMAGE = (7, 8, 4)
SEQUENCE = (5, 3)
VECTOR = (6,)
Function = Callable[[Tensors, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A layer in the language, the shape of an example, and what PyTorch computes from the parameters and the input."""

    layer: str
    shape: tuple[int, ...]
    expected: Function
    whole: bool = False  # whole numbers as inputs: many are equal, some are zero


def on_images(function: Function) -> Function:
    return lambda p, x: channels_last(function(p, channels_first(x)))


def padded(x: Tensor, top: int, bottom: int, left: int, right: int, value: float = 0) -> Tensor:
    return F.pad(x, (left, right, top, bottom), value=value)


def convolution(layer: str, expected: Function) -> Case:
    return Case(layer, IMAGE, on_images(expected))


CONVOLUTIONS = (
    convolution("Conv2D(5, 3)", lambda p, x: conv2d(p, "conv2d_1", x)),
    convolution("Conv2D(5, [3, 2], use_bias=false)", lambda p, x: conv2d(p, "conv2d_1", x)),
    convolution("Conv2D(5, 3, stride=2)", lambda p, x: conv2d(p, "conv2d_1", x, stride=2)),
    convolution("Conv2D(5, 2, stride=[1, 3])", lambda p, x: conv2d(p, "conv2d_1", x, stride=(1, 3))),
    convolution("Conv2D(5, 3, dilation=2)", lambda p, x: conv2d(p, "conv2d_1", x, dilation=2)),
    convolution("Conv2D(6, 3, groups=2)", lambda p, x: conv2d(p, "conv2d_1", x, groups=2)),
    convolution("Conv2D(5, 3, padding=\"same\")", lambda p, x: conv2d(p, "conv2d_1", x, padding="same")),
    convolution("Conv2D(5, 4, padding=\"same\")", lambda p, x: conv2d(p, "conv2d_1", padded(x, 1, 2, 1, 2))),
    convolution(  # 7 -> 4 rows need a pixel on both sides, 8 -> 4 columns one at the end
        "Conv2D(5, 3, stride=2, padding=\"same\")",
        lambda p, x: conv2d(p, "conv2d_1", padded(x, 1, 1, 0, 1), stride=2),
    ),
    convolution(
        "Conv2D(6, [2, 3], stride=2, dilation=[2, 1], groups=2, padding=[[1, 2], [0, 3]])",
        lambda p, x: conv2d(p, "conv2d_1", padded(x, 1, 2, 0, 3), stride=2, dilation=(2, 1), groups=2),
    ),
    convolution("Conv2D(5, 1)", lambda p, x: conv2d(p, "conv2d_1", x)),
    convolution("DepthwiseConv2D(3)", lambda p, x: depthwise_conv2d(p, "depthwise_conv2d_1", x)),
    convolution(
        "DepthwiseConv2D(3, depth_multiplier=2, stride=2, padding=[[1, 1], [2, 0]])",
        lambda p, x: depthwise_conv2d(p, "depthwise_conv2d_1", padded(x, 1, 1, 2, 0), stride=2),
    ),
    convolution(
        "DepthwiseConv2D([2, 3], dilation=[3, 2])",
        lambda p, x: depthwise_conv2d(p, "depthwise_conv2d_1", x, dilation=(3, 2)),
    ),
    convolution(
        "SeparableConv2D(5, 3, depth_multiplier=2)",
        lambda p, x: conv2d(
            p,
            "separable_conv2d_1.conv2d_1",
            depthwise_conv2d(p, "separable_conv2d_1.depthwise_conv2d_1", x),
        ),
    ),
)  # fmt: skip


def pooling(layer: str, expected: Callable[[Tensor], Tensor]) -> Case:
    return Case(layer, IMAGE, on_images(lambda p, x: expected(x)), whole="Max" in layer)


POOLINGS = (
    pooling("MaxPool2D(2)", lambda x: F.max_pool2d(x, 2)),
    pooling("MaxPool2D([3, 2], stride=[2, 1])", lambda x: F.max_pool2d(x, (3, 2), stride=(2, 1))),
    pooling("MaxPool2D(3, stride=2, padding=[[1, 1], [1, 1]])", lambda x: F.max_pool2d(x, 3, stride=2, padding=1)),
    pooling(
        "MaxPool2D(3, stride=2, padding=\"same\")",
        lambda x: F.max_pool2d(padded(x, 1, 1, 0, 1, value=-torch.inf), 3, stride=2),
    ),
    pooling("AvgPool2D(2)", lambda x: F.avg_pool2d(x, 2)),
    pooling(
        "AvgPool2D(3, stride=1, padding=\"same\")",
        lambda x: F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False),
    ),
    Case("GlobalAvgPool2D", IMAGE, lambda p, x: x.mean((1, 2))),
)  # fmt: skip


def recurrent(kind: type[torch.nn.Module], p: Tensors, x: Tensor, *names: str) -> Tensor:
    """All outputs of torch.nn's RNN, LSTM or GRU with nnc's parameters; a second name is the backward cell."""
    module = kind(x.shape[2], len(p[f"{names[0]}.u"]), batch_first=True, bidirectional=len(names) == 2)
    arguments: Tensors = {}
    for name, suffix in zip(names, ("", "_reverse"), strict=False):
        w, u, b = (p[f"{name}.{part}"] for part in "wub")
        if kind is torch.nn.GRU:  # Keras' z, r, h is PyTorch's r, z, n
            w, u, b = (torch.cat([z_r_h.chunk(3, -1)[i] for i in (1, 0, 2)], -1) for z_r_h in (w, u, b))
        inner, outer = b if b.ndim == 2 else (b, torch.zeros_like(b))
        parts = {"weight_ih": w.T, "weight_hh": u.T, "bias_ih": inner, "bias_hh": outer}
        arguments |= {f"{part}_l0{suffix}": value for part, value in parts.items()}
    return torch.func.functional_call(module, arguments, (x,))[0]


def ends(outputs: Tensor) -> Tensor:
    """The last output of each direction of a bidirectional network."""
    forward, backward = outputs.chunk(2, -1)
    return torch.cat([forward[:, -1], backward[:, 0]], 1)


RNN, LSTM, GRU = torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU
RECURRENT = (
    Case("RNN(SimpleRNN(4))", SEQUENCE, lambda p, x: recurrent(RNN, p, x, "rnn_1.simple_rnn_1")[:, -1]),
    Case("RNN(LSTM(4))", SEQUENCE, lambda p, x: recurrent(LSTM, p, x, "rnn_1.lstm_1")[:, -1]),
    Case("RNN(GRU(4))", SEQUENCE, lambda p, x: recurrent(GRU, p, x, "rnn_1.gru_1")[:, -1]),
    Case("RNN(GRU(4), return_sequences=true)", SEQUENCE, lambda p, x: recurrent(GRU, p, x, "rnn_1.gru_1")),
    Case(
        "RNN(LSTM(4), return_sequences=true, reverse=true)",
        SEQUENCE,
        lambda p, x: recurrent(LSTM, p, x.flip(1), "rnn_1.lstm_1"),
    ),
    Case("RNN(LSTM(4, gate=hard_sigmoid))", SEQUENCE, lambda p, x: lstm(p, "rnn_1.lstm_1", x, hard_sigmoid)),
    Case(
        "Bidirectional(LSTM(4))",
        SEQUENCE,
        lambda p, x: ends(recurrent(LSTM, p, x, "bidirectional_1.lstm_1", "bidirectional_1.lstm_2")),
    ),
    Case(
        "Bidirectional(GRU(4), return_sequences=true)",
        SEQUENCE,
        lambda p, x: recurrent(GRU, p, x, "bidirectional_1.gru_1", "bidirectional_1.gru_2"),
    ),
)


def layer_norm(p: Tensors, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p["layer_norm_1.gamma"], p["layer_norm_1.beta"], eps=1e-3)


def trained_batch_norm(p: Tensors, x: Tensor) -> Tensor:
    """With the statistics of the batch; x[N, C, …]."""
    zeros = {f"batch_norm_1.{part}": torch.zeros(x.shape[1]) for part in ("running_mean", "running_var")}
    return batch_norm(p | zeros, "batch_norm_1", x, training=True)


OTHERS = (
    Case("Dense(5)", VECTOR, lambda p, x: dense(p, "dense_1", x)),
    Case("Dense(5)", SEQUENCE, lambda p, x: dense(p, "dense_1", x)),
    Case("Flatten |> Dense(2)", IMAGE, lambda p, x: dense(p, "dense_1", x.flatten(1))),
    Case("LayerNorm", VECTOR, layer_norm),
    Case("LayerNorm", IMAGE, layer_norm),
    Case("Reshape([2, -1])", VECTOR, lambda p, x: x.reshape(len(x), 2, 3)),
)
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.3),
    "leaky_relu(0.1)": lambda x: F.leaky_relu(x, 0.1),
    "elu": F.elu,
    "elu(0.5)": lambda x: F.elu(x, 0.5),
    "gelu": F.gelu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": hard_sigmoid,
    "tanh": torch.tanh,
    "softmax": lambda x: torch.softmax(x, -1),
    "log_softmax": lambda x: torch.log_softmax(x, -1),
    "softplus": F.softplus,
    "square": torch.square,
    "abs": torch.abs,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log_sigmoid": F.logsigmoid,
    "erf": torch.erf,
    "normal_cdf": torch.special.ndtr,
    "sin": torch.sin,
    "cos": torch.cos,
}
ELEMENTWISE = tuple(
    Case(name, (4, 6), lambda p, x, function=function: function(x), whole)
    for name, function in ACTIVATIONS.items()
    for whole in (False, True)
)
CASES = CONVOLUTIONS + POOLINGS + RECURRENT + OTHERS + ELEMENTWISE


def title(case: Case) -> str:
    return f"{case.layer}-{len(case.shape)}d" + ("-whole" if case.whole else "")


@pytest.mark.parametrize("case", CASES, ids=title)
def test_layer(case: Case):
    generator = np.random.default_rng(len(case.layer))
    program = layer_program(case.layer, case.shape)
    before = randomize(program, generator)
    shape = (BATCH, *case.shape)
    x = generator.integers(-3, 4, shape) if case.whole else generator.normal(0, 1.5, shape)
    x = x.astype(np.float32)
    p = leaves(before)
    expected = case.expected(p, torch.tensor(x) + p["shifted_1.shift"])
    np.testing.assert_allclose(
        run_program(program, "predict", {"x": x}, BATCH)["output"], expected.detach(), rtol=1e-4, atol=2e-6
    )
    weight = generator.normal(0, 1, expected.shape).astype(np.float32)
    expected.backward(torch.tensor(weight))
    after = run_program(program, "train_step", {"x": x, "weight": weight}, BATCH)
    assert p.keys() == before.keys()
    for name, tensor in p.items():
        gradient = before[name] - after[name]
        np.testing.assert_allclose(gradient, tensor.grad, rtol=1e-3, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("shape", [VECTOR, IMAGE], ids=str)
def test_batch_norm_in_training(shape: tuple[int, ...]):
    """`predict` uses the running statistics; the loss of a step shows what training computed."""
    generator = np.random.default_rng(1)
    program = layer_program("BatchNorm", shape)
    before = randomize(program, generator)
    x, weight = generator.normal(2, 3, (2, BATCH, *shape)).astype(np.float32)
    p = leaves(before)
    moved = (torch.tensor(x) + p["shifted_1.shift"]).movedim(-1, 1)
    output = trained_batch_norm(p, moved).movedim(1, -1)
    loss = (output * torch.tensor(weight)).sum()
    loss.backward()
    after = run_program(program, "train_step", {"x": x, "weight": weight}, BATCH)
    np.testing.assert_allclose(after["loss"], loss.item(), rtol=1e-4)
    for name, tensor in p.items():
        gradient = before[name] - after[name]
        np.testing.assert_allclose(gradient, tensor.grad, rtol=1e-3, atol=2e-5, err_msg=name)


def test_embedding_of_repeated_indices():
    compilation = compile_text("""
        fn weighted(output: f32[B, ...], weight: f32[B, ...]) { return sum(output * weight) }
        model Small(x: i32[B, 7]) { return x |> Embedding(5, 4) }
        train Small { loss = weighted; optimizer = SGD(lr=1); batch = 3 }
    """)
    program = initialized(compilation)
    generator = np.random.default_rng(2)
    before = randomize(program, generator)["embedding_1.table"]
    x = generator.integers(0, 5, (BATCH, 7))
    weight = generator.normal(0, 1, (BATCH, 7, 4)).astype(np.float32)
    table = torch.tensor(before, requires_grad=True)
    expected = F.embedding(torch.tensor(x), table)
    expected.backward(torch.tensor(weight))
    np.testing.assert_array_equal(run_program(program, "predict", {"x": x}, BATCH)["output"], expected.detach())
    after = run_program(program, "train_step", {"x": x, "weight": weight}, BATCH)
    gradient = before - after["embedding_1.table"]
    np.testing.assert_allclose(gradient, table.grad, rtol=1e-4, atol=2e-6)
