"""PyTorch on a GPU: `gpu_torch [--tf32]`, started by tests/bench/gpu.py.

    eager         as written
    compile       forward, loss and backward by torch.compile(mode="reduce-overhead"), which makes CUDA graphs of them;
                  what it cannot compile, such as cuDNN's LSTM, runs eagerly, and so does the optimizer, in one kernel
    graph         the whole step captured into one CUDA graph by hand, the optimizer too
    graph, nhwc   the same with the channels innermost

Examples are on the device as f32; neither accuracy nor sums of the loss are computed, in PyTorch's favour. The LSTM is
nn.LSTM, which is cuDNN's; its gates are plain sigmoids, while the recipe has hard ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import cycle

import torch
from torch import Tensor

from tests.bench.peers.common import BATCH, IMAGES, RECIPES, float_digits, orders
from tests.bench.peers.gpu_protocol import STEPS, Columns, Measure, serve
from tests.bench.peers.torch_steps import network

CONVOLUTIONAL = ("cnn", "separable_cnn")
Step = Callable[[Tensor], None]  # trains on the examples of a batch


class Training:
    """A network on the device, its optimizer, and its data."""

    def __init__(self, model: str, channels_last: bool = False):
        torch.manual_seed(0)
        self.net = network(model).cuda()
        if channels_last:
            self.net = self.net.to(memory_format=torch.channels_last)
        recipe = RECIPES[model]
        nesterov = recipe.momentum > 0
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), recipe.lr, recipe.momentum, nesterov=nesterov, fused=True
        )
        self.images, self.labels = (torch.from_numpy(array).cuda() for array in float_digits())
        self.value = torch.nn.functional.cross_entropy
        if model == "softmax":
            self.labels = torch.nn.functional.one_hot(self.labels, 10).float()
            self.value = torch.nn.functional.mse_loss

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.value(self.net(images), labels)

    def step(self, batch: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.images[batch], self.labels[batch]).backward()
        self.optimizer.step()


def eager(model: str) -> Step:
    return Training(model).step


def compiled(model: str) -> Step:
    torch._dynamo.reset()
    training = Training(model)
    training.loss = torch.compile(training.loss, mode="reduce-overhead")
    return training.step


class Captured:
    """A step in one CUDA graph, made as PyTorch documents it: some steps on another stream first, then the capture."""

    def __init__(self, training: Training):
        self.training = training  # the graph refers to its tensors by address
        self.batch = torch.arange(BATCH, device="cuda")
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(5):
                training.step(self.batch)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        training.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(self.graph):
            training.step(self.batch)

    def __call__(self, batch: Tensor) -> None:
        self.batch.copy_(batch)
        self.graph.replay()


def measured(make: Callable[[], Step]) -> Measure:
    step = make()
    drawn = orders()
    batches = cycle([torch.from_numpy(next(drawn)).cuda() for _ in range(IMAGES // BATCH)])
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def measure() -> float:
        torch.cuda.synchronize()
        begin.record()
        for _ in range(STEPS):
            step(next(batches))
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e3 / STEPS

    measure()
    return measure


def columns(model: str) -> Columns:
    found: dict[str, Callable[[], Measure]] = {
        "eager": lambda: measured(lambda: eager(model)),
        "compile": lambda: measured(lambda: compiled(model)),
        "graph": lambda: measured(lambda: Captured(Training(model))),
    }
    if model in CONVOLUTIONAL:
        found["graph, nhwc"] = lambda: measured(lambda: Captured(Training(model, channels_last=True)))
    return found


def main() -> None:
    tf32 = "--tf32" in sys.argv
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    torch.cuda.init()
    serve(columns, {"torch": torch.__version__, "cuDNN": str(torch.backends.cudnn.version())})


if __name__ == "__main__":
    main()
