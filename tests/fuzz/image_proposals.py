"""Random applications of convolutions, pooling and patches; see `proposals.py`."""

from __future__ import annotations

from random import Random
from typing import Any

from compiler.ir.graph import Value
from compiler.ir.types import Batch, TensorType
from compiler.ops import OPS
from compiler.ops.windows import output_size
from tests.fuzz.drafts import LARGEST, Draft, Proposal, elements


def pair(random: Random, *choices: int) -> tuple[int, int]:
    return random.choice(choices), random.choice(choices)


def geometry(draft: Draft, *names: str) -> dict[str, Any]:
    """Attributes of windows; unusual ones are as likely as common ones."""
    random = draft.random
    known = {
        "stride": lambda: pair(random, 1, 1, 2, 3),
        "padding": lambda: (pair(random, 0, 0, 1, 2), pair(random, 0, 0, 1, 2)),
        "dilation": lambda: pair(random, 1, 1, 1, 2),
        "window": lambda: pair(random, 1, 2, 2, 3),
        "kernel": lambda: pair(random, 1, 2, 3),
    }
    return {name: known[name]() for name in names}


def image_type(draft: Draft, channels: tuple[int, ...] = (1, 2, 3, 4)) -> TensorType:
    random = draft.random
    lead = random.choice((1, 2, Batch(), Batch(), Batch()))
    size = (random.randint(1, 6), random.randint(1, 6))
    dtype = draft.float_dtype()
    found = TensorType(dtype, (lead, *size, random.choice(channels)))
    return found if elements(found.shape) <= LARGEST else image_type(draft, channels)


def image(draft: Draft) -> Value:
    return draft.small(draft.value(lambda type: type.is_float and type.rank == 4, lambda: image_type(draft)), 4.0)


def convolution(draft: Draft) -> tuple[Value, TensorType, dict[str, Any]]:
    """An image, the type of a kernel for it, and attributes."""
    x, random = image(draft), draft.random
    channels = x.type.shape[3]
    channels = 1 if isinstance(channels, Batch) else channels
    groups = random.choice([g for g in (1, 1, 1, 2, 3, 4) if channels % g == 0])
    depth, filters = channels // groups, groups * random.choice((1, 1, 2, 3))
    kernel = geometry(draft, "kernel")["kernel"]
    attributes = {**geometry(draft, "stride", "padding", "dilation"), "groups": groups}
    return x, x.type.with_shape((*kernel, depth, filters)), attributes


def conv2d(draft: Draft) -> Any:
    x, kernel, attributes = convolution(draft)
    return draft.emit("conv2d", [x, draft.typed(kernel)], attributes)


def result_of(draft: Draft, name: str, types: list[TensorType], attributes: dict[str, Any]) -> Value:
    """A value of the result type of an op: a gradient for its adjoint."""
    (result,) = OPS[name].result_types(types, OPS[name].complete(attributes))
    return draft.typed(result)


def conv2d_input_grad(draft: Draft) -> Any:
    x, kernel, attributes = convolution(draft)
    dy = result_of(draft, "conv2d", [x.type, kernel], attributes)
    size = x.type.shape[1:3]
    return draft.emit("conv2d_input_grad", [dy, draft.typed(kernel)], {"input_size": size, **attributes})


def conv2d_filter_grad(draft: Draft) -> Any:
    x, kernel, attributes = convolution(draft)
    dy = result_of(draft, "conv2d", [x.type, kernel], attributes)
    return draft.emit("conv2d_filter_grad", [x, dy], {"kernel": kernel.shape[:2], **attributes})


def max_pool2d(name: str) -> Proposal:
    def propose(draft: Draft) -> Any:
        x, attributes = image(draft), geometry(draft, "window", "stride", "padding")
        if name in ("max_pool2d", "max_pool2d_with_index"):
            return draft.emit(name, [x], attributes)
        dy = result_of(draft, "max_pool2d", [x.type], attributes)
        if name == "max_pool2d_grad":
            return draft.emit(name, [x, dy], attributes)
        _, index = draft.emit("max_pool2d_with_index", [x], attributes)
        return draft.emit(name, [index, dy], {"input_size": x.type.shape[1:3], **attributes})

    return propose


def patches(draft: Draft) -> Any:
    return draft.emit("patches", [image(draft)], geometry(draft, "window", "stride", "padding", "dilation"))


def fold(draft: Draft) -> Any:
    x, attributes = image_type(draft), geometry(draft, "stride", "padding", "dilation")
    window = pair(draft.random, 1, 2, 3)
    count = output_size(x.shape[1:3], window, **attributes)
    parts = draft.typed(x.with_shape((x.shape[0], *count, *window, x.shape[3])))
    return draft.emit("fold", [parts], {"input_size": x.shape[1:3], **attributes})
