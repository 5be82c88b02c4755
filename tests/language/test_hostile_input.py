"""Any input quickly gives a tree or a diagnostic with its position, never another exception."""

import os
import random
import re
import time
from pathlib import Path

import pytest

from compiler.diagnostics import Diagnostics, UserError
from compiler.language.formatter import dump_tree, format_program
from compiler.language.parser import LARGEST_FILE, parse, parse_expression, read_source

LONGEST_TIME = 5.0  # seconds


def first_error(text: str) -> str:
    """The message of the first error, or an empty string, after the tree has been dumped, printed and parsed again."""
    diagnostics = Diagnostics()
    began = time.perf_counter()
    program = parse(text, "m.nn", diagnostics)
    dump_tree(program)
    printed = format_program(program)
    assert time.perf_counter() - began < LONGEST_TIME
    try:
        diagnostics.raise_if_any()
    except UserError as error:
        assert len(str(error)) < 50_000
        return error.diagnostics[0].message
    again = parse(printed, "m.nn", diagnostics)
    diagnostics.raise_if_any()
    assert again == program
    return ""


def body(text: str) -> str:
    return f"fn f(x) {{\n{text}\n}}\n"


BOMBS = {
    "parentheses": (body("x = " + "(" * 400_000), "brackets nest too deeply"),
    "closed parentheses": (body("x = " + "(" * 101 + "x" + ")" * 101), "brackets nest too deeply"),
    "lists": (body("x = " + "[" * 400_000), "brackets nest too deeply"),
    "calls": (body("x = " + "f(" * 200_000), "brackets nest too deeply"),
    "blocks": (body("if a {" * 50_000), "brackets nest too deeply"),
    "braces": ("{" * LARGEST_FILE, "syntax error"),
    "closers": (")" * LARGEST_FILE, "syntax error"),
    "sum": (body("x = " + " + ".join(["a"] * 5_000)), "expression or statement nests too deeply"),
    "powers": (body("x = " + "**".join(["a"] * 5_000)), "expression or statement nests too deeply"),
    "signs": (body("x = " + "-" * 50_000 + "a"), "expression or statement nests too deeply"),
    "chained calls": (body("x = f" + "()" * 20_000), "expression or statement nests too deeply"),
    "else if": (body("if a { }" + " else if a { }" * 10_000), "expression or statement nests too deeply"),
    "statements": (body("x = 1\n" * 150_000), "declaration too long"),
    "items": (body("x = [" + "1," * 400_000 + "]"), "declaration too long"),
    "declarations": ("fn f(x) { }\n" * 80_000, "more than 10000 declarations in a file"),
    "errors": ("fn f(x) { = }\n" * 70_000, "syntax error"),
    "semicolons": (";" * LARGEST_FILE, "syntax error"),
    "name": (body("x = " + "a" * 5_000), "token too long"),
    "string": (body('x = "' + "a" * 5_000 + '"'), "token too long"),
    "digits": (body("x = " + "1" * 900_000), "token too long"),
    "integer": (body("x = " + "1" * 19), "integer too long"),
    "infinity": (body("x = 1e999"), "number too large"),
    "quotes": ('"' * LARGEST_FILE, "syntax error"),
    "backslashes": (body('x = "' + "\\" * 900_000), "the string is not closed"),
    "letters": ("é" * 500_000, "not an ASCII character, outside strings and comments"),
    "file": ("#" * (LARGEST_FILE + 1), "m.nn is too large"),
    "NUL": (body("x = 1 # \0"), "control character in the source"),
    "escape sequence": (body('x = "\x1b[2J"'), "control character in the source"),
    "carriage return": (body("x = 1 # \r y = 2"), "control character in the source"),
    "bidirectional control": (body('x = "\u202e"'), "control character in the source"),
    "isolate in a comment": (body("# \u2066"), "control character in the source"),
    "line separator": (body("# \u2028 x = 1"), "control character in the source"),
    "second byte order mark": ("\ufeff\ufeff", "control character in the source"),
    "lone surrogate": (body('x = "\ud800"'), "control character in the source"),
    "homoglyph": (body("x = \u0430"), "not an ASCII character, outside strings and comments"),
    "other digits": (body("x = \u0661"), "not an ASCII character, outside strings and comments"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name: str) -> None:
    text, message = BOMBS[name]
    assert first_error(text) == message


@pytest.mark.parametrize(
    "text",
    [
        body("x = " + "(" * 98 + "a" + ")" * 98),
        body("x = " + "f(" * 98 + "a" + ")" * 98),
        body("x = " + " + ".join(["a"] * 190)),
        body("return x" + "\n|> f" * 190),
        body("return " + "a ** " * 190 + "-" * 4 + "a"),
        body("return " + "not " * 190 + "a"),
        body("if a { }" + " else if a { b = 1 }" * 190),
        body("x = __builtins__; np = None; inf = nan; self = exec; int = lambda"),
        body("x = [" + "1," * 20_000 + "]"),
        body("x = 1\r\n") + "# é \u4e2d\n" * 1000,
        body('x = "' + "a" * 4_000 + '"'),
        "\n" * LARGEST_FILE,
        "#" * LARGEST_FILE,
        " \t" * 100_000,
    ],
    ids=range(14),
)
def test_unusual_but_valid(text: str) -> None:
    assert first_error(text) == ""


WORDS = [
    "fn f(x) {",
    "metric F(p: f32[B]) {",
    "total a: f32[] =",
    "total",
    "layer A(n)(x: f32[B, ...]) {",
    "train M {",
    "import",
    '"',
    '"a"',
    "1",
    "1e",
    "2.5e-1",
    "\n",
    ";",
]
WORDS += [
    "x",
    "=",
    "+",
    "-",
    "|>",
    "**",
    "==",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "...",
    ".",
    "#",
    "\\",
    "\0",
    "é",
]
WORDS += ["return", "if", "else", "for", "in", "not", "and", "true", "param", "state", "cell", "optimizer", "\r\n", " "]


@pytest.mark.parametrize("seed", range(100))
def test_random_tokens(seed: int) -> None:
    rng = random.Random(seed)
    text = " ".join(rng.choice(WORDS) for _ in range(rng.choice([3, 30, 300])))
    first_error(text)
    try:
        parse_expression(text, "--set x", Diagnostics())
    except UserError as error:
        assert re.match(r"--set x:\d+:\d+: error: ", str(error))


@pytest.mark.parametrize("seed", range(100))
def test_mutated_sources(seed: int) -> None:
    rng = random.Random(seed)
    paths = sorted((Path(__file__).resolve().parents[2] / "compiler" / "std").glob("*.nn"))
    content = bytearray(rng.choice(paths).read_bytes())
    for _ in range(rng.choice([1, 3, 30])):
        position = rng.randrange(len(content))
        match rng.randrange(3):
            case 0:
                del content[position : position + rng.choice([1, 10, 100])]
            case 1:
                content[position] = rng.randrange(256)
            case 2:
                content[position:position] = content[rng.randrange(len(content)) :][: rng.choice([1, 10, 100])]
    first_error(content.decode("utf-8", errors="replace"))


def read(path: str | Path) -> tuple[str | None, str]:
    """The result of `read_source`, and its errors."""
    diagnostics = Diagnostics()
    text = read_source(path, diagnostics)
    try:
        diagnostics.raise_if_any()
    except UserError as error:
        return text, str(error)
    return text, ""


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", ""),
        (b"\xef\xbb\xbffn f(x) { return x }\r\n", ""),
        (b"# \xc3\xa9\n# \xff\n", "2:3: error: the file is not UTF-8\n  found: byte 0xff"),
        (b"\xff\xfef\x00n\x00", "1:1: error: the file is not UTF-8\n  found: byte 0xff"),
        (b"# \xed\xa0\x80", "1:3: error: the file is not UTF-8\n  found: byte 0xed"),
        (b"#" * (LARGEST_FILE + 1), "is too large\n  expected: at most 1000000 bytes"),
    ],
    ids=["empty", "BOM and CRLF", "Latin-1", "UTF-16", "surrogate", "large"],
)
def test_contents_of_files(tmp_path: Path, content: bytes, error: str) -> None:
    path = tmp_path / "m.nn"
    path.write_bytes(content)
    text, errors = read(path)
    assert errors.endswith(error) and str(path) in errors if error else (errors == "" and text is not None)
    if text is not None:
        assert first_error(text) == ""


def test_paths_that_are_not_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "real.nn").write_text("# fine", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "real.nn")
    cases: dict[str | Path, str] = {
        tmp_path: "a directory",
        tmp_path / "missing.nn": "no such file or directory",
        tmp_path / "real.nn" / "x": "not a directory",
        tmp_path / "fifo": "not a regular file",
        "/dev/zero": "not a regular file",
        tmp_path / "loop": "too many levels of symbolic links",
        "a\0b": "embedded null byte",
        "a" * 5000: "file name too long",
    }
    for path, reason in cases.items():
        text, errors = read(path)
        assert text is None
        assert errors.startswith("error: cannot read ") and f"found: {reason}" in errors
    assert read(tmp_path / "link") == ("# fine", "")
