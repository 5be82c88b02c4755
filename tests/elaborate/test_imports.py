"""Imports: the declarations that they add, circles, repetitions and missing files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from compiler.diagnostics import UserError
from compiler.driver import compile_file

MODEL = "model M(x: f32[B, 4]) { return x |> Own(3) }\n"
LAYER = "layer Own(units)(x: f32[B, n]) { return x |> Dense(units) |> relu }\n"


def build(folder: Path, files: Mapping[str, str]) -> Path:
    """Writes the files; the first one is the program."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / next(iter(files))


@pytest.mark.parametrize(
    "files",
    [
        {"a.nn": 'import "b.nn"\n' + MODEL, "b.nn": LAYER},
        {"a.nn": 'import "parts/b.nn"\n' + MODEL, "parts/b.nn": 'import "../c.nn"\n', "c.nn": LAYER},
        {"a.nn": 'import "b.nn"\nimport "c.nn"\n' + MODEL, "b.nn": 'import "c.nn"\n', "c.nn": LAYER},
        {"a.nn": 'import "b.nn"\nimport "./b.nn"\n' + MODEL, "b.nn": LAYER},
        {"a.nn": 'import "b.nn"\n' + MODEL, "b.nn": LAYER + "model Other(x: f32[B, 4]) { return x }\n"},
        {"a.nn": 'import "b.nn"\nfn relu(x) { return x }\n' + MODEL, "b.nn": LAYER},
        {"a.nn": 'import "b.nn"\n', "b.nn": LAYER + MODEL},
    ],
    ids=["a layer", "folders", "the same twice", "by another path", "with a model", "over the library", "the model"],
)
def test_declarations_of_other_files(tmp_path: Path, files: Mapping[str, str]):
    compiled = compile_file(build(tmp_path, files))
    assert compiled.model.name == "M" and "own_1.dense_1.w" in compiled.model.variables.by_name


@pytest.mark.parametrize(
    ("files", "line", "message"),
    [
        ({"a.nn": 'import "none.nn"\n' + MODEL}, 1, "cannot read"),
        ({"a.nn": '\nimport "."\n' + MODEL}, 2, "cannot read"),
        ({"a.nn": 'import "/etc/passwd"\n' + MODEL}, 1, "an import must be a relative path"),
        ({"a.nn": 'import "a.nn"\n' + MODEL + LAYER}, 1, "the imports form a circle"),
        ({"a.nn": 'import "b.nn"\n' + MODEL + LAYER, "b.nn": '#\nimport "a.nn"\n'}, 2, "form a circle"),
        ({"a.nn": 'import "b.nn"\n' + MODEL + LAYER, "b.nn": LAYER}, 3, "Own is declared twice"),
        ({"a.nn": 'import "b.nn"\n' + MODEL, "b.nn": LAYER.replace("Dense", "Dence")}, 1, "unknown layer Dence"),
        ({"a.nn": 'import "b.nn"\n' + MODEL, "b.nn": "layer Own(units {"}, 1, "syntax error"),
    ],
    ids=["missing", "a folder", "absolute", "itself", "a circle", "declared twice", "mistake inside", "syntax inside"],
)
def test_mistakes(tmp_path: Path, files: Mapping[str, str], line: int, message: str):
    with pytest.raises(UserError) as raised:
        compile_file(build(tmp_path, files))
    first = raised.value.diagnostics[0]
    assert message in first.message and first.span and first.span.line == line, str(raised.value)
    assert f"{first.span.line} | " in str(raised.value)  # the line of the file that has the mistake


def test_an_unreadable_import_says_why(tmp_path: Path):
    path = build(tmp_path, {"a.nn": 'import "b.nn"\n' + MODEL})
    (tmp_path / "b.nn").write_bytes(b"layer \xff")
    with pytest.raises(UserError, match="the file is not UTF-8"):
        compile_file(path)


def test_a_long_chain_of_files(tmp_path: Path):
    files = {f"{i}.nn": f'import "{i + 1}.nn"\n' for i in range(60)} | {"60.nn": LAYER + MODEL}
    with pytest.raises(UserError, match="circle"):
        compile_file(build(tmp_path, files))
    files = {f"{i}.nn": f'import "{i + 1}.nn"\n' for i in range(40)} | {"40.nn": LAYER + MODEL}
    assert compile_file(build(tmp_path / "shorter", files)).model.name == "M"
