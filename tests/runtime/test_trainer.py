"""Training: order of the data, averages, resuming bit for bit, stopping early, by a signal, or on a bad loss."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime.datasets.dataset import Split
from runtime.errors import RuntimeUserError
from runtime.feeding import batches, epoch_order, fitted
from runtime.program import LoadedProgram
from runtime.training import checkpoint
from runtime.training.interrupt import Signals
from runtime.training.progress import Reporter
from runtime.training.results import Summary
from runtime.training.run_folder import RunFolder
from runtime.training.trainer import Interrupted, evaluate, predict, train
from tests.runtime.tiny import SOURCE, contents, program_text, run_tiny, tiny_data, tiny_program

ROOT = Path(__file__).parents[2]
EPOCHS = 5
KILLS = int(os.environ.get("NNC_TEST_KILLS", "3"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], Summary, Path]:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    program, summary, _ = run_tiny(folder, epochs=EPOCHS)
    return contents(program), summary, folder


def test_order_of_an_epoch() -> None:
    first, second = epoch_order(1000, 7, 1, True), epoch_order(1000, 7, 2, True)
    assert sorted(first) == list(range(1000)) and not np.array_equal(first, second)
    assert np.array_equal(first, epoch_order(1000, 7, 1, True))
    assert not np.array_equal(first, epoch_order(1000, -8, 1, True))
    assert np.array_equal(epoch_order(5, 7, 1, False), np.arange(5))


def test_every_example_is_seen_once_with_its_label() -> None:
    program, data = tiny_program(), tiny_data()
    arrays = fitted(program, "train_step", data.train.arrays, "training")
    seen, counts = [], []
    for count, _ in batches(program, "train_step", arrays, epoch_order(50, 7, 1, True), 8):
        inputs = program.inputs("train_step", count)
        counts.append(count)
        seen += zip(inputs["image"].reshape(-1, 6).tolist(), inputs["label"].tolist(), strict=True)
    assert counts == [8] * 6 + [2]
    images, labels = data.train.arrays.values()
    assert sorted(seen) == sorted(zip(images.reshape(-1, 6).tolist(), labels.tolist(), strict=True))


def test_averages_weigh_the_last_batch_by_its_size() -> None:
    program, data = tiny_program(), tiny_data()
    program.initialize(7)
    logits = data.test.arrays["image"].reshape(-1, 6) / 255 @ program.variables()["w"].astype(np.float64)
    label = data.test.arrays["label"]
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(21), label]
    result = evaluate(program, data.test)
    assert list(result) == ["loss", "accuracy"]
    assert result["loss"] == pytest.approx(loss.mean(), rel=1e-5)
    assert result["accuracy"] == pytest.approx((logits.argmax(1) == label).mean(), rel=1e-6)


def test_predictions_are_in_order_and_complete() -> None:
    program, data = tiny_program(), tiny_data()
    program.initialize(7)
    images = data.test.arrays["image"]
    logits = predict(program, {"image": images})["logits"]
    assert logits.shape == (21, 3) and logits.dtype == np.float32
    np.testing.assert_allclose(logits, images.reshape(-1, 6) / 255 @ program.variables()["w"], rtol=1e-5, atol=1e-6)
    assert predict(program, {"image": images[:1]})["logits"].shape == (1, 3)


def test_training_learns_and_steps_once_per_batch(uninterrupted: tuple[dict[str, bytes], Summary, Path]) -> None:
    variables, summary, folder = uninterrupted
    assert np.frombuffer(variables["step"], np.int32) == EPOCHS * 7  # 50 examples in batches of 8
    assert np.frombuffer(variables["seen"], np.float32) == EPOCHS * 50
    assert (summary.epochs, summary.trained, summary.stopped_early) == (EPOCHS, EPOCHS, False)
    assert summary.test["accuracy"] > 0.6 and summary.best_loss == summary.test["loss"] < 1
    assert summary.steps_per_second > 0 and summary.folder == folder


@pytest.mark.parametrize("epoch", range(1, EPOCHS + 1))
def test_resuming_is_bit_exact(
    epoch: int, tmp_path: Path, uninterrupted: tuple[dict[str, bytes], Summary, Path]
) -> None:
    variables, summary, whole = uninterrupted
    folder = tmp_path / "run"
    run_tiny(folder, epochs=epoch)
    program, resumed, _ = run_tiny(folder, resume=True, epochs=EPOCHS)
    assert contents(program) == variables
    assert (resumed.train, resumed.test, resumed.best_epoch) == (summary.train, summary.test, summary.best_epoch)
    assert (resumed.epochs, resumed.trained) == (EPOCHS, EPOCHS - epoch)
    assert epochs_logged(folder) == epochs_logged(whole)
    for name in ("last.safetensors", "best.safetensors"):
        position = checkpoint.load(folder / name, program)
        assert contents(program) == variables and position.epoch == EPOCHS


def epochs_logged(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert all(("start_after_epoch" in line) != ("epoch" in line) for line in lines)
    return [{**line, "seconds": 0} for line in lines if "epoch" in line]


def test_time_goes_on_in_a_resumed_run(tmp_path: Path) -> None:
    run_tiny(tmp_path / "run", epochs=1, pause=0.02)
    _, _, printed = run_tiny(tmp_path / "run", resume=True, epochs=2)
    seconds = float(printed.splitlines()[0].split()[-2])
    assert seconds >= 7 * 0.02 and "step 2 " in printed and "step 1 " not in printed


def test_a_complete_run_is_not_trained_further(tmp_path: Path) -> None:
    before, _, _ = run_tiny(tmp_path / "run")
    after, summary, printed = run_tiny(tmp_path / "run", resume=True)
    assert contents(after) == contents(before)
    assert summary.trained == 0 and "nothing left to train" in printed


def test_patience(tmp_path: Path) -> None:
    _, summary, printed = run_tiny(tmp_path / "run", lr=0.0, epochs=50, patience=2)
    assert (summary.epochs, summary.best_epoch, summary.stopped_early) == (3, 1, True)
    assert "stopped early" in printed
    _, summary, _ = run_tiny(tmp_path / "run", lr=0.0, epochs=50, patience=2, resume=True)
    assert summary.trained == 0


def test_checkpoints_every_third_epoch_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    real = checkpoint.write_atomically

    def spy(path: Path, data: bytes, kept: Path | None) -> None:
        real(path, data, kept)
        written.append((path.stem, checkpoint.load(path, tiny_program()).epoch))

    monkeypatch.setattr("runtime.training.trainer.write_atomically", spy)
    run_tiny(tmp_path / "run", epochs=5, checkpoint=3)
    assert written == [("last", 0), ("best", 3), ("last", 3), ("best", 5), ("last", 5)]


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    _, summary, _ = run_tiny(tmp_path / "run", lr=30.0, epochs=8)
    folder = RunFolder.open(tmp_path / "run")
    program = tiny_program()
    assert summary.best_epoch < 8, "this learning rate should make the loss jump about"
    assert checkpoint.load(folder.best, program).epoch == summary.best_epoch
    assert evaluate(program, tiny_data().test)["loss"] == summary.best_loss


@pytest.mark.parametrize("lr", [1e39, math.nan])
def test_a_loss_that_is_not_finite_stops_at_once(lr: float, tmp_path: Path) -> None:
    with pytest.raises(RuntimeUserError, match="in epoch 1, step 2 of 7") as caught:
        run_tiny(tmp_path / "run", lr=lr)
    assert "lower the learning rate" in str(caught.value)
    program = tiny_program()
    assert checkpoint.load(tmp_path / "run" / "last.safetensors", program).epoch == 0
    assert all(np.isfinite(view).all() for view in program.variables().values())


def test_a_first_loss_that_is_not_finite_is_not_blamed_on_the_learning_rate(tmp_path: Path) -> None:
    def make(**options: object) -> LoadedProgram:
        program = tiny_program(**options)
        initialize = program.initialize

        def infinite(seed: int) -> None:
            initialize(seed)
            program.variables()["w"][...] = math.inf

        program.initialize = infinite  # type: ignore[method-assign]
        return program

    with pytest.raises(RuntimeUserError, match="in epoch 1, step 1 of 7") as caught:
        run_tiny(tmp_path / "run", make=make)
    assert "learning rate" not in str(caught.value) and "before the first update" in str(caught.value)


@pytest.mark.parametrize("failing, kept", [(2, 0), (3, 1), (4, 2)])
def test_a_full_disk_names_the_epoch_that_is_saved(
    failing: int, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def write(path: Path, data: bytes, backup: Path | None = None) -> None:
        written.append(path.name)
        if written.count("last.safetensors") == failing:
            raise RuntimeUserError(f'cannot write "{path}"', found="No space left on device", hint="none")
        checkpoint.write_atomically(path, data, backup)

    monkeypatch.setattr("runtime.training.trainer.write_atomically", write)
    with pytest.raises(RuntimeUserError, match="cannot write") as caught:
        run_tiny(tmp_path / "run", epochs=5)
    assert caught.value.hint and caught.value.hint.startswith(f"epoch {kept} is saved in ")
    assert checkpoint.load(tmp_path / "run/last.safetensors", tiny_program()).epoch == kept


def test_divergence_later_keeps_the_last_good_epoch(tmp_path: Path) -> None:
    """The last update of epoch 4 gives a NaN, which no loss of a step shows. No checkpoint is due yet."""
    poisoned = SOURCE.replace(
        "        time.sleep", '        v["w"] *= np.nan if v["step"] == 28 else 1\n        time.sleep'
    )
    with pytest.raises(RuntimeUserError, match=r"training diverged in epoch 4\n.*finite variables"):
        run_tiny(tmp_path / "run", source=poisoned, epochs=9, checkpoint=100)
    program = tiny_program()
    assert checkpoint.load(tmp_path / "run" / "last.safetensors", program).epoch == 3
    assert all(np.isfinite(view).all() for view in program.variables().values())


def test_arrays_are_not_copied_when_only_reshaped() -> None:
    data = tiny_data()
    arrays = fitted(tiny_program(), "train_step", data.train.arrays, "training")
    assert np.shares_memory(arrays["image"], data.train.arrays["image"])
    assert arrays["image"].shape == (50, 2, 3, 1)
    assert arrays["label"].dtype == np.int32  # converted once


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("label", None, 'lack an array\n  expected: "label"\n  found: "image"'),
        ("label", np.zeros(49, np.uint8), "differ in length"),
        (
            "label",
            np.full(50, 3, np.uint8),
            'row 0 of array "label" of the training data is out of range\n  expected: whole numbers 0 … 2',
        ),
        ("label", np.full(50, -1, np.int64), "found: -1"),
        ("label", np.full(50, 2**40, np.int64), "wrong type"),
        ("label", np.zeros(50, np.float32), "wrong type\n  expected: int32\n  found: float32"),
        ("image", np.zeros((50, 2, 3), np.float32), "wrong type\n  expected: uint8\n  found: float32"),
        ("image", np.zeros((50, 2, 4), np.uint8), "does not fit the model\n  expected: examples of shape (2, 3, 1)"),
        ("image", np.zeros((0, 2, 3), np.uint8), "is empty"),
        ("image", np.array(3, np.uint8), "is empty"),
    ],
)
def test_data_that_do_not_fit(name: str, array: np.ndarray | None, message: str, tmp_path: Path) -> None:
    program, data = tiny_program(), tiny_data()
    arrays = {**data.train.arrays, name: array}
    split = Split({key: value for key, value in arrays.items() if value is not None})
    folder = RunFolder.create("Tiny", program_text(program), tmp_path / "run")
    with pytest.raises(RuntimeUserError) as caught:
        train(program, replace(data, train=split), run_folder=folder, reporter=Reporter(quiet=True))
    assert message in str(caught.value)


SCRIPT = """
import sys
from pathlib import Path
from runtime.training.progress import Reporter
from runtime.training.run_folder import RunFolder
from runtime.training.trainer import Interrupted, train
from tests.runtime.tiny import program_text, tiny_data, tiny_program
path, pause, interval, epochs = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
program = tiny_program(pause=pause, epochs=epochs, checkpoint=interval)
text = program_text(program)
resuming = (path / "last.safetensors").exists()
folder = RunFolder.open(path) if resuming else RunFolder.create("Tiny", text, path)
start = folder.resume(program, text) if resuming else None
print("ready", flush=True)
try:
    train(program, tiny_data(), run_folder=folder, reporter=Reporter(), start=start)
except Interrupted as interruption:
    print(interruption)
    sys.exit(128 + interruption.signal)
"""


def start_training(folder: Path, pause: float, interval: int, epochs: int = 10**6) -> subprocess.Popen[str]:
    """Trains in another process, and resumes if there is a checkpoint; returns before it begins."""
    command = [sys.executable, "-c", SCRIPT, str(folder), str(pause), str(interval), str(epochs)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": "."}
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def await_file(path: Path) -> None:
    """Waits for the checkpoint of epoch 0: when it is written, signals are already handled."""
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize("interval", [1, 100])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("lines", [0, 2])
def test_a_signal_saves_the_last_completed_epoch(
    lines: int, number: signal.Signals, interval: int, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = start_training(folder, 0.004, interval)
    assert process.stdout is not None
    for _ in range(lines):
        process.stdout.readline()
    await_file(folder / "last.safetensors")
    time.sleep(0.02)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    finished = lines + printed.count("loss:")
    assert f'stopped by {number.name}; epoch {finished} is saved in "{folder}"' in printed
    program, summary, _ = run_tiny(folder, resume=True, epochs=finished + 2)
    assert summary.trained == 2
    assert contents(program) == contents(run_tiny(tmp_path / "whole", epochs=finished + 2)[0])


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    process = start_training(tmp_path / "run", 60, 1)
    await_file(tmp_path / "run" / "last.safetensors")
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None, "the first signal waits for the batch"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("interval", [1, 4])
def test_killed_at_random_moments(interval: int, tmp_path: Path) -> None:
    folder, random = tmp_path / "run", np.random.default_rng(interval)
    for _ in range(KILLS):
        process = start_training(folder, 0, interval)
        time.sleep(random.uniform(0.05, 0.15))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.communicate()
    # At least up to the epoch at whose end a run may have been killed, its best weights saved and its last ones not.
    epochs = checkpoint.load(folder / "last.safetensors", tiny_program()).epoch + max(3, interval)
    program, _, _ = run_tiny(folder, resume=True, epochs=epochs)
    assert contents(program) == contents(run_tiny(tmp_path / "whole", epochs=epochs)[0])
    assert epochs_logged(folder) == epochs_logged(tmp_path / "whole")
    best, best_of_whole = tiny_program(), tiny_program()
    position = checkpoint.load(RunFolder.open(folder).best, best)
    assert position.epoch == checkpoint.load(RunFolder.open(tmp_path / "whole").best, best_of_whole).epoch
    assert contents(best) == contents(best_of_whole)


def test_handlers_are_put_back_and_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Signals() as received:
            os.kill(os.getpid(), signal.SIGINT)
            assert not received
            os.kill(os.getpid(), signal.SIGTERM)
            assert received == [signal.SIGTERM]
            with pytest.raises(Interrupted):
                os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


def test_training_outside_the_main_thread(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        _, summary, _ = pool.submit(run_tiny, tmp_path / "run").result()
    assert summary.epochs == 3
