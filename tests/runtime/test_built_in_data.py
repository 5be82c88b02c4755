"""The built-in data sets: their contents, where they are searched for, and downloads."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import urllib.error
from pathlib import Path

import numpy as np
import pytest

from runtime.datasets import digits, download, load, mnist
from runtime.errors import RuntimeUserError, quoted


@pytest.fixture(autouse=True)
def nobodys_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No data of the developer, and no network."""
    monkeypatch.delenv("NNC_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def offline(url: str) -> io.BytesIO:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(download, "open_url", offline)


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def mnist_files(train: int = 6, test: int = 4) -> dict[str, bytes]:
    """The four files of a tiny MNIST, unzipped, by their usual names."""
    files = {}
    for stem, rows in (("train", train), ("t10k", test)):
        images = np.arange(rows * 784, dtype=np.uint8).reshape(rows, 28, 28)
        files[f"{stem}-images-idx3-ubyte"] = idx(images)
        files[f"{stem}-labels-idx1-ubyte"] = idx(np.arange(rows, dtype=np.uint8) % 10)
    return files


def write_mnist(folder: Path, suffix: str = ".gz") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in mnist_files().items():
        (folder / (name + suffix)).write_bytes(gzip.compress(content) if suffix else content)
    return folder


# digits


def test_digits_are_the_same_bytes_on_every_machine():
    data = load("digits")
    checksum = hashlib.sha256()
    for split, rows in ((data.train, 12_000), (data.test, 2_000)):
        assert {name: (array.shape, array.dtype.name) for name, array in split.arrays.items()} == {
            "image": ((rows, 28, 28), "uint8"),
            "label": ((rows,), "uint8"),
        }
        for array in split.arrays.values():
            checksum.update(array.tobytes())
    assert checksum.hexdigest() == "cc7db10b0338a28a2e8c8cd7be96d468e30924788f8756551687ba434d67d17b"


def test_digits_can_be_learned_but_not_by_a_linear_model_alone():
    data = load("digits")
    image, label = data.train.arrays["image"].reshape(-1, 784) / np.float32(255), data.train.arrays["label"]
    weights = np.zeros((784, 10), np.float32)
    for _ in range(5):
        for start in range(0, len(label), 128):
            x, y = image[start : start + 128], label[start : start + 128]
            scores = np.exp(x @ weights)
            slope = scores / scores.sum(1, keepdims=True) - np.eye(10, dtype=np.float32)[y]
            weights -= 0.1 / len(y) * x.T @ slope
    found = (data.test.arrays["image"].reshape(-1, 784) @ weights).argmax(1)
    assert 0.70 < (found == data.test.arrays["label"]).mean() < 0.97


def test_digits_do_not_depend_on_how_many_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch):
    sheet = digits.Sheet(key=7, writers=3, images=50)
    together = digits.draw_sheet(sheet).arrays["image"]
    monkeypatch.setattr(digits, "IMAGES_AT_ONCE", 8)
    assert np.array_equal(digits.draw_sheet(sheet).arrays["image"], together)


# MNIST


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("subfolder", ["", "mnist", "MNIST/raw"])
def test_mnist_is_found_in_data_dir(tmp_path: Path, suffix: str, subfolder: str):
    write_mnist(tmp_path / subfolder, suffix)
    said: list[str] = []
    data = load("mnist", tmp_path, said.append)
    assert data.train.arrays["image"].shape == (6, 28, 28)
    assert data.test.arrays["label"].tolist() == [0, 1, 2, 3]
    assert data.train.arrays["image"].tobytes() == mnist_files()["train-images-idx3-ubyte"][16:]
    assert len(said) == 1
    assert "reading MNIST from" in said[0]


def test_mnist_is_found_under_the_other_spelling(tmp_path: Path):
    for name, content in mnist_files().items():
        (tmp_path / name.replace("-idx", ".idx")).write_bytes(content)
    assert len(load("mnist", tmp_path).train) == 6


def test_mnist_is_searched_for_in_data_dir_then_environment_then_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "empty").mkdir()
    write_mnist(Path(mnist.cache_folder()))
    assert len(load("mnist", tmp_path / "empty").train) == 6
    monkeypatch.setenv("NNC_DATA", str(write_mnist(tmp_path / "environment")))
    said: list[str] = []
    load("mnist", tmp_path / "empty", said.append)
    assert "environment" in said[0]
    load("mnist", write_mnist(tmp_path / "argument"), said.append)
    assert "argument" in said[1]


def test_mnist_offline_reports_missing_files_places_and_alternatives(tmp_path: Path):
    with pytest.raises(RuntimeUserError) as error:
        load("mnist", tmp_path)
    text = str(error.value)
    assert all(f"{name}.gz" in text for name in mnist_files())
    assert quoted(str(tmp_path)) in text
    assert quoted(mnist.cache_folder()) in text
    assert "no network" in text
    assert all(way in text for way in ("--data-dir", "NNC_DATA", "--data digits"))


@pytest.mark.parametrize("source", ["--data-dir", "NNC_DATA"])
def test_mnist_does_not_look_past_a_folder_that_does_not_exist(source: str, monkeypatch: pytest.MonkeyPatch):
    write_mnist(Path(mnist.cache_folder()))
    monkeypatch.setenv("NNC_DATA", "/no/such/folder" if source == "NNC_DATA" else "")
    with pytest.raises(RuntimeUserError, match=f"{source} is not a folder"):
        load("mnist", "/no/such/folder" if source == "--data-dir" else None)


def test_mnist_does_not_look_past_a_folder_with_a_part_of_it(tmp_path: Path):
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(RuntimeUserError, match="has only a part of MNIST") as error:
        load("mnist", tmp_path)
    assert error.value.expected == "also t10k-labels-idx1-ubyte.gz, zipped or not"


def test_mnist_labels_must_be_one_per_image(tmp_path: Path):
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(5, np.uint8)))
    with pytest.raises(RuntimeUserError, match="does not belong to"):
        load("mnist", tmp_path)


# Downloads


def serve(monkeypatch: pytest.MonkeyPatch, contents: dict[str, bytes]) -> list[str]:
    """Answers requests from `contents`, by the last part of the address; returns the list of requested addresses."""
    asked: list[str] = []

    def respond(url: str) -> io.BytesIO:
        asked.append(url)
        if (name := url.rsplit("/", 1)[1]) not in contents:
            raise urllib.error.URLError("not found")
        return io.BytesIO(contents[name])

    monkeypatch.setattr(download, "open_url", respond)
    return asked


def test_mnist_is_downloaded_once(monkeypatch: pytest.MonkeyPatch):
    asked = serve(monkeypatch, {f"{name}.gz": gzip.compress(content) for name, content in mnist_files().items()})
    monkeypatch.setattr(mnist, "_check_download", lambda path, file: None)
    said: list[str] = []
    first = load("mnist", report=said.append)
    again = load("mnist", report=said.append)
    assert len(asked) == len(said) == 4
    assert all(url.startswith("https://") for url in asked)
    assert np.array_equal(first.train.arrays["image"], again.train.arrays["image"])
    assert sorted(path.name for path in Path(mnist.cache_folder()).iterdir()) == sorted(
        f"{n}.gz" for n in mnist_files()
    )


def test_mnist_download_must_be_mnist_to_the_byte(monkeypatch: pytest.MonkeyPatch):
    asked = serve(monkeypatch, {f"{name}.gz": gzip.compress(content) for name, content in mnist_files().items()})
    with pytest.raises(RuntimeUserError, match="cannot be downloaded") as error:
        load("mnist")
    assert "not the published train-images-idx3-ubyte" in str(error.value)
    assert len(asked) == len(mnist.MIRRORS)
    assert list(Path(mnist.cache_folder()).iterdir()) == []


def test_checksums_are_of_the_unzipped_content(tmp_path: Path):
    content = mnist_files()["t10k-labels-idx1-ubyte"]
    file = mnist.IdxFile("t10k-labels", (4,), hashlib.sha256(content).hexdigest())
    path = tmp_path / "labels.gz"
    for level in (1, 9):
        path.write_bytes(gzip.compress(content, level))
        mnist._check_download(str(path), file)
    path.write_bytes(gzip.compress(content + b"\0"))
    with pytest.raises(RuntimeUserError):
        mnist._check_download(str(path), file)


@pytest.mark.parametrize("content", [b"good", b"too long by far", b"bad"])
def test_a_download_appears_complete_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes):
    def verify(path: str) -> None:
        assert Path(path).parent == tmp_path
        if Path(path).read_bytes() != b"good":
            raise RuntimeUserError("not what was wanted")

    serve(monkeypatch, {"x": content})
    target = tmp_path / "x"
    if content == b"good":
        download.fetch("https://host/x", str(target), 10, verify, print)
        assert target.read_bytes() == b"good"
    else:
        with pytest.raises(RuntimeUserError):
            download.fetch("https://host/x", str(target), 10, verify, print)
        assert list(tmp_path.iterdir()) == []


def test_an_interrupted_download_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    serve(monkeypatch, {"x": b"content"})

    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download.fetch("https://host/x", str(tmp_path / "x"), 10, lambda path: None, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_no_download_and_no_redirect_without_https(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    with pytest.raises(RuntimeUserError, match="without https"):
        download.open_url("http://host/x")
    with pytest.raises(RuntimeUserError, match="without https"):
        download.HttpsOnly().redirect_request(None, None, 302, "", None, "http://host/x")  # pyright: ignore


# The user's own arrays
