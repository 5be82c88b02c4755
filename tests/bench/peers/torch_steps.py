"""Training steps of PyTorch: `torch_steps MODEL THREADS [channels_last] [MODE]`, a mode of `torch.compile`.

With a mode, the forward and backward pass are compiled. The update is PyTorch's fused one.
The gates of its LSTM are plain sigmoids: with the recipe's hard ones, PyTorch could not use its own kernel.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

from tests.bench.peers.common import RECIPES, float_digits, measure, orders, report


MODES = ("default", "max-autotune-no-cudagraphs")


class BiLSTM(nn.Module):
    """Both directions in one module; uses the output of each after its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, 128, bidirectional=True, batch_first=True)
        self.dense = nn.Linear(256, 10)

    def forward(self, image: Tensor) -> Tensor:
        outputs, _ = self.lstm(image)
        return self.dense(torch.cat([outputs[:, -1, :128], outputs[:, 0, 128:]], 1))


def network(model: str) -> nn.Module:
    """Images [N, 28, 28] to ten outputs."""
    image = nn.Unflatten(1, (1, 28))
    layers = {
        "softmax": lambda: [nn.Flatten(), nn.Linear(784, 10), nn.Sigmoid()],
        "mlp": lambda: [
            *(nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()),
            *(nn.Dropout(0.5), nn.Linear(512, 10)),
        ],
        "cnn": lambda: [
            *(image, nn.Conv2d(1, 24, 5), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(24, 48, 5), nn.BatchNorm2d(48), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(768, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 10)),
        ],
        "separable_cnn": lambda: [
            *(image, nn.Conv2d(1, 24, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(24, 24, 5, groups=24), nn.ReLU(), nn.Conv2d(24, 48, 1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(768, 512), nn.ReLU(), nn.Linear(512, 10)),
        ],
        "bilstm": lambda: [BiLSTM()],
    }
    return nn.Sequential(*layers[model]())


def main() -> None:
    model, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net, recipe = network(model), RECIPES[model]
    if "channels_last" in sys.argv:
        net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), recipe.lr, recipe.momentum, nesterov=recipe.momentum > 0, fused=True)
    images, labels = map(torch.from_numpy, float_digits())
    if model == "softmax":
        labels, loss = nn.functional.one_hot(labels, 10).float(), nn.functional.mse_loss
    else:
        loss = nn.functional.cross_entropy
    batches = map(torch.from_numpy, orders())

    def forward(image: Tensor, label: Tensor) -> Tensor:
        return loss(net(image), label)

    mode = next((word for word in sys.argv[3:] if word in MODES), None)
    compute = torch.compile(forward, mode=mode) if mode else forward

    def step() -> float:
        batch = next(batches)
        optimizer.zero_grad(set_to_none=True)
        value = compute(images[batch], labels[batch])
        value.backward()
        optimizer.step()
        return value.item()

    report(measure(step), torch=torch.__version__)


if __name__ == "__main__":
    main()
