"""The regions that are reported are those of the generated source, for every target, model and graph."""

from __future__ import annotations

import re

import pytest

from compiler.driver import compile_tree
from compiler.passes.pipeline import choose
from compiler.planning.memory import Plan
from compiler.reports.explain_fusion import explain
from compiler.targets.registry import TARGETS
from compiler.targets.target import Target, find_target
from tests.programs import MODELS, compile_text, compiled_model

REGION = re.compile(r"^  region ", re.MULTILINE)
FUNCTION_OF_REGION = re.compile(
    r"^// .* = fused\(.*\n(?:(?!// .* = ).*\n)*?static void (\w+)\(const Step \*s\) \{", re.MULTILINE
)
WIDE = """
model Wide(x: f32[B, 784]) { return x |> Dense(4096) |> relu |> Dense(10) }
train Wide { loss = mean_squared_error; optimizer = SGD(lr=0.1) }
"""


def reported(target: Target, plan: Plan) -> int:
    return len(REGION.findall(explain({plan.graph.name: plan.graph}, target)))


def functions(source: str) -> dict[str, str]:
    """The text of the function of each graph: Python, or the C that it calls."""
    if texts := re.findall(r'^(\w+) = Graph\(r"""(.*?)^"""', source, re.MULTILINE | re.DOTALL):
        return dict(texts)
    parts = re.split(r"^def bind_(\w+)\(", source, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", TARGETS)
def test_as_many_regions_are_reported_as_run(name: str, model: str):
    compiled, target = compiled_model(model, name), find_target(name)
    source = functions(compiled.executable.source)
    for plan in compiled.plans:
        regions = reported(target, plan)
        assert regions == source[plan.graph.name].count(" = fused("), plan.graph.name
        assert regions == sum(node.op.name == "fused" for node in plan.graph.walk())


@pytest.mark.parametrize("model", MODELS)
def test_numpy_runs_a_function_for_each_region(model: str):
    """In the code itself, not only in the comments."""
    compiled = compiled_model(model)
    for plan in compiled.plans:
        code = re.sub(r"  #.*", "", functions(compiled.executable.source)[plan.graph.name])
        made, called = (
            len(re.findall(each, code)) for each in (r"def region_\d+\(tiles\)", r"run_tiles\(region_\d+, ")
        )
        assert made == called == reported(find_target("numpy"), plan)


@pytest.mark.parametrize("model", MODELS)
def test_cupy_launches_a_kernel_for_each_region(model: str):
    """A region and a node outside of all regions are one launch each, of a kernel that is defined for it."""
    compiled = compiled_model(model, "cupy")
    defined = re.findall(r"^(\w+) = (?:Elementwise|Raw)Kernel\(", compiled.executable.source, re.MULTILINE)
    for plan in compiled.plans:
        lines = functions(compiled.executable.source)[plan.graph.name].splitlines()
        launched = [line.split("(")[0].strip() for line in lines if " = fused(" in line]
        assert set(launched) <= set(defined) and len(set(launched)) == len(launched)


@pytest.mark.parametrize("model", MODELS)
def test_c_has_a_function_for_each_region(model: str):
    """A region and a node outside of all regions are one function each, which is called where it runs."""
    compiled = compiled_model(model, "c")
    for plan in compiled.plans:
        text = functions(compiled.executable.source)[plan.graph.name]
        made = re.findall(
            r"^// .* = fused\(.*\n(?:(?!// .* = ).*\n)*?static void (\w+)\(const Step \*s\) \{", text, re.MULTILINE
        )
        assert len(set(made)) == len(made) == reported(find_target("c"), plan)
        assert all(len(re.findall(rf"^ +{name}\(s\);", text, re.MULTILINE)) == 1 for name in made)


def test_without_fusion_the_generated_code_has_no_regions():
    compiled, target = compile_text(WIDE), find_target("numpy")
    plain = compile_tree(compiled.tree, passes=choose(target.pipeline, None, ["fusion"]))
    assert (
        sum(reported(target, plan) for plan in compiled.plans) == compiled.executable.source.count("_tile(lane, i)") > 0
    )
    assert not any(reported(target, plan) for plan in plain.plans) and "region" not in plain.executable.source
