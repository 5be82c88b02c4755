"""Steps of PyTorch for the models of tests/bench/models: `beyond_torch MODEL BATCH THREADS [channels_last] [sparse] [MODE]`.

MODE is one of torch.compile; with it, the forward and backward pass are compiled.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

from tests.bench.peers.beyond_data import BEYOND, places
from tests.bench.peers.beyond_torch_models import NETWORKS, Recommender, inputs_of, loss_of
from tests.bench.peers.common import measure, report
from tests.bench.peers.torch_steps import MODES


def optimizer_of(name: str, net: nn.Module, fused: bool = True, eps: float = 1e-7) -> torch.optim.Optimizer:
    """That of the train block. PyTorch has no fused update for sparse gradients."""
    settings = BEYOND[name]
    if settings.adam:
        return torch.optim.Adam(net.parameters(), settings.lr, eps=eps, fused=fused)
    return torch.optim.SGD(net.parameters(), settings.lr, settings.momentum, fused=fused)


def main() -> None:
    name, batch, words = sys.argv[1], int(sys.argv[2]), sys.argv[4:]
    torch.set_num_threads(int(sys.argv[3]))
    torch.manual_seed(0)
    net = Recommender(sparse=True) if "sparse" in words else NETWORKS[name]()
    optimizer = optimizer_of(name, net, fused="sparse" not in words)
    inputs, label = inputs_of(BEYOND[name].arrays(batch))
    if "channels_last" in words:
        net = net.to(memory_format=torch.channels_last)
        inputs = [x.contiguous(memory_format=torch.channels_last) for x in inputs]

    def forward(label: Tensor, *inputs: Tensor) -> Tensor:
        return loss_of(net(*inputs), label)

    mode = next((word for word in words if word in MODES), None)
    compute = torch.compile(forward, mode=mode) if mode else forward
    rows = places(batch)

    def step() -> float:
        place = next(rows)
        optimizer.zero_grad(set_to_none=True)
        value = compute(label[place], *(x[place] for x in inputs))
        value.backward()
        optimizer.step()
        return value.item()

    report(measure(step), torch=torch.__version__)


if __name__ == "__main__":
    main()
