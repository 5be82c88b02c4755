"""The equations of pooling one by one: when they apply, when they do not, and that indices are shared."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.interpreter import interpret
from compiler.ir.printer import print_graph
from compiler.passes.pooling import pool_early
from tests.programs import BATCH, compiled_model, read_graph, values_for

POOL = "window=[2,2], stride=[2,2], padding=[[0,0],[0,0]]"
OVERLAPPING = "window=[3,3], stride=[1,2], padding=[[1,0],[0,1]]"
INPUTS = "%x: f32[B,6,6,2] input, %y: f32[B,6,6,2] input, %b: f32[B,1,1,2] input, %dy: f32[B,3,3,2] input"

# name, the nodes and outputs before, and after
REWRITTEN = {
    "a number of either side": (
        f"%0: f32[B,6,6,2] = max(0.5, %x); %1: f32[B,3,3,2] = max_pool2d(%0, {POOL}); return y=%1",
        f"%0: f32[B,3,3,2] = max_pool2d(%x, {POOL}); %1: f32[B,3,3,2] = max(%0, 0.5); return y=%1",
    ),
    "an offset for each image": (
        f"%0: f32[B,6,6,2] = sub(%x, %b); %1: f32[B,3,3,2] = max_pool2d(%0, {POOL}); return y=%1",
        f"%0: f32[B,3,3,2] = max_pool2d(%x, {POOL}); %1: f32[B,3,3,2] = sub(%0, %b); return y=%1",
    ),
    "two windows": (
        f"%0: f32[B,6,6,2] = max(%x, 0.0); %1: f32[B,3,3,2] = max_pool2d(%0, {POOL}); "
        f"%2: f32[B,5,3,2] = max_pool2d(%0, {OVERLAPPING}); return y=%1, z=%2",
        f"%0: f32[B,3,3,2] = max_pool2d(%x, {POOL}); %1: f32[B,3,3,2] = max(%0, 0.0); "
        f"%2: f32[B,5,3,2] = max_pool2d(%x, {OVERLAPPING}); %3: f32[B,5,3,2] = max(%2, 0.0); return y=%1, z=%3",
    ),
    "the gradient through an offset": (
        f"%0: f32[B,6,6,2] = add(%b, %x); %1: f32[B,6,6,2] = max_pool2d_grad(%0, %dy, {POOL}); return y=%1",
        f"%0: f32[B,3,3,2], %1: u8[B,3,3,2] = max_pool2d_with_index(%x, {POOL}); "
        f"%2: f32[B,6,6,2] = max_pool2d_route(%1, %dy, input_size=[6,6], {POOL}); return y=%2",
    ),
    "the gradient through a maximum that is its own condition": (
        f"%0: f32[B,6,6,2] = max(%x, 0.5); %1: f32[B,6,6,2] = max_pool2d_grad(%0, %dy, {POOL}); "
        "%2: bool[B,6,6,2] = lt(0.5, %0); %3: f32[B,6,6,2] = select(%2, %1, 0.0); return y=%3",
        f"%0: f32[B,3,3,2], %1: u8[B,3,3,2] = max_pool2d_with_index(%x, {POOL}); %2: bool[B,3,3,2] = lt(0.5, %0); "
        "%3: f32[B,3,3,2] = select(%2, %dy, 0.0); "
        f"%4: f32[B,6,6,2] = max_pool2d_route(%1, %3, input_size=[6,6], {POOL}); return y=%4",
    ),
    "another condition": (
        f"%0: f32[B,6,6,2] = max(%x, 0.5); %1: f32[B,6,6,2] = max_pool2d_grad(%0, %dy, {POOL}); "
        "%2: bool[B,6,6,2] = lt(0.0, %0); %3: f32[B,6,6,2] = select(%2, %1, 0.0); return y=%3",
        f"%0: f32[B,6,6,2] = max(%x, 0.5); %1: f32[B,3,3,2], %2: u8[B,3,3,2] = max_pool2d_with_index(%0, {POOL}); "
        f"%3: f32[B,6,6,2] = max_pool2d_route(%2, %dy, input_size=[6,6], {POOL}); "
        "%4: bool[B,6,6,2] = lt(0.0, %0); %5: f32[B,6,6,2] = select(%4, %3, 0.0); return y=%5",
    ),
    "gradients of different windows": (
        f"%0: f32[B,3,3,2] = max_pool2d(%x, {POOL}); %1: f32[B,6,6,2] = max_pool2d_grad(%x, %0, {POOL}); "
        f"%2: f32[B,5,3,2] = max_pool2d(%x, {OVERLAPPING}); return y=%1, z=%2",
        f"%0: f32[B,3,3,2], %1: u8[B,3,3,2] = max_pool2d_with_index(%x, {POOL}); "
        f"%2: f32[B,6,6,2] = max_pool2d_route(%1, %0, input_size=[6,6], {POOL}); "
        f"%3: f32[B,5,3,2] = max_pool2d(%x, {OVERLAPPING}); return y=%2, z=%3",
    ),
}
UNTOUCHED = {
    "an image as the offset": f"%0: f32[B,6,6,2] = add(%x, %y); %1: f32[B,3,3,2] = max_pool2d(%0, {POOL}); return y=%1",
    "the sign changes": f"%0: f32[B,6,6,2] = sub(%b, %x); %1: f32[B,3,3,2] = max_pool2d(%0, {POOL}); return y=%1",
    "no number": f"%0: f32[B,6,6,2] = max(%x, %b); %1: f32[B,3,3,2] = max_pool2d(%0, {POOL}); return y=%1",
    "an output": f"%0: f32[B,6,6,2] = add(%x, %b); %1: f32[B,3,3,2] = max_pool2d(%0, {POOL}); return y=%1, z=%0",
    "a condition read by others": (
        f"%0: f32[B,6,6,2] = max(%x, 0.5); %1: f32[B,3,3,2] = max_pool2d(%0, {POOL}); "
        "%2: bool[B,6,6,2] = lt(0.5, %0); %3: f32[B,6,6,2] = select(%2, %y, 0.0); return y=%1, z=%3"
    ),
}


def graph_of(body: str) -> str:
    lines = "\n".join(f"  {line}" for line in body.split("; "))
    return f"graph g({INPUTS}) {{\n{lines}\n}}"


@pytest.mark.parametrize("name", REWRITTEN)
def test_rewrites(name: str):
    before, after = map(graph_of, REWRITTEN[name])
    graph = pool_early(read_graph(before))
    assert print_graph(graph).strip() == after
    assert print_graph(pool_early(graph)).strip() == after


@pytest.mark.parametrize("name", UNTOUCHED)
def test_leaves_alone(name: str):
    text = graph_of(UNTOUCHED[name])
    assert print_graph(pool_early(read_graph(text))).strip() == text


@pytest.mark.parametrize("body", [*(before for before, _ in REWRITTEN.values()), *UNTOUCHED.values()])
def test_keeps_the_meaning(body: str):
    graph = read_graph(graph_of(body))
    inputs = values_for(graph, BATCH)
    expected, found = interpret(graph, inputs, BATCH), interpret(pool_early(graph), inputs, BATCH)
    assert all(np.array_equal(found[name], value) for name, value in expected.items())


def test_gradients_of_ties_and_zeros_go_to_the_same_pixels():
    """Windows whose largest pixels are equal, or all below the number, with overlapping windows and padding."""
    body = (
        f"%0: f32[B,6,6,2] = max(%x, 0.0); %1: f32[B,5,3,2] = max_pool2d(%0, {OVERLAPPING}); "
        f"%2: f32[B,6,6,2] = max_pool2d_grad(%0, %1, {OVERLAPPING}); "
        "%3: bool[B,6,6,2] = lt(0.0, %x); %4: f32[B,6,6,2] = select(%3, %2, 0.0); return y=%1, dx=%4"
    )
    graph = read_graph(graph_of(body))
    inputs = values_for(graph, BATCH) | {"x": np.random.default_rng(0).integers(-2, 3, (BATCH, 6, 6, 2))}
    expected, found = interpret(graph, inputs, BATCH), interpret(pool_early(graph), inputs, BATCH)
    assert all(np.array_equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("model", ["cnn", "separable_cnn"])
def test_models_clip_and_shift_what_is_pooled(model: str):
    """After the passes, relu and offsets before a pooling have its shape; nothing searches for maxima twice."""
    text = print_graph(compiled_model(model).optimized["train_step"])
    assert text.count("max_pool2d_with_index(") == text.count("max_pool2d_route(") == 2
    assert "max_pool2d_grad(" not in text and "f32[B,24,24,24] = max(" not in text
