"""Special cases of arithmetic on the emulated device."""

from __future__ import annotations

import pytest

from tests.arithmetic import CASES, Case
from tests.gpu.cupy_or_skip import cupy
from tests.gpu.running import OnDevice, on_device
from tests.gpu.sources import compile_all, joined, sources_of

assert cupy


@pytest.fixture(scope="module")
def compiled(emulated: None) -> dict[str, OnDevice]:
    """All of them before any runs, so that g++ compiles them at once."""
    return {case.name: on_device(case.graph(), 1) for case in CASES}


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_case(case: Case, compiled: dict[str, OnDevice]):
    case.check(compiled[case.name](case.inputs())["y"])


def test_every_kernel_is_cuda(compiled: dict[str, OnDevice]):
    compile_all([joined(sorted({source for run in compiled.values() for source in sources_of(run.run)}))])
