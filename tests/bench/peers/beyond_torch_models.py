"""The models of tests/bench/models in PyTorch, written from their descriptions; images are [N, C, H, W].

Their layers are created in the order in which nnc names its own, so `pairs` can match the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def norm(channels: int) -> nn.BatchNorm2d:
    """Keras' momentum 0.99 is PyTorch's 0.01."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def conv_norm(inputs: int, filters: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, filters, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, norm(filters)]


class Basic(nn.Module):
    """Two convolutions and a skip connection."""

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv_norm(inputs, filters, 3, stride), nn.ReLU(), *conv_norm(filters, filters))
        changes = stride != 1 or inputs != filters
        self.skip = nn.Sequential(*(conv_norm(inputs, filters, 1, stride) if changes else []))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.skip(x) + self.body(x))


def resnet18(width: int) -> nn.Module:
    layers, inputs = [*conv_norm(3, width), nn.ReLU()], width
    for stage in range(4):
        filters = width * 2**stage
        layers += [Basic(inputs, filters, min(stage + 1, 2)), Basic(filters, filters, 1)]
        inputs = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


class Inverted(nn.Module):
    """1x1, depthwise 3x3 and 1x1 convolutions; the input is added where shapes agree."""

    def __init__(self, inputs: int, filters: int, expansion: int = 6, stride: int = 1) -> None:
        super().__init__()
        wide = expansion * inputs
        first = [*conv_norm(inputs, wide, 1), nn.ReLU6()] if expansion != 1 else []
        depthwise = [*conv_norm(wide, wide, 3, stride, groups=wide), nn.ReLU6()]
        self.body = nn.Sequential(*first, *depthwise, *conv_norm(wide, filters, 1))
        self.added = stride == 1 and inputs == filters

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.added else self.body(x)


def mobilenetv2() -> nn.Module:
    return nn.Sequential(
        *(*conv_norm(3, 32), nn.ReLU6(), Inverted(32, 16, expansion=1), Inverted(16, 24), Inverted(24, 24)),
        *(Inverted(24, 32, stride=2), Inverted(32, 32), Inverted(32, 32), Inverted(32, 64, stride=2), Inverted(64, 64)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )


def twice(inputs: int, filters: int) -> nn.Module:
    return nn.Sequential(*conv_norm(inputs, filters), nn.ReLU(), *conv_norm(filters, filters), nn.ReLU())


class UNet(nn.Module):
    """Halves an image three times and doubles it again, with what it was at each size."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([twice(3, 16), twice(16, 32), twice(32, 64)])
        self.middle = twice(64, 128)
        self.up = nn.ModuleList([twice(64 + 128, 64), twice(32 + 64, 32), twice(16 + 32, 16)])
        self.classes = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        skipped = []
        for layers in self.down:
            x = layers(x)
            skipped.append(x)
            x = F.max_pool2d(x, 2)
        x = self.middle(x)
        for layers in self.up:
            x = layers(torch.cat([skipped.pop(), F.interpolate(x, scale_factor=2)], 1))
        return self.classes(x)


class Attention(nn.Module):
    """With PyTorch's own kernel, which does not write the scores to memory."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.inputs, self.outputs = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.causal = heads, causal

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.inputs(x).chunk(3, 2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.outputs(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and two dense layers, each after normalization and with a skip connection."""

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width, eps=1e-3), Attention(width, heads, causal))
        dense = [nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)]
        self.dense = nn.Sequential(nn.LayerNorm(width, eps=1e-3), *dense)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.dense(x)


class Positions(nn.Module):
    """Adds a trained vector to each position."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.position = nn.Parameter(0.02 * torch.randn(length, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.position


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def vit_tiny() -> nn.Module:
    patches = [nn.Conv2d(3, 192, 4, 4), Apply(lambda x: x.flatten(2).transpose(1, 2)), Positions(64, 192)]
    blocks = [Block(192, 3) for _ in range(12)]
    last = [nn.LayerNorm(192, eps=1e-3), Apply(lambda x: x.mean(1)), nn.Linear(192, 10)]
    return nn.Sequential(*patches, *blocks, *last)


def gpt_tiny() -> nn.Module:
    blocks = [Block(128, 4, causal=True) for _ in range(2)]
    first = [nn.Embedding(256, 128), Positions(128, 128)]
    nn.init.normal_(first[0].weight, 0, 0.02)
    return nn.Sequential(*first, *blocks, nn.LayerNorm(128, eps=1e-3), nn.Linear(128, 256))


class PixelGRU(nn.Module):
    """The output after the last pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.dense = nn.GRU(1, 128, batch_first=True), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.gru(x)[0][:, -1])


class Recommender(nn.Module):
    """A wide table and three dense layers. A sparse gradient has only the rows of the batch."""

    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(100_000, 16, sparse=sparse)
        nn.init.uniform_(self.table.weight, -0.05, 0.05)
        inputs = 26 * 16 + 13
        layers = [nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 2)]
        self.dense = nn.Sequential(*layers)

    def forward(self, category: Tensor, number: Tensor) -> Tensor:
        return self.dense(torch.cat([self.table(category).flatten(1), number], 1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18_16": lambda: resnet18(16),
    "resnet18_64": lambda: resnet18(64),
    "mobilenetv2": mobilenetv2,
    "unet": UNet,
    "vit_tiny": vit_tiny,
    "gpt_tiny": gpt_tiny,
    "gru_784": PixelGRU,
    "embedding_mlp": Recommender,
}


def inputs_of(arrays: Mapping[str, np.ndarray]) -> tuple[list[Tensor], Tensor]:
    """The inputs and labels for PyTorch: images [N, C, H, W] and whole numbers i64."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    label = tensors.pop("label").long()
    if (image := tensors.get("image")) is not None and image.ndim == 4:
        tensors["image"] = image.permute(0, 3, 1, 2).contiguous()
    return [x if x.is_floating_point() else x.long() for x in tensors.values()], label


def loss_of(output: Tensor, label: Tensor) -> Tensor:
    """The mean over all positions of [N, n] or [N, T, n]; of an image, the classes are at axis 1 already."""
    return F.cross_entropy(output.flatten(0, 1), label.flatten()) if output.ndim == 3 else F.cross_entropy(output, label)


# Parameters of nnc and PyTorch ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A parameter of PyTorch and the one of nnc that it equals, after a change of layout."""

    tensor: nn.Parameter
    name: str
    to_torch: Callable[[np.ndarray], np.ndarray]


def same(x: np.ndarray) -> np.ndarray:
    return x


def convolution(x: np.ndarray) -> np.ndarray:
    """[height, width, in, out] -> [out, in, height, width]"""
    return x.transpose(3, 2, 0, 1)


def depthwise(x: np.ndarray) -> np.ndarray:
    """[height, width, channels, 1] -> [channels, 1, height, width]"""
    return x.transpose(2, 3, 0, 1)


def gates(x: np.ndarray) -> np.ndarray:
    """Columns z, r, h -> rows r, z, h"""
    z, r, h = np.split(x.T, 3)
    return np.concatenate([r, z, h])


def bias_of(place: int) -> Callable[[np.ndarray], np.ndarray]:
    """The bias of the input (0) or of the recurrence (1) of a GRU."""
    return lambda x: gates(x[place])


def pairs(net: nn.Module, names: Sequence[str]) -> Iterator[Pair]:
    """All parameters of a network with their names in nnc, which are in the order of the layers."""
    left = iter(names)
    for layer in net.modules():
        own = list(layer.parameters(recurse=False))
        if isinstance(layer, nn.GRU):
            w, u, b = next(left), next(left), next(left)
            changes = [(w, gates), (u, gates), (b, bias_of(0)), (b, bias_of(1))]
        elif isinstance(layer, nn.Conv2d):
            changes = [(next(left), depthwise if layer.groups > 1 else convolution)]
            changes += [(next(left), same)] if layer.bias is not None else []
        elif isinstance(layer, nn.Linear):
            changes = [(next(left), np.transpose), (next(left), same)]
        else:
            changes = [(next(left), same) for _ in own]
        for tensor, (name, change) in zip(own, changes, strict=True):
            yield Pair(tensor, name, change)
    if list(left):
        raise AssertionError("nnc has more parameters than the network")


@torch.no_grad()
def copy_weights(net: nn.Module, arrays: Mapping[str, np.ndarray]) -> list[Pair]:
    """Gives a network the parameters of nnc; returns the pairs."""
    found = list(pairs(net, list(arrays)))
    for pair in found:
        array = pair.to_torch(arrays[pair.name])
        if array.shape != tuple(pair.tensor.shape):
            raise AssertionError(f"{pair.name}: {array.shape} is not {tuple(pair.tensor.shape)}")
        pair.tensor.copy_(torch.from_numpy(array.copy()))
    return found
