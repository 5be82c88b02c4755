"""Every pass on IR text: it fires, leaves a near miss alone, and twice is the same as once. All keep the meaning."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from compiler.ir.graph import Graph
from compiler.ir.interpreter import interpret
from compiler.ir.printer import print_graph
from compiler.passes.batch_norm_folding import fold_batch_norms
from compiler.passes.common_subexpressions import merge_common_subexpressions
from compiler.passes.constant_folding import fold_constants
from compiler.passes.dead_code import remove_dead_code
from compiler.passes.materialize import materialize_outputs
from compiler.passes.scan_hoisting import hoist_from_scans
from compiler.passes.scans_together import bring_scans_together
from compiler.passes.simplify import simplify
from compiler.targets.registry import TARGETS
from compiler.targets.target import find_target
from tests.passes.fusion_cases import FUSION_CASES
from tests.passes.image_cases import IMAGE_CASES
from tests.passes.kernel_cases import KERNEL_CASES
from tests.passes.region_cases import REGION_CASES
from tests.programs import BATCH, MODELS, PIPELINES, TRAINED_GRAPHS, compiled_model, read_graph, values_for

DEAD = """
graph g(%x: f32[3] input, %u: f32[4,3] input) {
  %0: f32[3] = exp(%x)
  %1: f32[3] = neg(%x)
  %2: f32[3], %3: f32[4,3], %4: f32[4,3] = scan(%x, %u, carries=1, sequences=1, reverse=false, body=graph body(%h: f32[3] carry, %v: f32[3] sequence) {
    %0: f32[3] = add(%h, %v)
    %1: f32[3] = exp(%v)
    %2: f32[3] = mul(%0, %v)
    return y0=%0, y1=%1, y2=%2
  })
  return y=%1, z=%4
}"""
ALIVE = """
graph g(%x: f32[3] input, %u: f32[4,3] input) {
  %0: f32[3] = neg(%x)
  %1: f32[3], %2: f32[4,3] = scan(%x, %u, carries=1, sequences=1, reverse=false, body=graph body(%h: f32[3] carry, %v: f32[3] sequence) {
    %0: f32[3] = add(%h, %v)
    %1: f32[3] = mul(%0, %v)
    return y0=%0, y2=%1
  })
  return y=%0, z=%2
}"""
REPEATED = """
graph g(%x: f32[3] input, %y: f32[3] input, %seed: i64[] counter) {
  %0: f32[3] = add(%x, %y)
  %1: f32[3] = add(%y, %x)
  %2: f32[3] = sub(%x, %y)
  %3: f32[3] = mul(%2, 0.5)
  %4: f32[3] = mul(0.5, %2)
  return a=%0, b=%1, c=%3, d=%4
}"""
MERGED = """
graph g(%x: f32[3] input, %y: f32[3] input, %seed: i64[] counter) {
  %0: f32[3] = add(%x, %y)
  %1: f32[3] = sub(%x, %y)
  %2: f32[3] = mul(%1, 0.5)
  return a=%0, b=%0, c=%2, d=%2
}"""
DIFFERENT = """
graph g(%x: f32[3] input, %y: f32[3] input, %seed: i64[] counter) {
  %0: f32[3] = sub(%x, %y)
  %1: f32[3] = sub(%y, %x)
  %2: f32[3] = mul(%x, 0.0)
  %3: f32[3] = mul(%x, -0.0)
  %4: f32[3] = random(%seed, 0, shape=[3], distribution="uniform", stream=1)
  %5: f32[3] = random(%seed, 0, shape=[3], distribution="uniform", stream=1)
  return a=%0, b=%1, c=%2, d=%3, e=%4, f=%5
}"""
UNWRITTEN = """
graph g(%w: f32[3] param, %v: f32[3] state) {
  %0: f32[3] = flip(%v, axes=[0])
  %1: f32[3] = exp(%w)
  return w=%0, v=%w, loss=%1
}"""
WRITTEN = """
graph g(%w: f32[3] param, %v: f32[3] state) {
  %0: f32[3] = copy(%w)
  %1: f32[3] = flip(%v, axes=[0])
  %2: f32[3] = exp(%w)
  %3: f32[3] = copy(%1)
  return w=%3, v=%0, loss=%2
}"""
IN_PLACE = """
graph g(%w: f32[3] param) {
  %0: f32[3] = exp(%w)
  return w=%0, loss=%0
}"""

STEP_BY_STEP = """
graph g(%h: f32[B,4] input, %x: f32[5,B,2] input, %w: f32[2,4] param) {
  %0: f32[4] = broadcast(0.0, shape=[4])
  %1: f32[2,4] = broadcast(0.0, shape=[2,4])
  %2: f32[B,4], %3: f32[4], %4: f32[2,4], %5: f32[5,B,4] = scan(%h, %0, %1, %x, %w, carries=3, sequences=1, reverse=false, body=graph body(%h: f32[B,4] carry, %db: f32[4] carry, %dw: f32[2,4] carry, %x: f32[B,2] sequence, %w: f32[2,4] constant) {
    %0: f32[B,4] = matmul(%x, %w)
    %1: f32[B,4] = add(%h, %0)
    %2: f32[B,4] = exp(%1)
    %3: f32[4] = sum(%2, axes=[0], keepdims=false)
    %4: f32[4] = add(%db, %3)
    %5: f32[2,B] = transpose(%x, permutation=[1,0])
    %6: f32[2,4] = matmul(%5, %2)
    %7: f32[2,4] = add(%6, %dw)
    return y0=%1, y1=%4, y2=%7, y3=%2
  })
  return h=%2, db=%3, dw=%4, y=%5
}"""
AT_ONCE = """
graph g(%h: f32[B,4] input, %x: f32[5,B,2] input, %w: f32[2,4] param) {
  %0: f32[4] = broadcast(0.0, shape=[4])
  %1: f32[2,4] = broadcast(0.0, shape=[2,4])
  %2: f32[5*B,2] = reshape(%x, shape=[5*B,2])
  %3: f32[5*B,4] = matmul(%2, %w)
  %4: f32[5,B,4] = reshape(%3, shape=[5,B,4])
  %5: f32[B,4], %6: f32[5,B,4] = scan(%h, %x, %4, %w, carries=1, sequences=2, reverse=false, body=graph body(%h: f32[B,4] carry, %x: f32[B,2] sequence, %product_1: f32[B,4] sequence, %w: f32[2,4] constant) {
    %0: f32[B,4] = add(%h, %product_1)
    %1: f32[B,4] = exp(%0)
    %2: f32[4] = sum(%1, axes=[0], keepdims=false)
    %3: f32[2,B] = transpose(%x, permutation=[1,0])
    %4: f32[2,4] = matmul(%3, %1)
    return y0=%0, y1=%1
  })
  %7: f32[4] = sum(%6, axes=[0,1], keepdims=false)
  %8: f32[5*B,2] = reshape(%x, shape=[5*B,2])
  %9: f32[5*B,4] = reshape(%6, shape=[5*B,4])
  %10: f32[2,5*B] = transpose(%8, permutation=[1,0])
  %11: f32[2,4] = matmul(%10, %9)
  return h=%5, db=%7, dw=%11, y=%6
}"""
BOUND_TO_STEPS = """
graph g(%h: f32[B,4] input, %s: f32[4] input, %x: f32[5,B,4] input, %w: f32[4,4] param) {
  %0: f32[B,4], %1: f32[4], %2: f32[5,4] = scan(%h, %s, %x, %w, carries=2, sequences=1, reverse=false, body=graph body(%h: f32[B,4] carry, %s: f32[4] carry, %x: f32[B,4] sequence, %w: f32[4,4] constant) {
    %0: f32[B,4] = matmul(%h, %w)
    %1: f32[B,4] = add(%0, %x)
    %2: f32[4] = sum(%1, axes=[0], keepdims=false)
    %3: f32[4] = add(%s, %2)
    return y0=%1, y1=%3, y2=%3
  })
  return h=%0, s=%1, y=%2
}"""

TWO_SCANS = """
graph g(%h: f32[2] input, %x: f32[5,2] input) {
  %0: f32[2], %1: f32[5,2] = scan(%h, %x, carries=1, sequences=1, reverse=false, body=graph body(%h: f32[2] carry, %x: f32[2] sequence) {
    %0: f32[2] = add(%h, %x)
    return y0=%0, y1=%0
  })
  %2: f32[2] = exp(%0)
  %3: f32[2] = exp(%h)
  %4: f32[2], %5: f32[5,2] = scan(%3, %x, carries=1, sequences=1, reverse=true, body=graph body(%h: f32[2] carry, %x: f32[2] sequence) {
    %0: f32[2] = mul(%h, %x)
    return y0=%0, y1=%0
  })
  return a=%2, b=%5
}"""
NEIGHBOURS = """
graph g(%h: f32[2] input, %x: f32[5,2] input) {
  %0: f32[2] = exp(%h)
  %1: f32[2], %2: f32[5,2] = scan(%h, %x, carries=1, sequences=1, reverse=false, body=graph body(%h: f32[2] carry, %x: f32[2] sequence) {
    %0: f32[2] = add(%h, %x)
    return y0=%0, y1=%0
  })
  %3: f32[2], %4: f32[5,2] = scan(%0, %x, carries=1, sequences=1, reverse=true, body=graph body(%h: f32[2] carry, %x: f32[2] sequence) {
    %0: f32[2] = mul(%h, %x)
    return y0=%0, y1=%0
  })
  %5: f32[2] = exp(%1)
  return a=%5, b=%4
}"""
CHAIN = """
graph g(%h: f32[2] input, %x: f32[5,2] input) {
  %0: f32[2], %1: f32[5,2] = scan(%h, %x, carries=1, sequences=1, reverse=false, body=graph body(%h: f32[2] carry, %x: f32[2] sequence) {
    %0: f32[2] = add(%h, %x)
    return y0=%0, y1=%0
  })
  %2: f32[5,2] = exp(%1)
  %3: f32[2], %4: f32[5,2] = scan(%h, %2, carries=1, sequences=1, reverse=true, body=graph body(%h: f32[2] carry, %x: f32[2] sequence) {
    %0: f32[2] = mul(%h, %x)
    return y0=%0, y1=%0
  })
  return a=%0, b=%4
}"""

NUMBERS = """
graph g(%x: f32[3] input) {
  %0: f32[] = div(1.0, 8.0)
  %1: f32[3] = mul(%x, %0)
  return y=%1
}"""
ONE_NUMBER = """
graph g(%x: f32[3] input) {
  %0: f32[3] = mul(%x, 0.125)
  return y=%0
}"""
RUN_TIME_NUMBERS = """
graph g(%x: f32[3] input) {
  %0: f32[] = extent(factor=1, power=1)
  %1: f32[] = div(1.0, %0)
  return y=%1
}"""
DIVIDED = """
graph g(%x: f32[B,3] input) {
  %0: f32[B,3] = div(%x, 4.0)
  %1: f32[B,3] = pow(%0, 2.0)
  return y=%1
}"""
MULTIPLIED = """
graph g(%x: f32[B,3] input) {
  %0: f32[B,3] = mul(%x, 0.25)
  %1: f32[B,3] = mul(%0, %0)
  return y=%1
}"""
SIMPLE = """
graph g(%x: f32[B,3] input) {
  %0: f32[B,3] = div(4.0, %x)
  %1: f32[B,3] = pow(%0, 3.0)
  return y=%1
}"""
SCALED = """
graph g(%x: f32[B,2] input, %w: f32[2,3] param) {
  %0: f32[B,3] = matmul(%x, %w)
  %1: f32[B,3] = mul(%0, 0.5)
  return y=%1
}"""
SCALED_WEIGHTS = """
graph g(%x: f32[B,2] input, %w: f32[2,3] param) {
  %0: f32[B,3] = matmul(%x, %w)
  %1: f32[2,3] = mul(%w, 0.5)
  %2: f32[B,3] = matmul(%x, %1)
  return y=%2
}"""
TRAINED = """
graph g(%x: f32[B,2] input, %w: f32[2,3] param) {
  %0: f32[B,3] = matmul(%x, %w)
  %1: f32[B,3] = mul(%0, 0.5)
  %2: f32[2,3] = exp(%w)
  return y=%1, w=%2
}"""

# pass, text before, text after, and a text that it leaves as it is
CASES = {
    "scan-hoisting": (hoist_from_scans, STEP_BY_STEP, AT_ONCE, BOUND_TO_STEPS),
    "dead-code": (remove_dead_code, DEAD, ALIVE, MERGED),
    "common-subexpressions": (merge_common_subexpressions, REPEATED, MERGED, DIFFERENT),
    "constant-folding": (fold_constants, NUMBERS, ONE_NUMBER, RUN_TIME_NUMBERS),
    "simplify": (simplify, DIVIDED, MULTIPLIED, SIMPLE),
    "batch-norm-folding": (fold_batch_norms, SCALED, SCALED_WEIGHTS, TRAINED),
    "scans-together": (bring_scans_together, TWO_SCANS, NEIGHBOURS, CHAIN),
    "materialize": (materialize_outputs, UNWRITTEN, WRITTEN, IN_PLACE),
}
CASES |= FUSION_CASES | IMAGE_CASES | KERNEL_CASES | REGION_CASES
Pass = Callable[[Graph], Graph]


def text_of(graph: Graph) -> str:
    return print_graph(graph).strip()


def test_every_pass_has_a_case():
    passes = [each for pipeline in PIPELINES.values() for each in pipeline]
    passes += [each for target in TARGETS for each, _ in find_target(target).optional]
    assert {each.name for each in passes if not each.of_module} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_fires(name: str):
    run, before, after, _ = CASES[name]
    assert text_of(run(read_graph(before))) == after.strip()


@pytest.mark.parametrize("name", CASES)
def test_leaves_a_near_miss_alone(name: str):
    run, _, _, untouched = CASES[name]
    assert text_of(run(read_graph(untouched))) == untouched.strip()


@pytest.mark.parametrize("name", CASES)
def test_twice_is_once(name: str):
    run, _, after, _ = CASES[name]
    assert text_of(run(read_graph(after))) == after.strip()


@pytest.mark.parametrize("name", CASES)
def test_keeps_its_argument(name: str):
    run, before, _, _ = CASES[name]
    graph = read_graph(before)
    run(graph)
    assert text_of(graph) == before.strip()


@pytest.mark.parametrize("name", CASES)
def test_keeps_the_meaning_of_its_example(name: str):
    run, before, after, _ = CASES[name]
    graph = read_graph(before)
    inputs = values_for(graph, BATCH)
    expected = interpret(graph, inputs, BATCH)
    for changed in (run(graph), read_graph(after)):
        found = interpret(changed, inputs, BATCH)
        assert all(np.allclose(found[key], value, rtol=1e-12, atol=1e-12) for key, value in expected.items())


@pytest.mark.parametrize("graph", TRAINED_GRAPHS)
@pytest.mark.parametrize("model", MODELS)
def test_passes_keep_the_meaning_of_models(model: str, graph: str):
    """In float64, where reordered sums differ in the last digits only."""
    compiled = compiled_model(model)
    inputs = values_for(compiled.module[graph], BATCH)
    states = [value.name for value in compiled.module[graph].of_kind("state")]
    inputs |= {name: np.abs(inputs[name]) for name in states}  # some are variances
    before = interpret(compiled.module[graph], inputs, BATCH)
    prepare = compiled.optimized.get("prepare")
    after = interpret(compiled.optimized[graph], inputs | (interpret(prepare, inputs) if prepare else {}), BATCH)
    for name, value in before.items():
        scale = max(1.0, float(np.abs(value).max(initial=0.0)))
        np.testing.assert_allclose(after[name], value, rtol=1e-10, atol=1e-12 * scale, err_msg=name)


@pytest.mark.parametrize("model", MODELS)
def test_convolutions_are_of_one_group_or_depthwise_and_without_padding(model: str):
    text = print_graph(compiled_model(model).optimized["train_step"])
    found = re.findall(r"= conv2d\w*\(.*?(padding=\S+), dilation=\S+ groups=(\d+)\)", text)
    assert {groups for _, groups in found} <= {"1", "24"} and {padding for padding, _ in found} <= {
        "padding=[[0,0],[0,0]]"
    }
    assert len(found) == text.count("= conv2d")
