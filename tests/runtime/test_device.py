"""Training on a device: the same as on the CPU, in launches of several steps without copies."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import runtime.gpu
from runtime.errors import RuntimeUserError
from runtime.feeding import NotFinite, Runner, Watch, epoch_order, fitted, runner_of
from runtime.program import LoadedProgram
from runtime.training.interrupt import Interrupted
from runtime.training.trainer import evaluate, first_step, predict
from tests.runtime import fake_cuda
from tests.runtime.fake_cuda import counts
from tests.runtime.tiny import SOURCE, contents, run_tiny, tiny_build, tiny_data, tiny_program

EPOCHS = 3
LENGTH = 4  # steps in a graph: an epoch of 50 examples has six batches of 8, and one of 2
NAN = 'v["w"] *= np.nan if v["step"] == {} else 1'
Make = Callable[..., LoadedProgram]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """runtime.gpu.device_program, on the device that NumPy emulates."""
    fake_cuda.reset()
    monkeypatch.setitem(sys.modules, "runtime.gpu.cuda", fake_cuda)
    monkeypatch.setattr(runtime.gpu, "cuda", fake_cuda, raising=False)
    spec = importlib.util.find_spec("runtime.gpu.device_program")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "STEPS_PER_GRAPH", LENGTH)
    yield module


@pytest.fixture
def make(device: ModuleType) -> Make:
    """Makes the tiny program for the device."""

    def make(graphs: bool = True, **options: object) -> LoadedProgram:
        executable, manifest = tiny_build(**options)  # type: ignore[arg-type]
        whole = replace(executable, target="cupy", initializer=executable)
        return device.DeviceProgram(whole, manifest, graphs)

    return make


def training_runner(program: LoadedProgram) -> Runner:
    data = tiny_data().train.arrays
    return runner_of(program, "train_step", fitted(program, "train_step", data, "training"))


def poisoned(step: int) -> str:
    """The program, with weights that are NaN after some steps."""
    return SOURCE.replace("        time.sleep", f"        {NAN.format(step)}\n        time.sleep")


def log_of(folder: Path) -> list[str]:
    """The epochs in the log, without their seconds."""
    return [line.partition(', "seconds"')[0] for line in (folder / "log.jsonl").read_text().splitlines()[1:]]


@pytest.mark.parametrize("graphs", [True, False])
def test_training_is_that_of_the_cpu(graphs: bool, make: Make, tmp_path: Path) -> None:
    there, device_summary, _ = run_tiny(tmp_path / "device", make=partial(make, graphs), epochs=EPOCHS)
    here, summary, _ = run_tiny(tmp_path / "cpu", epochs=EPOCHS)
    assert contents(there) == contents(here)
    assert (device_summary.train, device_summary.test) == (summary.train, summary.test)
    assert log_of(tmp_path / "device") == log_of(tmp_path / "cpu")
    assert (counts["launch"] > 0) == graphs


def test_launches_of_an_epoch(make: Make) -> None:
    """The first step of a size runs alone; then graphs of many steps, and of one step for the rest."""
    program = make()
    program.initialize(7)
    runner, order = training_runner(program), epoch_order(50, 7, 1, True)
    runner.means(order, 8)
    assert (counts["capture"], counts["launch"]) == (2, 2)  # 1 + [4] + [1], and 1 of two examples
    runner.means(order, 8)
    assert (counts["capture"], counts["launch"]) == (3, 2 + 4)  # [4] + [1] + [1], [1]
    runner.means(order, 8)
    assert (counts["capture"], counts["launch"]) == (3, 2 + 4 + 4)
    assert program.variables()["step"] == 3 * 7


def test_nothing_is_copied_in_a_step(make: Make) -> None:
    program = make()
    program.initialize(7)
    runner = training_runner(program)
    runner.means(np.arange(50), 8)  # copies the examples
    for examples in (8, 50):
        counts.clear()
        runner.means(np.arange(examples), 8)
        assert {name: counts[name] for name in ("zeros", "upload", "download")} == {
            "zeros": 0,
            "upload": 2,  # the order, and sums of zero
            "download": 1,  # the sums
        }


@pytest.mark.parametrize("epoch", range(1, EPOCHS))
def test_resuming_is_bit_exact(epoch: int, make: Make, tmp_path: Path) -> None:
    whole, summary, _ = run_tiny(tmp_path / "whole", make=make, epochs=EPOCHS)
    run_tiny(tmp_path / "run", make=make, epochs=epoch)
    program, resumed, _ = run_tiny(tmp_path / "run", resume=True, make=make, epochs=EPOCHS)
    assert contents(program) == contents(whole)
    assert (resumed.train, resumed.test, resumed.trained) == (summary.train, summary.test, EPOCHS - epoch)


@pytest.mark.parametrize("places", [("device", "cpu"), ("cpu", "device")])
def test_a_run_goes_on_elsewhere(places: tuple[str, str], make: Make, tmp_path: Path) -> None:
    makers = {"device": make, "cpu": tiny_program}
    run_tiny(tmp_path / "run", make=makers[places[0]], epochs=1)
    program, _, _ = run_tiny(tmp_path / "run", resume=True, make=makers[places[1]], epochs=EPOCHS)
    whole, _, _ = run_tiny(tmp_path / "whole", epochs=EPOCHS)
    assert contents(program) == contents(whole)


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("step", [1, 3, 9])
def test_a_loss_that_is_not_finite(step: int, graphs: bool, make: Make, tmp_path: Path) -> None:
    """It is reported as on the CPU, though only found at the end of the epoch."""
    messages = []
    for name, maker in (("device", partial(make, graphs)), ("cpu", tiny_program)):
        with pytest.raises(RuntimeUserError) as caught:
            run_tiny(tmp_path / name, make=maker, source=poisoned(step), epochs=9)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert f"in epoch {1 + step // 7}, step {1 + step % 7} of 7" in messages[0] and "found: nan" in messages[0]


def test_a_bad_loss_is_seen_before_the_end(device: ModuleType, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "CHECK_SECONDS", 0.0)
    program = make(source=poisoned(2))
    program.initialize(7)
    with pytest.raises(NotFinite) as caught:
        training_runner(program).means(np.arange(50), 8, watch=Watch(print, np.inf))
    assert caught.value.step == 3 and np.isnan(caught.value.loss)
    assert program.variables()["step"] == 1 + LENGTH, "the first step, and the graph in which it happened"


def test_progress(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[int] = []
    program = make()
    program.initialize(7)
    training_runner(program).means(np.arange(50), 8, watch=Watch(shown.append, 0.0))
    assert shown == [1, 1 + LENGTH, 6, 7]


@pytest.mark.parametrize("graphs", [True, False])
def test_a_signal_stops_after_a_launch(graphs: bool, make: Make) -> None:
    program = make(graphs)
    program.initialize(7)
    runner = training_runner(program)
    with pytest.raises(Interrupted):
        runner.means(np.arange(50), 8, received=[2])
    assert program.variables()["step"] == 1
    with pytest.raises(Interrupted):
        runner.means(np.arange(50), 8, received=[2])
    assert program.variables()["step"] == 1 + (LENGTH if graphs else 1)
    with pytest.raises(Interrupted):
        list(runner.batches(np.arange(50), 8, received=[2]))


def test_evaluation_and_prediction(make: Make) -> None:
    data, here, there = tiny_data(), tiny_program(), make()
    for program in (here, there):
        program.initialize(7)
    assert evaluate(there, data.test) == evaluate(here, data.test)
    expected, found = (predict(program, {"image": data.test.arrays["image"]}) for program in (here, there))
    np.testing.assert_array_equal(found["logits"], expected["logits"])
    assert first_step(there, data) == first_step(here, data)


def test_variables_are_copies(make: Make) -> None:
    program = make()
    program.initialize(7)
    program.variables()["w"][...] = 0
    assert program.variables()["w"].any()
    program.assign({name: np.zeros_like(array) for name, array in program.variables().items()})
    assert not any(array.any() for array in program.variables().values())


def test_what_is_prepared_follows_the_weights(make: Make) -> None:
    """`evaluate` reads values that `prepare` computes from the variables, which training changes."""
    source = SOURCE.replace(
        "def bind_predict",
        "def bind_prepare(arena, batch):\n"
        '    v, prepared = variables(arena), view(arena, 960, "f4", 1)\n'
        '    return lambda: prepared.__setitem__(0, v["w"][0, 0]), {}, {}\n\n\n'
        "def bind_predict",
    ).replace("logits[...] = image", 'logits[...] = view(arena, 960, "f4", 1) + image')
    image = tiny_data().test.arrays["image"]
    here, there = tiny_program(source=source), make(source=source)
    for program in (here, there):
        program.initialize(7)
    for _ in range(2):
        expected, found = (predict(program, {"image": image})["logits"] for program in (here, there))
        np.testing.assert_array_equal(found, expected)
        for program in (here, there):
            program.assign({name: array + 1 for name, array in program.variables().items()})
