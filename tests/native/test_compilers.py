"""Compilers that are missing or broken, and folders for libraries that are damaged, full or not private."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import tests.native.compiler_or_skip  # noqa: F401
from runtime.errors import RuntimeUserError
from runtime.native import compilers, library, threads
from runtime.native.folder import library_folder, temporary_folder
from tests.cli.running import nnc
from tests.native.graphs import NUMBERS, adding
from tests.programs import ROOT


def script(path: Path, text: str) -> str:
    """A compiler that says its version and then does what the text says."""
    path.write_text(f'#!/bin/sh\ncase "$*" in *--version*) echo "test 1.0"; exit 0;; esac\n{text}\n')
    path.chmod(0o755)
    return str(path)


def failure() -> RuntimeUserError:
    with pytest.raises(RuntimeUserError) as caught:
        library.find_compiler()
    assert "without --native it runs on NumPy" in str(caught.value)
    return caught.value


def run_once() -> None:
    graph, arena, numbers = adding()
    graph(arena, NUMBERS)
    assert (numbers[:NUMBERS] == 3).all()


# Compilers ------------------------------------------------------------------------------------------------------------


def test_no_compiler(fresh: pytest.MonkeyPatch, tmp_path: Path):
    fresh.delenv("CC", raising=False)
    fresh.setenv("PATH", str(tmp_path))
    fresh.setattr(compilers, "ZIG", "a_package_that_does_not_exist")
    message = str(failure())
    assert message.startswith("error: no working C compiler was found")
    assert "found: none" in message and "pip install 'nnc-compiler[native]'" in message


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("false", "exit code 1"),
        ("/nowhere/cc", "No such file"),
        ("'unmatched", "No such file"),
        ("gcc --no-such-flag", "no-such-flag"),
        ("sh -c 'exit 0'", "no library"),
    ],
)
def test_a_broken_compiler(command: str, found: str, fresh: pytest.MonkeyPatch):
    fresh.setenv("CC", command)
    message = str(failure())
    assert message.startswith("error: the C compiler in CC does not work") and "unset CC" in message
    assert found in message


def test_the_next_compiler_is_tried(fresh: pytest.MonkeyPatch, tmp_path: Path):
    known = next(compilers.candidates())
    fresh.delenv("CC", raising=False)
    broken = script(tmp_path / "cc", 'echo "error: no headers" >&2; exit 1')
    fresh.setattr(library, "candidates", lambda: iter([(broken,), known]))
    assert library.find_compiler()[0].command == known


def test_a_compiler_for_another_machine(fresh: pytest.MonkeyPatch, tmp_path: Path):
    fresh.setenv("CC", script(tmp_path / "cc", f"{copy_to_output(tmp_path, 'not a library')}"))
    library.find_compiler()
    library.pool.cache_clear()
    with pytest.raises(RuntimeUserError, match="cannot be loaded"):
        library.pool()
    library.pool.cache_clear()


def copy_to_output(folder: Path, text: str) -> str:
    """Shell text that writes a file where the last -o says."""
    source = folder / "output"
    source.write_text(text)
    return f'while [ "$1" != -o ]; do shift; done; cat {source} > "$2"'


def test_a_text_that_does_not_compile(fresh: pytest.MonkeyPatch):
    graph = library.Graph('#include "step.h"\nvoid f(const Step *s) { nonsense; }', "f", 0)
    with pytest.raises(RuntimeUserError, match="nonsense") as caught:
        graph(adding()[1], 1)
    assert "internal error" in str(caught.value)


def test_names_of_versions_and_flags(fresh: pytest.MonkeyPatch):
    usual = compilers.described(next(compilers.candidates()))
    assert usual.version and "-std=gnu11" in usual.flags
    fresh.setenv("NNC_SCALAR", "1")
    fresh.setenv("NNC_MARCH", "x86-64-v3")
    changed = compilers.described(usual.command)
    assert "-DNNC_SCALAR" in changed.flags and "-march=x86-64-v3" in changed.flags
    assert changed.identity() != usual.identity()
    assert compilers.flags_for(True) != changed.flags and "-march=x86_64_v3" in compilers.flags_for(True)


# The folder -----------------------------------------------------------------------------------------------------------


def test_a_library_is_compiled_once(fresh: pytest.MonkeyPatch):
    run_once()
    fresh.setattr(library, "compile_text", lambda *arguments: pytest.fail("it is compiled again"))
    run_once()


def test_the_files_of_the_folder(fresh: pytest.MonkeyPatch):
    run_once()
    folder = library_folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(path.suffix for path in folder.iterdir()) == [".sha256", ".sha256", ".so", ".so"]


@pytest.mark.parametrize("damage", [b"", b"another library"])
def test_a_damaged_library_is_compiled_again(damage: bytes, fresh: pytest.MonkeyPatch):
    compiler = library.find_compiler()[0]
    text = '#include "step.h"\nvoid f(const Step *s) {}'
    path = library.library_of(text, compiler)
    content = path.read_bytes()
    path.write_bytes(damage)
    assert library.library_of(text, compiler) == path
    assert path.read_bytes() == content
    library.hash_file(path).unlink()
    library.library_of(text, compiler)
    assert library.is_whole(path)


@pytest.mark.parametrize("which", ["native", "cache"])
def test_a_folder_that_others_can_write_to(which: str, fresh: pytest.MonkeyPatch, tmp_path: Path):
    folder = tmp_path / "cache" / "native"
    folder.mkdir(parents=True, mode=0o700)
    {"native": folder, "cache": folder.parent}[which].chmod(0o777)
    message = str(failure())
    assert "others can write" in message and "chmod go-w" in message


def test_a_folder_of_another_user(fresh: pytest.MonkeyPatch):
    own = os.getuid()
    fresh.setattr(os, "getuid", lambda: own + 1)
    assert "belongs to another user" in str(failure())


def test_a_full_disk(fresh: pytest.MonkeyPatch, tmp_path: Path):
    says = "fatal error: error writing to /tmp/x.s: No space left on device"
    fresh.setenv("CC", script(tmp_path / "cc", f'echo "{says}" >&2; exit 1'))
    message = str(failure())
    assert "cannot keep compiled programs" in message and "No space left on device" in message


def test_a_folder_that_cannot_be_made(fresh: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "file").write_text("")
    fresh.setenv("NNC_CACHE", str(tmp_path / "file"))
    assert "NNC_CACHE" in str(failure())


def test_a_read_only_folder(fresh: pytest.MonkeyPatch):
    def refuse(*arguments: object) -> None:
        raise OSError(30, "Read-only file system")

    fresh.setattr(library, "compile_text", refuse)
    assert "Read-only file system" in str(failure())


def test_without_a_cache(fresh: pytest.MonkeyPatch):
    fresh.setenv("NNC_CACHE", "off")
    folder = library_folder()
    assert folder == temporary_folder() and stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_old_libraries_are_removed(fresh: pytest.MonkeyPatch):
    compiler = library.find_compiler()[0]
    fresh.setattr(library, "MOST_LIBRARIES", 2)
    for number in range(4):
        library.library_of(f'#include "step.h"\nvoid f{number}(const Step *s) {{}}', compiler)
    assert sorted(path.suffix for path in library_folder().iterdir()) == [".sha256"] * 2 + [".so"] * 2


# The number of threads, and flags -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0", "-1", "many", "256", "²"])
def test_a_wrong_number_of_threads(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NNC_THREADS", text)
    with pytest.raises(RuntimeUserError, match="NNC_THREADS is not a number of threads"):
        threads.threads()
    with pytest.raises(RuntimeUserError, match="--threads is not"):
        threads.choose(text)


def test_the_flag_is_before_the_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threads, "chosen", 0)
    assert threads.threads() == threads.available()
    monkeypatch.setenv("NNC_THREADS", "3")
    assert threads.threads() == 3
    threads.choose("5")
    assert threads.threads() == 5


def test_flags_that_need_native():
    result = nnc("eval", "softmax", "--threads", "2")
    assert (result.code, "--threads needs --native" in result.err) == (2, True)
    result = nnc("train", "softmax", "--native", "--gpu", "--threads", "0")
    assert result.code == 2


def test_a_default_target_that_does_not_exist(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NNC_TARGET", "cup")
    result = nnc("check", "softmax")
    assert result.code == 2 and "NNC_TARGET names no target" in result.err and '"cupy"' in result.err


def test_the_command_without_a_compiler():
    """An error with both ways out, and exit code 2."""
    environment = {**os.environ, "CC": "/nowhere/cc", "NNC_CACHE": "off"}
    command = [sys.executable, "-m", "compiler", "train", "softmax", "--native", "--data", "digits"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "the C compiler in CC does not work" in result.stderr and "without --native" in result.stderr
