"""Shared by the tests of this folder: an emulated device, and skipping tests that need a real one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache

import pytest


@cache
def has_device() -> bool:
    try:
        import cupy
    except ImportError:
        return False
    try:
        return cupy.cuda.runtime.getDeviceCount() > 0
    except cupy.cuda.runtime.CUDARuntimeError:  # no driver, or one that is too old
        return False


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not has_device():
        pytest.skip("needs an NVIDIA GPU")


@pytest.fixture(scope="session", autouse=True)
def keep_libraries(pytestconfig: pytest.Config) -> None:
    """Keeps compiled kernels from run to run, by the hash of their source."""
    if (cache := getattr(pytestconfig, "cache", None)) is not None:
        os.environ["NNC_TEST_LIBRARIES"] = str(cache.mkdir("gpu-kernels"))


@pytest.fixture(scope="module")
def emulated() -> Iterator[None]:
    """Replaces `runtime.gpu.cuda` by the emulation, for generated source and for modules imported from now on."""
    import runtime.gpu
    from tests.gpu.emulation import cuda

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "runtime.gpu.cuda", cuda)
        patch.setattr(runtime.gpu, "cuda", cuda, raising=False)
        forget_modules()
        yield
        forget_modules()


def forget_modules() -> None:
    """Removes the modules that have imported the device."""
    for name in ("device_program", "device_profiler"):
        sys.modules.pop(f"runtime.gpu.{name}", None)
