"""Equal types are one object, and results of rules are cached; nothing is confused with anything else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compiler.ir.inference import infer
from compiler.ir.types import Batch, TensorType, TypeRuleError, parse_type
from compiler.ops import OPS

MATRIX = TensorType("f32", (2, 3))


def test_equal_types_are_one_object():
    assert TensorType("f32", (Batch(2), 3)) is parse_type("f32[2*B,3]")
    assert Batch() is Batch(1) and Batch(2) is not Batch(1)
    assert MATRIX is not TensorType("f64", (2, 3)) and MATRIX.with_shape((2, 3)) is MATRIX


def test_types_cannot_be_changed():
    for thing, name in ((MATRIX, "shape"), (Batch(), "factor")):
        with pytest.raises(AttributeError):
            setattr(thing, name, 7)


def test_a_refused_type_is_refused_again():
    for _ in range(2):
        with pytest.raises(TypeRuleError, match="out of range"):
            TensorType("f32", (-1,))


def test_a_rule_is_called_once():
    calls = []

    def rule(types, axes, keepdims):
        calls.append(axes)
        return OPS["sum"].infer(types, axes=axes, keepdims=keepdims)

    op = replace(OPS["sum"], infer=rule)
    for axes in ((0,), (1,), (0,)):
        attributes, (result,) = infer(op, (MATRIX,), {"axes": axes})
        assert attributes == {"axes": axes, "keepdims": False} and result.shape == ((3,) if axes == (0,) else (2,))
    assert calls == [(0,), (1,)]
    infer(OPS["sum"], (MATRIX,), {"axes": (0,)})
    assert len(calls) == 2  # another op, though of the same name


@pytest.mark.parametrize("axis", [True, 1.0, "1"])
def test_equal_attributes_of_another_kind_are_not_confused(axis: object):
    assert infer(OPS["argmax"], (MATRIX,), {"axis": 1})[1] == (TensorType("i32", (2,)),)
    with pytest.raises(TypeRuleError):
        infer(OPS["argmax"], (MATRIX,), {"axis": axis})


def test_refusals_are_not_cached():
    for _ in range(2):
        with pytest.raises(TypeRuleError, match="out of range"):
            infer(OPS["sum"], (MATRIX,), {"axes": (5,)})
