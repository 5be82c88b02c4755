"""A C file that trains a model without Python, with the losses of `--native`, bit for bit; its weights are a second
file.

The functions of the graphs are those of targets/c/writer.py. The headers that they need, the pool of threads, and the
parts in runtime/native/standalone (data, training, checkpoint) are written into the file; tables describe the model.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

from compiler.ir.graph import Module, Value
from compiler.ir.types import BYTES, TensorType
from compiler.planning.memory import Plan
from compiler.planning.program import PlacedVariable, plan_module
from compiler.targets.c.placement import PLACEMENT
from compiler.targets.c.writer import INCLUDES, GraphText
from runtime.datasets import BUILT_IN
from runtime.feeding import averaged
from runtime.native.compilers import FLAGS, HEADERS
from runtime.program import FIRST_EXAMPLE, METRICS, PREPARE, Executable, LoadedProgram, Manifest

GRAPHS = ("train_step", PREPARE, "evaluate", METRICS)  # needed for training
USES = ("train_step", "evaluate")
HEADERS_OF_GRAPHS = (*(name for name in INCLUDES if name != "templates.h"), "products.h", "convolutions.h")
ALWAYS = ("regions.h", "functions.h")
PARTS = ("errors", "tables"), ("main",)  # of runtime/native/standalone, before and after the tables
WEIGHTS_START = "nnc weights 1"
OF_LIBRARIES = ("-shared", "-fPIC")
INCLUDE = re.compile(r'#include "(.*)"')
DEFINED = re.compile(r"^(?:INLINE|UNUSED|TEMPLATE|static)\b[^;=]*?\b(\w+)\(|\bOF\((\w+)\)", re.MULTILINE)
COMBINATIONS = {"sum": "ADD", "max": "LARGEST", "min": "SMALLEST"}
COMMENT = """/* Trains the model {model} of {file}, with the losses of `nnc train --native` on as many threads.

   {command}
   ./{stem} FOLDER --epochs {epochs}

   On arm64, -mcpu=native in place of the two flags with `=native` and `=512`. FOLDER has the four files of MNIST, or a
   .npy file for each input and target. The initial weights are in {weights}. Written by nnc. */
#define _GNU_SOURCE /* sched_setaffinity */"""


def standalone(
    file: str,
    manifest: Manifest,
    module: Module,
    data: str,
    name: str,
    about: str,
    executable: Executable,
    program: str,
) -> dict[str, bytes]:
    """The files by name: a program called `name` that trains the model of `file`, by default on the folder `data`, and
    its initial weights.

    `about` is what it prints about arrays and parameters; `program` is the hash of the program, for checkpoints.
    """
    others = [graph for graph in module if graph not in GRAPHS]
    plans, variables = plan_module(module, manifest.settings.batch, PLACEMENT, others)
    folded = {value.name for plan in plans for value in plan.graph.of_kind("folded")}
    kept = sorted(variable for variable in variables if variable[0] not in folded)
    assert executable.initializer is not None
    host = LoadedProgram(executable.initializer, manifest)
    host.initialize(manifest.settings.seed)
    values = host.variables()
    content = b"".join(values[variable].tobytes() for variable, _, _ in kept)
    digest = hashlib.sha256(content).hexdigest()
    stem = PurePath(name).stem
    weights = f"{stem}.weights"
    folder = None if data in BUILT_IN or not os.path.isdir(data) else data
    names = {"DATA": folder, "MODEL": manifest.model, "SAVED": f"{stem}.safetensors", "WEIGHTS": weights}
    texts = {**names, "ABOUT": about, "WEIGHTS_SHA256": digest, "PROGRAM_HASH": program}
    texts |= {"MODEL_JSON": json.dumps(manifest.model), "SETTINGS_JSON": json.dumps(asdict(manifest.settings))}
    writers = [GraphText(plan, {v: at for v, _, at in variables}, prefix=f"{plan.graph.name}_") for plan in plans]
    for writer in writers:
        writer.write()
    flags = " ".join(flag for flag in FLAGS if flag not in OF_LIBRARIES)
    command = (
        f"cc {flags} -march=native -mprefer-vector-width=512 {shlex.quote(name)} -o {shlex.quote(stem)} -lm -lpthread"
    )
    filled = {"model": manifest.model, "file": file, "stem": stem, "weights": weights, "command": command}
    head = COMMENT.format(**{key: plain(text) for key, text in filled.items()}, epochs=manifest.settings.epochs)
    body = [line for writer in writers for line in ("", *writer.c_lines())]
    seen: set[str] = set()
    lines = [
        *head.split("\n"),
        *(line for header in needed(body) for line in inlined(header, seen)),
        *body,
        *inlined("pool.c", seen),
        *(line for part in PARTS[0] for line in inlined(f"standalone/{part}.h", seen)),
        *settings_lines(manifest, texts, plans, writers),
        *tables(manifest, plans, writers, kept),
        *(line for part in PARTS[1] for line in inlined(f"standalone/{part}.h", seen)),
    ]
    start = f"{WEIGHTS_START}\n{digest}\n".encode()
    return {name: ("\n".join(lines) + "\n").encode(), weights: start + content}


def plain(text: str) -> str:
    """Untrusted text in a comment."""
    return re.sub(r"[^ -~]|[*\\?]", "_", text)


# Headers --------------------------------------------------------------------------------------------------------------


def inlined(name: str, seen: set[str]) -> list[str]:
    """The lines of a header of runtime/native with those that it includes; none if it has been written already."""
    here = HEADERS / name
    path = here if here.exists() else HEADERS / "standalone" / name
    text = path.read_text("utf-8")
    if "#pragma once" in text and path.name in seen:
        return []
    seen.add(path.name)
    lines: list[str] = [""]
    for line in text.splitlines():
        if match := INCLUDE.fullmatch(line):
            lines += inlined(match[1], seen)
        elif line != "#pragma once":
            lines.append(line)
    return lines


def needed(lines: Iterable[str]) -> list[str]:
    """The headers whose functions the lines use, in the order of the writer."""
    words = {word for line in lines for word in re.findall(r"\w+", line)}
    found: list[str] = []
    for name in reversed(HEADERS_OF_GRAPHS):
        text = "\n".join(inlined(name, set()))
        defined = {word for match in DEFINED.findall(text) for word in match if word}
        if name in ALWAYS or not words.isdisjoint(defined):
            found.insert(0, name)
            words |= {*re.findall(r"\w+", text)} if name not in ALWAYS else set()
    return found


# Tables ---------------------------------------------------------------------------------------------------------------


def text_of(value: Any) -> str:
    """A text as a string of C; 0 for None."""
    if value is None:
        return "0"
    plain_bytes = {byte: chr(byte) for byte in range(32, 127) if chr(byte) not in '"\\?'}
    return '"' + "".join(plain_bytes.get(byte) or f"\\{byte:03o}" for byte in value.encode()) + '"'


def settings_lines(
    manifest: Manifest, texts: dict[str, str | None], plans: Sequence[Plan], writers: Sequence[GraphText]
) -> list[str]:
    chosen = manifest.settings
    numbers = {
        "BATCH": f"{chosen.batch}L",
        "EPOCHS": chosen.epochs,
        "SEED": f"{chosen.seed}LL",
        "SHUFFLE": int(chosen.shuffle),
        "PATIENCE": 0 if chosen.patience is None else max(chosen.patience, 1),
        "VALIDATION": repr(chosen.validation or 0.0),
        "ARENA_BYTES": f"{max(plan.size for plan in plans)}L",
        "WORKSPACE_BYTES": f"{max(map(workspace_bytes, writers))}L",
    }
    shown = {**{key: text_of(text) for key, text in texts.items()}, **numbers}
    return ["", "/* Settings */", *(f"#define {key} {value}" for key, value in shown.items())]


def workspace_bytes(writer: GraphText) -> int:
    return -(-writer.workspace // 64) * 64


def tables(
    manifest: Manifest, plans: Sequence[Plan], writers: Sequence[GraphText], variables: Sequence[PlacedVariable]
) -> list[str]:
    """Tables of variables, inputs, loss and metrics, totals, checks and graphs."""
    of = {writer.graph.name: writer for writer in writers}
    follow = of.get(METRICS)
    inputs = [spec.name for spec in (*manifest.inputs, *manifest.targets)]
    rows = {
        "Variable": ("variables", "VARIABLES", [variable_row(*each) for each in variables]),
        "Input": ("inputs", "INPUTS", [input_row(name, of, manifest) for name in inputs]),
        "Figure": ("figures", "FIGURES", []),
        "Total": ("totals_of_metrics", "TOTALS", []),
        "Check": ("checks", "CHECKS", []),
    }
    means, first = averaged(manifest.metrics, manifest.totals), 0
    for name in ("loss", *manifest.metrics):
        last = follow.graph.outputs.get(name) if follow else None
        row, count = figure_row(name, name in means, last, first, of)
        rows["Figure"][2].append(row)
        first += count
    results, first = first, 0
    for name, how in manifest.totals.items():
        type = of["train_step"].graph.outputs[name].type
        (last,) = [value for value in of[METRICS].graph.of_kind("total") if value.name == name]
        fields = (type_name(type), f"{extent(type)}L", f"{first}L", COMBINATIONS[how], result_places(name, of))
        rows["Total"][2].append(braced(*fields, place_of_input(of[METRICS], last), type_name(last.type)))
        first += extent(type)
    for name, check in manifest.checks.items():
        places = result_places(name, of)
        layer = (text_of(check.place), text_of(check.layer), check.size, check.each)
        rows["Check"][2].append(braced(places, *layer))
    lines = ["", f"#define RESULTS {results}", f"#define TOTAL_NUMBERS {first}"]
    for kind, (name, count, entries) in rows.items():
        lines += ["", f"#define {count} {len(entries)}", f"static const {kind} {name}[{count} + 1] = {{"]
        lines += [*(f"    {entry}," for entry in entries), "};"]
    return [*lines, "", *graph_lines(of)]


def graph_lines(of: dict[str, GraphText]) -> list[str]:
    lines = []
    for graph, name in (("train_step", "train"), (PREPARE, "prepare"), ("evaluate", "evaluate"), (METRICS, "metrics")):
        writer = of.get(graph)
        fields = "0, 0, -1"
        if writer:
            first = [value for value in writer.graph.inputs if value.name == FIRST_EXAMPLE]
            place = place_of_input(writer, first[0]) if first else "-1"
            fields = f"{graph}, {workspace_bytes(writer)}L, {place}"
        lines.append(f"static const Graph {name}_graph = {{{fields}}};")
    return lines


def braced(*fields: Any) -> str:
    return "{" + ", ".join(map(str, fields)) + "}"


def type_name(type: TensorType) -> str:
    return f"TYPE_{type.dtype.upper()}"


def extent(type: TensorType) -> int:
    return math.prod(int(size) for size in type.shape)  # type: ignore[arg-type]  # no B


def place_of_input(writer: GraphText, value: Value) -> str:
    return f"{writer.plan.block(value).offset}L"


def variable_row(name: str, type: TensorType, offset: int) -> str:
    quoted, shape = json.dumps(name), json.dumps(list(type.shape))
    size = extent(type) * BYTES[type.dtype]
    return braced(text_of(name), text_of(quoted), type_name(type), text_of(shape), f"{offset}L", f"{size}L")


def input_row(name: str, of: dict[str, GraphText], manifest: Manifest) -> str:
    found = {use: value for use in USES for value in of[use].graph.inputs if value.name == name}
    type = next(iter(found.values())).type
    shape = [int(size) for size in type.shape[1:]]  # type: ignore[arg-type]
    places = braced(*(place_of_input(of[use], found[use]) if use in found else "-1" for use in USES))
    classes = manifest.classes.get(name, 0)
    return braced(text_of(name), type_name(type), f"{math.prod(shape)}L", text_of(str(shape)), classes, places)


def result_places(name: str, of: dict[str, GraphText]) -> str:
    """The places of a result of both graphs."""
    outputs = [(of[use], of[use].graph.outputs.get(name)) for use in USES]
    return braced(*(f"{writer.place(value)}L" if value is not None else "-1" for writer, value in outputs))


def figure_row(name: str, mean: bool, last: Value | None, first: int, of: dict[str, GraphText]) -> tuple[str, int]:
    """The row of the loss or a metric, and how many numbers it has; `last` is what follows from totals."""
    shape = [] if last is None else [int(size) for size in last.type.shape]  # type: ignore[arg-type]
    rows, columns = (1, *shape)[-2:] if shape else (1, 1)
    type = type_name(of["train_step"].graph.outputs[name].type) if mean else "TYPE_F32"
    places = result_places(name, of) if mean else "{-1, -1}"
    place, last_type = (f"{of[METRICS].place(last)}L", type_name(last.type)) if last is not None else ("-1", "TYPE_F64")
    fields = (
        text_of(name),
        text_of(json.dumps(name)),
        len(shape),
        rows,
        columns,
        first,
        type,
        places,
        place,
        last_type,
    )
    return braced(*fields), rows * columns
