"""The allow-list for generated source: its syntax tree is checked before the source is executed.

Source comes from a generator, or from a file of the cache that anybody may have written. The list is closed: nodes,
imports, attributes and functions that are not on it are refused, whatever they would do. Names must be bound in the
module, so no builtin is accessible but `ValueError`, and none may start with an underscore. Source that passes can call
the kernels of the runtime and the functions of NumPy listed here on arrays of the arena, and nothing else. Texts of
CUDA and C are not checked. CUDA runs only on the GPU; C runs with the rights of the user, so programs in C are read
only from a cache that nobody else can write to.

An `AllowList` says what the programs of a target may import and call.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from types import CodeType

import numpy as np

from runtime.cpu import kernels
from runtime.errors import RuntimeUserError

Table = Mapping[str, set[str]]


@dataclass(frozen=True, eq=False)
class AllowList:
    """The names that programs may import, by module, and the ways to use them."""

    functions: Table = field(default_factory=dict)  # that may be called
    packages: Table = field(default_factory=dict)  # modules to import from a package
    members: Table = field(default_factory=dict)  # functions and constants of an imported module, methods of an object
    objects: Table = field(default_factory=dict)  # classes of which a module may make one object, see OBJECTS
    device_kernels: Table = field(default_factory=dict)  # constructors of kernels from texts
    native_graphs: Table = field(default_factory=dict)  # constructors of graphs from a text, a name and a size
    texts: Table = field(default_factory=dict)  # texts for these
    words: Table = field(default_factory=dict)  # keyword arguments that are texts, and their values
    labels: frozenset[str] = frozenset()  # keyword arguments that may be any text, since it is only shown

    @cached_property
    def imports(self) -> Table:
        tables = (self.functions, self.packages, self.objects, self.device_kernels, self.native_graphs, self.texts)
        return union(*tables)

    @cached_property
    def called(self) -> set[str]:
        """The names that may be called, except for kernels; `clock.start` returns `tick`, and `probe` is an object."""
        return {"ValueError", "tick", "probe"} | names_in(self.functions) | names_in(self.objects)

    @cached_property
    def fixed(self) -> set[str]:
        """The names that cannot be given another meaning."""
        return {"np", "ValueError"} | names_in(self.packages)


def union(*tables: Table) -> Table:
    return {key: set().union(*(table.get(key, ()) for table in tables)) for table in tables for key in table}


def names_in(table: Table) -> set[str]:
    return set().union(*table.values())


DTYPES = {"float32", "float64", "int32", "int64", "uint8", "bool_"}
CPU_PROGRAMS = AllowList(
    functions={
        "runtime.cpu.kernels": {"view"},
        "runtime.cpu.threads": {"run_tiles", "tiles"},
        "runtime.training.numerics": {"ranges_of", "selected_ranges"},
    },
    packages={"runtime.cpu": {"kernels"}},
    objects={"runtime.cpu.profiler": {"Clock"}, "runtime.training.numerics": {"Probe"}},
    members={
        "np": {
            *DTYPES,
            *("inf", "nan"),
            *(name for name, member in vars(np).items() if isinstance(member, np.ufunc)),  # elementwise functions
            *("sum", "max", "copyto", "concatenate", "einsum", "broadcast_to"),
        },
        "kernels": {name for name, member in vars(kernels).items() if callable(member)},
        "clock": {"start"},
    },
    words={"casting": {"unsafe"}, "distribution": {"normal", "truncated_normal", "uniform"}},
    labels=frozenset({"place", "layer"}),
)
GPU_PROGRAMS = AllowList(
    functions={"runtime.gpu.cuda": {"copy", "matmul", "steps", "together", "view"}},
    objects={"runtime.gpu.cuda": {"DeviceClock"}},
    device_kernels={"runtime.gpu.cuda": {"ElementwiseKernel", "RawKernel"}},
    texts={"runtime.gpu.gemm": {"CONVOLUTIONS"}},
    members={"np": {*DTYPES, "inf", "nan"}, "clock": {"start"}},
)
NATIVE_PROGRAMS = AllowList(
    functions={"runtime.cpu.kernels": {"view"}},
    native_graphs={"runtime.native.library": {"Graph"}},
    members={"np": {*DTYPES, "inf", "nan"}},
)
OBJECTS = {"clock", "probe"}  # the names that objects may have
METHODS = {"T", "nbytes", "fill", "reshape", "transpose"}  # of arrays
LARGEST_WORKSPACE = 1 << 30  # bytes of each thread
LARGEST_POWER = 64  # of the batch: larger ones could take forever
EXCERPT = 80  # characters of a refused line that are shown


class RefusedSource(RuntimeUserError):
    """Source that is not allowed: a mistake of a generator, or a file of the cache that another program wrote."""

    def __init__(self, name: str, line: int, found: str):
        super().__init__(
            f"internal error: the generated source {name} has code that nnc does not generate, and was not run",
            found=f"line {line}: {ascii(found)[1:-1][:EXCERPT]}",
        )
        self.reason = f"its source was not generated by nnc, line {line}"


@lru_cache(maxsize=4)
def checked_code(source: str, name: str, allowed: AllowList) -> CodeType:
    """The compiled module. Raises RefusedSource, before anything is executed, for anything that is not on the list."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            tree = ast.parse(source, name)
            Checker(tree, allowed)
            return compile(tree, name, "exec")
        except Refused as refused:
            lines = source.split("\n")
            raise RefusedSource(name, refused.line, lines[refused.line - 1].strip()) from None
        except SyntaxError as error:
            raise RefusedSource(name, error.lineno or 0, error.msg) from None
        except (ValueError, RecursionError, MemoryError) as error:  # a NUL; nested too deeply for Python
            raise RefusedSource(name, 0, str(error)) from None


class Refused(Exception):
    def __init__(self, node: ast.AST):
        super().__init__()
        self.line: int = getattr(node, "lineno", 1)


def require(condition: bool, node: ast.AST) -> None:
    if not condition:
        raise Refused(node)


class Checker(ast.NodeVisitor):
    """Walks a tree once. Each allowed class of nodes has a method; all others are refused."""

    def __init__(self, tree: ast.Module, allowed: AllowList):
        self.allowed = allowed
        self.bound = {"ValueError"}
        self.used: dict[str, ast.Name] = {}  # the first use of each name
        self.imports: set[str] = set()
        self.device_kernels: set[str] = set()
        for statement in tree.body:
            self.top_level(statement)
        for name, node in self.used.items():
            require(name in self.bound, node)

    def generic_visit(self, node: ast.AST) -> None:
        raise Refused(node)

    def visit_all(self, nodes: Sequence[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    def bind(self, name: str, node: ast.AST) -> None:
        """Names that are assigned must not hide an import, and must not be special."""
        require(name not in self.imports | self.allowed.fixed and not name.startswith("_"), node)
        self.bound.add(name)

    # Statements -------------------------------------------------------------------------------------------------------

    def top_level(self, node: ast.stmt) -> None:
        """Imports, functions, and definitions of kernels; only the latter may have texts of CUDA."""
        if isinstance(node, ast.Import | ast.ImportFrom):
            self.imported(node)
        elif isinstance(node, ast.Assign):
            require(len(node.targets) == 1 and isinstance(node.targets[0], ast.Name), node)
            target = node.targets[0].id  # type: ignore[attr-defined]
            self.bind(target, node)
            self.definition(target, node.value)
        else:
            require(isinstance(node, ast.FunctionDef) and node.name.startswith("bind_"), node)
            self.visit(node)

    def imported(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            (alias, *others) = node.names
            require(not others and alias.name == "numpy" and alias.asname == "np", node)
            self.imports.add("np")
            self.bound.add("np")
            return
        known = self.allowed.imports.get(node.module or "", ())
        for alias in node.names:
            require(node.level == 0 and alias.name in known and alias.asname is None, node)
            require(alias.name not in self.bound, node)
            self.imports.add(alias.name)
            self.bound.add(alias.name)

    def definition(self, name: str, value: ast.expr) -> None:
        """A text, a kernel made of texts, or an object: `clock = Clock()`."""
        if is_text(value):
            return
        require(isinstance(value, ast.Call) and isinstance(value.func, ast.Name), value)
        assert isinstance(value, ast.Call) and isinstance(value.func, ast.Name)
        self.used.setdefault(value.func.id, value.func)
        if value.func.id in names_in(self.allowed.objects):
            require(name in OBJECTS and not value.args and not value.keywords, value)
            return
        if value.func.id in names_in(self.allowed.native_graphs):
            self.native_graph(name, value)
            return
        require(
            value.func.id in names_in(self.allowed.device_kernels) and all(k.arg == "preamble" for k in value.keywords),
            value,
        )
        for text in (*value.args, *(keyword.value for keyword in value.keywords)):
            self.device_text(text)
        self.device_kernels.add(name)

    def native_graph(self, name: str, call: ast.Call) -> None:
        """`step = Graph(text, "step", 4096)`: the text of C, the function in it, bytes of the workspace of a thread."""
        require(len(call.args) == 3 and not call.keywords, call)
        text, function, size = call.args
        require(is_text(text) and is_text(function) and function.value == name, call)  # type: ignore[attr-defined]
        require(text.value.isascii(), call)  # type: ignore[attr-defined]
        require(isinstance(size, ast.Constant) and type(size.value) is int, call)
        require(0 <= size.value <= LARGEST_WORKSPACE, call)  # type: ignore[attr-defined]
        self.device_kernels.add(name)

    def device_text(self, node: ast.expr) -> None:
        """Texts and names of texts, joined with +."""
        while isinstance(node, ast.BinOp):
            require(isinstance(node.op, ast.Add) and (isinstance(node.right, ast.Name) or is_text(node.right)), node)
            if isinstance(node.right, ast.Name):
                self.visit_Name(node.right)
            node = node.left
        if isinstance(node, ast.Name):
            self.visit_Name(node)
        else:
            require(is_text(node), node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        arguments = node.args
        plain = not (arguments.posonlyargs or arguments.kwonlyargs or arguments.defaults or arguments.kw_defaults)
        plain = plain and not (arguments.vararg or arguments.kwarg or node.decorator_list or node.returns)
        require(plain and not getattr(node, "type_params", ()), node)
        self.bind(node.name, node)
        for argument in arguments.args:
            require(argument.annotation is None, node)
            if argument.arg != "tiles":  # of a region, which does not call the function of that name
                self.bind(argument.arg, node)
        self.visit_all(node.body)

    def visit_Assign(self, node: ast.Assign) -> None:
        """To a name, or to the elements of an array."""
        require(len(node.targets) == 1 and isinstance(node.targets[0], ast.Name | ast.Subscript), node)
        self.visit(node.targets[0])
        self.visit(node.value)

    def visit_Expr(self, node: ast.Expr) -> None:
        require(isinstance(node.value, ast.Call), node)
        self.visit(node.value)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_For(self, node: ast.For) -> None:
        """Over tiles or steps, which have a name."""
        require(isinstance(node.iter, ast.Name) and isinstance(node.target, ast.Tuple) and not node.orelse, node)
        self.visit(node.target)
        self.visit(node.iter)
        self.visit_all(node.body)

    def visit_If(self, node: ast.If) -> None:
        """Only to check the size of the arena."""
        test = node.test
        require(isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Lt) and len(test.ops) == 1, node)
        assert isinstance(test, ast.Compare)
        require(not node.orelse and len(node.body) == 1 and isinstance(node.body[0], ast.Raise), node)
        self.visit_all([test.left, *test.comparators, *node.body])

    def visit_Raise(self, node: ast.Raise) -> None:
        call = node.exc
        plain = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "ValueError"
        require(plain and node.cause is None, node)
        assert isinstance(call, ast.Call)
        require(not call.keywords and all(isinstance(argument, ast.Constant) for argument in call.args), node)

    def visit_Pass(self, node: ast.AST) -> None:
        pass

    # Expressions ------------------------------------------------------------------------------------------------------

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.used.setdefault(node.id, node)
        else:
            require(isinstance(node.ctx, ast.Store), node)
            self.bind(node.id, node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Numbers, `...` and None. Texts are checked in the few places that allow them, and are not visited."""
        require(isinstance(node.value, int | float) or node.value is ... or node.value is None, node)

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        if isinstance(function, ast.Name):
            require(function.id in self.allowed.called or function.id in self.device_kernels, node)
            self.visit_Name(function)
        else:
            require(isinstance(function, ast.Attribute) and function.attr not in ("T", "nbytes"), node)
            self.visit(function)
        arguments = node.args
        if isinstance(function, ast.Attribute) and function.attr == "einsum" and is_text(arguments[0]):
            arguments = arguments[1:]
        self.visit_all(arguments)
        for keyword in node.keywords:
            require(keyword.arg is not None, node)
            if keyword.arg in self.allowed.words and is_text(keyword.value):
                require(keyword.value.value in self.allowed.words[keyword.arg], node)  # type: ignore[attr-defined]
            elif not (keyword.arg in self.allowed.labels and is_text(keyword.value)):
                self.visit(keyword.value)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        require(isinstance(node.ctx, ast.Load), node)
        base = node.value
        if isinstance(base, ast.Name) and base.id in self.allowed.members:
            require(node.attr in self.allowed.members[base.id], node)
            self.visit_Name(base)
        else:
            require(node.attr in METHODS, node)
            self.visit(base)

    def visit_Dict(self, node: ast.Dict) -> None:
        """Arrays by their names in the model."""
        for key in node.keys:
            require(is_text(key), node)
        self.visit_all(node.values)

    def visit_Tuple(self, node: ast.Tuple) -> None:
        self.visit_all(node.elts)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Arithmetic of sizes and offsets."""
        if isinstance(node.op, ast.Pow):
            power = node.right
            require(isinstance(power, ast.Constant) and type(power.value) is int, node)
            require(isinstance(node.left, ast.Name) and power.value <= LARGEST_POWER, node)  # type: ignore[attr-defined]
        else:
            require(isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.FloorDiv), node)
        for operand in (node.left, node.right):
            require(isinstance(operand, ast.Name | ast.Constant | ast.BinOp | ast.UnaryOp), node)
            self.visit(operand)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        require(isinstance(node.op, ast.USub), node)
        self.visit(node.operand)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        require(not isinstance(node.ctx, ast.Del), node)
        self.visit(node.value)
        self.visit(node.slice)

    def visit_Slice(self, node: ast.Slice) -> None:
        self.visit_all([part for part in (node.lower, node.upper, node.step) if part is not None])


def is_text(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is str
