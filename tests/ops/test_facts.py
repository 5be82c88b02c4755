"""The facts stated in the block of an op agree with its rules, for all its samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compiler.ir.graph import Node
from compiler.ir.op import CONVOLUTION, ELEMENTWISE, IMAGES, IN_ORDER, LOOP, PRODUCT, REGION, VIEW, Op, Sample
from compiler.ir.types import broadcast_shapes
from compiler.ops import OPS
from compiler.planning.costs import operations
from tests.ops.test_ops import SAMPLES, build, draws


def node_of(op: Op, sample: Sample) -> Node:
    return build(op, sample)[1].nodes[0]


def test_traits_that_imply_others():
    for op in OPS.values():
        assert VIEW in op.traits or IN_ORDER not in op.traits
        assert PRODUCT in op.traits or CONVOLUTION not in op.traits
        assert bool(op.traits & {LOOP, REGION}) == ("body" in op.attributes)


@pytest.mark.parametrize("op, sample", SAMPLES)
def test_shapes_are_as_the_facts_say(op: Op, sample: Sample):
    node = node_of(op, sample)
    shapes = [value.type.shape for value in node.operands]
    if ELEMENTWISE in op.traits:
        assert node.result.type.shape == broadcast_shapes(*shapes)
    if IMAGES in op.traits:
        assert all(result.type.rank == 4 for result in node.results)
    if op.reduces:
        axes = node.reduced_axes
        kept = [dim for axis, dim in enumerate(shapes[0]) if axis not in axes]
        same = [1 if axis in axes else dim for axis, dim in enumerate(shapes[0])]
        assert list(node.result.type.shape) == (same if node.attributes.get("keepdims") else kept)
    else:
        assert node.reduced_axes == ()
    if op.lookup:
        table, indices = (node.operands[position].type for position in op.lookup)
        assert node.result.type == table.with_shape(indices.shape + table.shape[1:])


@pytest.mark.parametrize("op, sample", [case for case in SAMPLES if IN_ORDER in case.values[0].traits])
def test_elements_stay_in_reading_order(op: Op, sample: Sample):
    node, (x,) = node_of(op, sample), draws(op, sample, 1)[0].values()
    result = op.reference(x, **{k: tuple(map(int_at_1, v)) for k, v in node.attributes.items()})
    np.testing.assert_array_equal(np.ravel(result), np.ravel(x))


def int_at_1(dim: object) -> object:
    return getattr(dim, "factor", dim)


@pytest.mark.parametrize("op, sample", SAMPLES)
def test_operations_are_counted(op: Op, sample: Sample):
    if op.traits & {LOOP, REGION}:
        assert op.cost is None, "counted for the nodes of the body"
    else:
        assert 0 <= operations(node_of(op, sample), 1) <= operations(node_of(op, sample), 2)


def test_a_product_counts_a_multiplication_and_an_addition():
    node = node_of(OPS["matmul"], OPS["matmul"].samples[0])  # [2,3] @ [3,4]
    assert operations(node, 1) == 2 * 2 * 3 * 4


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.on_number])
def test_functions_of_numbers_agree_with_the_reference(name: str):
    op = OPS[name]
    assert op.on_number is not None
    values = op.samples[0].operands[0]
    for x in np.linspace(values.low, values.high, 6)[1:-1]:
        assert math.isclose(op.on_number(float(x)), float(op.reference(np.float64(x))), rel_tol=1e-12)
