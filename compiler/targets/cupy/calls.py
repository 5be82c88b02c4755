"""A region to be written as a kernel: its parameters, the names of positions in it, and the resulting kernel.

Parameters have the names of operands and results at the call, so a kernel can be read next to its call. All arrays are
in reading order; scalars that the model computes are arrays of one element.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from compiler.ir.graph import Graph, Value
from compiler.ir.types import TensorType
from compiler.targets.c_text.scalars import DEVICE_FUNCTIONS, EXPRESSIONS, functions_in

WORDS_OF_CPP = frozenset({
    "alignas", "alignof", "and", "and_eq", "asm", "auto", "bitand", "bitor", "bool", "break", "case", "catch",
    "char", "class", "compl", "const", "const_cast", "constexpr", "continue", "decltype", "default", "delete", "do",
    "double", "dynamic_cast", "else", "enum", "explicit", "export", "extern", "false", "float", "for", "friend",
    "goto", "if", "inline", "int", "long", "mutable", "namespace", "new", "noexcept", "not", "not_eq", "nullptr",
    "operator", "or", "or_eq", "private", "protected", "public", "register", "reinterpret_cast", "return", "short",
    "signed", "sizeof", "static", "static_assert", "static_cast", "struct", "switch", "template", "this",
    "thread_local", "throw", "true", "try", "typedef", "typeid", "typename", "union", "unsigned", "using",
    "virtual", "void", "volatile", "wchar_t", "while", "xor", "xor_eq",
})  # fmt: skip
WORDS_OF_KERNELS = frozenset({
    "abs", "min", "max", "i", "j", "k", "r", "c", "n", "B", "reducer", "inside", "scratch", "complex", "thrust",
    "half", "value", "room", "partial", "products", "x0", "x1",
})  # fmt: skip
# Words of CUDA, CuPy and kernels.
WORDS = re.compile(r"\w+_t|u?int\d*|float\d*|double\d*|[ijkrt]\d+(_\d+)?|.*(Idx|Dim|_done)|shared_.*|_.*")
FUNCTIONS = {f"{name}{suffix}" for name in EXPRESSIONS for suffix in ("", "f")}
RESERVED = WORDS_OF_CPP | WORDS_OF_KERNELS | set(DEVICE_FUNCTIONS) | FUNCTIONS


@dataclass(frozen=True)
class ArrayParameter:
    """A parameter of a kernel that is an array."""

    name: str  # in the kernel
    argument: str  # in Python, at the call
    type: TensorType


@dataclass(frozen=True)
class DeviceKernel:
    """A kernel's definition and its call, in Python."""

    name: str
    definition: Sequence[str]
    call: str


@dataclass(frozen=True)
class Launch:
    """A region to be written: its body, and the Python names of its operands, results and scratch space."""

    name: str
    body: Graph
    arguments: Sequence[str]
    results: Sequence[str]
    scratch: str = ""

    def parameters(self) -> tuple[dict[Value, ArrayParameter], list[ArrayParameter]]:
        """The arrays that are read, by input of the body, and those that are written."""
        used: set[str] = set()

        def array(argument: str, type: TensorType) -> ArrayParameter:
            name = f"x_{argument}_" if WORDS.fullmatch(argument) else argument
            while name in used or name in RESERVED:
                name += "_"
            used.add(name)
            return ArrayParameter(name, argument, type)

        needed = {value for node in self.body.nodes for value in node.operands} | {*self.body.outputs.values()}
        pairs = zip(self.body.inputs, self.arguments, strict=True)
        read = {value: array(argument, value.type) for value, argument in pairs if value in needed}
        outputs = zip(self.body.outputs.values(), self.results, strict=True)
        return read, [array(argument, value.type) for value, argument in outputs]


def raw_kernel(
    launch: Launch, constants: Sequence[str], lines: Sequence[str], grid: str, block: str, arguments: Sequence[str]
) -> DeviceKernel:
    """A RawKernel, whose text follows those of some constants; the batch is the last argument."""
    text = "".join(f"{name} + " for name in constants)
    definition = [f'{launch.name} = RawKernel({text}r"""', *lines, f'""", "{launch.name}")']
    call = f"{launch.name}({grid}, {block}, ({', '.join([*arguments, 'np.int32(B)'])}))"
    return DeviceKernel(launch.name, definition, call)


def constant_names(lines: Sequence[str]) -> list[str]:
    """The Python constants with the device functions that a text calls."""
    return [name.upper() for name in functions_in("\n".join(lines))]
