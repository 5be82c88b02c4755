"""scan-hoisting: work that does not depend on earlier steps is done once, as one product over all T * B rows.

    in the body  y = x @ w, x a sequence, w a constant     →   before the scan  Y = X @ w, Y a sequence
    carry        g = g + transpose(a) @ b                  →   after the scan   g = g0 + transpose(A) @ B
    carry        g = g + sum(a, axes=[0])                  →   after the scan   g = g0 + sum(A, axes=[0,1])

Capitals are stacks over the steps. The first is the input product of a recurrent layer, the others are its weight
gradients, which autodiff sums in carries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Literal, Node, Value
from compiler.ir.op import LOOP
from compiler.ir.types import merged
from compiler.passes.rewriting import keep, rebuild


def hoist_from_scans(graph: Graph) -> Graph:
    """See the file's docstring."""
    return rebuild(graph, rewrite)


def rewrite(builder: Builder, node: Node, operands: list[Value]) -> Sequence[Value] | None:
    if LOOP not in node.op.traits:
        return None
    scan = Scan.of(node, operands)
    hoisted = scan.hoist_products(builder)
    totals = scan.take_totals()
    return scan.emit(builder, totals) if hoisted or totals else builder.emit_like(node, operands, body=scan.body)


@dataclass
class Total:
    """A carry that only sums: the terms of each step, and how to build the sum over all steps from their stacks."""

    carry: int
    terms: Sequence[Value]
    build: Callable[..., Value]


@dataclass
class Scan:
    """A scan in parts: a copy of its body, with the role of each input and output."""

    node: Node
    body: Graph
    carries: list[tuple[Value, Value]]  # (input of the body, first value)
    sequences: list[tuple[Value, Value]]
    constants: list[tuple[Value, Value]]
    updates: list[Value]  # new carries
    steps: list[Value]  # per-step outputs

    @classmethod
    def of(cls, node: Node, operands: list[Value]) -> Scan:
        body = rebuild(node.body, rewrite)
        pairs = list(zip(body.inputs, operands, strict=True))
        first, last = node.attributes["carries"], node.attributes["carries"] + node.attributes["sequences"]
        outputs = list(body.outputs.values())
        return cls(node, body, pairs[:first], pairs[first:last], pairs[last:], outputs[:first], outputs[first:])

    def hoist_products(self, builder: Builder) -> bool:
        """y = x @ w  →  Y = X @ w"""
        sequences, constants = dict(self.sequences), dict(self.constants)
        products: dict[Value, Value] = {}
        for node in self.body.nodes:
            if node.op.name != "matmul" or node.result.type.rank != 2:
                continue
            x, w = sequences.get(node.operands[0]), constants.get(node.operands[1])
            if x is None or w is None:
                continue
            rows = builder.reshape(x, shape=(merged(x.type.shape[:2]), x.type.shape[2]))
            stack = builder.reshape(builder.matmul(rows, w), shape=(*x.type.shape[:2], w.type.shape[1]))
            products[node.result] = Value(node.result.type, f"product_{len(self.sequences)}", "sequence")
            self.sequences.append((products[node.result], stack))
        self.body.nodes = [node for node in self.body.nodes if node.results[0] not in products]
        self.body = rebuild(self.body, keep, replacing=products)
        outputs, count = list(self.body.outputs.values()), len(self.carries)
        self.updates, self.steps = outputs[:count], outputs[count:]
        return bool(products)

    def take_totals(self) -> list[Total]:
        """The carries that only sum, and whose total is one product or one sum over all steps."""
        reads = Counter(operand for node in self.body.nodes for operand in node.operands)
        reads.update((*self.updates, *self.steps))
        totals = []
        for index, (carry, _) in enumerate(self.carries):
            update = self.updates[index]
            added = added_to(carry, update) if reads[carry] == reads[update] == 1 else None
            total = added and total_of(index, added)
            if total:
                totals.append(total)
        return totals

    def emit(self, builder: Builder, totals: Sequence[Total]) -> list[Value]:
        """Adds the scan without the carries of the totals, then the totals; returns the replacements of the results."""
        summed = {total.carry for total in totals}
        kept = [i for i in range(len(self.carries)) if i not in summed]
        stacks = {inner: outer for inner, outer in self.sequences}
        needed = dict.fromkeys(term for total in totals for term in total.terms if term not in stacks)
        known = set(self.steps)
        extra = [term for term in needed if term not in known]
        outputs = [*(self.updates[i] for i in kept), *self.steps, *extra]
        pairs = [*(self.carries[i] for i in kept), *self.sequences, *self.constants]
        updates = {self.updates[i].node for i in summed}
        self.body.nodes = [node for node in self.body.nodes if node not in updates]
        self.body.inputs = [inner for inner, _ in pairs]
        self.body.outputs = {f"y{i}": value for i, value in enumerate(outputs)}
        changed = {"carries": len(kept), "sequences": len(self.sequences), "body": self.body}
        results = builder.emit_like(self.node, [outer for _, outer in pairs], **changed)
        stacks |= dict(zip([*self.steps, *extra], results[len(kept) :], strict=True))
        final = dict(zip(kept, results, strict=False))
        for total in totals:
            value = total.build(builder, *(stacks[term] for term in total.terms))
            start = self.carries[total.carry][1]
            final[total.carry] = value if is_zero(start) else builder.add(start, value)
        return [*(final[i] for i in range(len(self.carries))), *results[len(kept) : len(kept) + len(self.steps)]]


def added_to(carry: Value, update: Value) -> Value | None:
    """g where update = carry + g"""
    if update.node is None or update.node.op.name != "add" or carry not in update.node.operands:
        return None
    return next((operand for operand in update.node.operands if operand is not carry), None)


def total_of(carry: int, added: Value) -> Total | None:
    """transpose(a) @ b or sum(a, axes=[0]), of matrices."""
    node = added.node
    if node is None:
        return None
    if node.op.name == "sum" and node.attributes["axes"] == (0,) and not node.attributes["keepdims"]:
        (a,) = node.operands
        return Total(carry, [a], lambda builder, stack: builder.sum(stack, axes=(0, 1)))
    left = node.operands[0].node if node.op.name == "matmul" else None
    if left is None or left.op.name != "transpose" or added.type.rank != 2:
        return None
    return Total(carry, [left.operands[0], node.operands[1]], product_of_stacks)


def product_of_stacks(builder: Builder, a: Value, b: Value) -> Value:
    """transpose(A) @ B over all rows of all steps."""
    rows = [builder.reshape(x, shape=(merged(x.type.shape[:2]), x.type.shape[2])) for x in (a, b)]
    return builder.matmul(builder.transpose(rows[0], permutation=(1, 0)), rows[1])


def is_zero(value: Value) -> bool:
    """broadcast(0)"""
    source = value.node.operands[0] if value.node and value.node.op.name == "broadcast" else value
    return isinstance(source, Literal) and source.value == 0
