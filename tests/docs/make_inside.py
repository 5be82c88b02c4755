"""Updates docs/inside.md and docs/gpu.md: the blocks, each with the output of its command, and the tables.

    python tests/docs/make_inside.py

A block begins with its command; its first line selects the lines of the output to show: by number, or from the first
line that matches a pattern, with n more lines, or up to the next line that matches another pattern.

    ```console 1-3, /conv2d/ +2, /reshape/ to /matmul/
    $ nnc emit models/cnn.nn --stage graph
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from compiler.driver import (  # noqa: E402 this file is also a script
    compile_tree,
    load_tree,
)
from tests.cli.running import nnc  # noqa: E402
from tests.docs.launches import KINDS, count_launches, operations  # noqa: E402
from tests.programs import MODELS  # noqa: E402

DOCUMENTS = (ROOT / "docs/inside.md", ROOT / "docs/gpu.md")
BLOCK = re.compile(r"^```console(?P<lines>.*)\n\$ (?P<command>.*)\n(?:.*\n)*?```$", re.MULTILINE)
TABLE = re.compile(r"(?P<head><!-- (?P<name>kernels|launches) -->\n)(?:.*\n)*?(?=<!-- end -->)", re.MULTILINE)
PIECE = re.compile(
    r"(?:(?P<first>\d+)-(?P<last>\d+)|/(?P<pattern>.*?)/(?: \+(?P<more>\d+)| to /(?P<end>.*?)/)?)(?:, |$)"
)
WIDTH = 150
GRAPHS = ("train_step", "predict")
KERNELS = """\
| model | graph | as derived | for NumPy | of these in regions | launches on a GPU |
|---|---|---:|---:|---:|---:|
"""
LAUNCHES = """\
| model | graph | as derived | products | convolutions | other kernels | copies | in all |
|---|---|---:|---:|---:|---:|---:|---:|
"""


def rewritten(text: str) -> str:
    """The document with every block and every table regenerated."""
    text = BLOCK.sub(lambda match: block(match["lines"].strip(), match["command"]), text)
    return TABLE.sub(lambda match: match["head"] + TABLES[match["name"]](), text)


def block(lines: str, command: str) -> str:
    shown = "\n".join(excerpt(output(command), lines))
    return f"```console{' ' if lines else ''}{lines}\n$ {command}\n{shown}\n```"


@cache
def output(command: str) -> tuple[str, ...]:
    """The lines that a command prints; `cat` prints a file."""
    name, *arguments = shlex.split(command)
    if name == "cat":
        (path,) = arguments
        return tuple((ROOT / path).read_text().splitlines())
    assert name == "nnc", f"no command for a document: {command}"
    result = nnc(*arguments)
    assert result.code == 0, result.err
    return tuple(result.out.splitlines())


def excerpt(lines: tuple[str, ...], spec: str) -> Iterator[str]:
    """The selected lines, shortened if they are too long, with dots for lines left out in between."""
    chosen = [i for piece in PIECE.finditer(spec) for i in indices(lines, piece)] if spec else range(len(lines))
    before = -1
    for i in chosen:
        if i > before + 1:
            yield "…"
        before = i
        yield lines[i] if len(lines[i]) <= WIDTH else lines[i][: WIDTH - 1].rstrip() + "…"
    if before + 1 < len(lines):
        yield "…"


def indices(lines: tuple[str, ...], piece: re.Match[str]) -> range:
    if piece["first"]:
        return range(int(piece["first"]) - 1, int(piece["last"]))
    first = find(lines, piece["pattern"])
    return range(first, find(lines, piece["end"], first) if piece["end"] else first + 1 + int(piece["more"] or 0))


def find(lines: tuple[str, ...], pattern: str, after: int = -1) -> int:
    found = next((i for i in range(after + 1, len(lines)) if re.search(pattern, lines[i])), None)
    assert found is not None, f"no line has {pattern}: choose other lines for the document"
    return found


def kernel_table() -> str:
    """The operations of a step and a prediction, and how many are fused."""
    rows = []
    for model in MODELS:
        numpy, cupy = (compile_tree(load_tree(f"models/{model}.nn"), target=target) for target in ("numpy", "cupy"))
        for name in GRAPHS:
            graph = numpy.optimized[name]
            counts = [operations(numpy.module[name]), operations(graph), operations(graph, in_regions_only=True)]
            counts.append(count_launches(cupy.executable, name).total())
            rows.append(f"| {model} | {name} | {' | '.join(f'{count:,}' for count in counts)} |\n")
    return KERNELS + "".join(rows)


def launch_table() -> str:
    """What a step and a prediction launch on a GPU."""
    rows = []
    for model in MODELS:
        compiled = compile_tree(load_tree(f"models/{model}.nn"), target="cupy")
        for name in GRAPHS:
            counted = count_launches(compiled.executable, name)
            counts = [operations(compiled.module[name]), *(counted[kind] for kind in KINDS), counted.total()]
            rows.append(f"| {model} | {name} | {' | '.join(f'{count:,}' for count in counts)} |\n")
    return LAUNCHES + "".join(rows)


TABLES = {"kernels": kernel_table, "launches": launch_table}


def in_root(function: Callable[[str], str], text: str) -> str:
    """Runs a function in the folder of the project, since the output contains relative paths."""
    import contextlib

    with contextlib.chdir(ROOT):
        return function(text)


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(in_root(rewritten, document.read_text()))
