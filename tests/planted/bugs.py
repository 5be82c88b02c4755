"""The planted bugs: what is wrong, where in the source, and which ordinary test finds it.

python -m tests.planted.bugs                                           the table for docs/testing.md
python -m pytest -p tests.planted.plugin --plant NAME tests/targets    run tests with one of the bugs
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from tests.planted.planting import Edits, planted

MEMORY = "tests/planning/test_memory.py"
LIVENESS = f"{MEMORY}::test_no_block_is_written_while_it_holds_what_is_still_read"
DELICATE_LIVENESS = f"{MEMORY}::test_no_block_of_a_delicate_graph_is_written_while_it_holds_what_is_still_read"
SAMPLE = "tests/targets/test_against_interpreter.py::test_op_sample"
GRAPH = "tests/targets/test_against_interpreter.py::test_delicate_graph"
SLOPE = "tests/ops/test_ops.py::test_gradient_agrees_with_differences"
ALONE = "tests/passes/test_alone.py::test_a_pass_alone_keeps_the_meaning_of"
FORMULA = "tests/elaborate/test_formulas.py::test"


@dataclass(frozen=True)
class Bug:
    """One bug: `edits` of a file, and the id of the test that then fails with `says` in its message.

    `smaller`: smaller values for names in the module of the test, if the test would take long.
    """

    name: str
    wrong: str
    file: str
    edits: Edits
    check: str
    says: str
    smaller: Mapping[str, Any] = field(default_factory=dict)

    def planted(self) -> AbstractContextManager[None]:
        """A context in which the code has the bug."""
        return planted(self.name, self.file, self.edits)


PLAN = (
    Bug(
        "aliased-live-buffer",
        "the new value of a variable is written over the old one while a view of it is still read",
        "compiler/planning/memory.py",
        {"reads.get(node.results[0], position) if VIEW in node.op.traits else position": "position"},
        f"{DELICATE_LIVENESS}[a view of a variable is read after its new value is there]",
        "matmul reads bytes that were overwritten",
    ),
    Bug(
        "life-one-node-short",
        "the bytes of an operand are free one node before it is read for the last time",
        "compiler/planning/memory.py",
        {"self.plan.block(value).last = self.time": "self.plan.block(value).last = self.time - 1"},
        f"{LIVENESS}[softmax-train_step-numpy]",
        "overwrites what it reads",
    ),
    Bug(
        "update-before-use",
        "a variable gets its new value in place although nodes that follow read the old one",
        "compiler/planning/memory.py",
        {"free = self.scope.reads.get(value, -1) <= position": "free = True"},
        f"{DELICATE_LIVENESS}[states that change places]",
        "reads bytes that were overwritten",
    ),
    Bug(
        "written-over-too-early",
        "a result is written over an operand that the next node reads",
        "compiler/planning/memory.py",
        {"made.get(owner, position + 1) <= position and": "made.get(owner, position + 2) <= position + 1 and"},
        f"{LIVENESS}[cnn-train_step-cupy]",
        "reads bytes that were overwritten",
    ),
    Bug(
        "node-over-a-write",
        "a fused region writes its first result over an operand that a later node of it reads",
        "compiler/targets/numpy/tiles.py",
        {"axis == SHARED or last > written or (last": "axis == SHARED or (last"},
        f"{GRAPH}[a region reads an operand after it has written a result-0]",
        "Not equal to tolerance",
    ),
    Bug(
        "scratch-shared-between-lanes",
        "two threads that work on tiles of a region have the same scratch space",
        "compiler/targets/numpy/writer.py",
        {'lane = f"{scratch} + lane * {planned.bytes_per_thread}" if': 'lane = f"{scratch}" if'},
        f"{MEMORY}::test_lanes_of_a_region_share_no_scratch_space[mlp]",
        "lane 1 uses the scratch space of another",
    ),
)

GENERATED = (
    Bug(
        "min-for-max",
        "the maximum of a tensor and a number is emitted as their minimum",
        "compiler/targets/numpy/ops.py",
        {'clipped(s, x, number, "np.inf")': 'clipped(s, x, "-np.inf", number)'},
        "tests/targets/test_against_interpreter.py::test_model[mlp-predict]",
        "Not equal to tolerance",
    ),
    Bug(
        "dropped-clip-bound",
        "clip is emitted without its upper bound",
        "compiler/targets/numpy/ops.py",
        {'show_value(s["low"]), show_value(s["high"])': 'show_value(s["low"]), "np.inf"'},
        f"{SAMPLE}[clip-2]",
        "Not equal to tolerance",
    ),
    Bug(
        "scan-one-step-short",
        "a scan skips the last step of its sequences",
        "runtime/cpu/kernels/basic.py",
        {"order = range(len(stacks[0]))": "order = range(len(stacks[0]) - 1)"},
        f"{SAMPLE}[scan-0]",
        "Not equal to tolerance",
    ),
    Bug(
        "wrong-layout",
        "an array that lies in another order of axes is viewed through the inverse permutation",
        "compiler/targets/shared/writer.py",
        {"{tuple(order.index(axis) for axis in axes)}": "{tuple(order[axis] for axis in axes)}"},
        f"{SAMPLE}[add-8]",
        "could not be broadcast",
    ),
    Bug(
        "wrong-stride-in-pooling-gradient",
        "the gradient of max pooling is routed as if windows did not overlap",
        "runtime/cpu/kernels/pooling.py",
        {"taps(out, dy.shape[1:3], window, stride, padding)": "taps(out, dy.shape[1:3], window, window, padding)"},
        f"{SAMPLE}[max_pool2d_route-2]",
        "Not equal to tolerance",
    ),
    Bug(
        "argmax-tie",
        "argmax returns the last of equal maxima",
        "runtime/cpu/kernels/basic.py",
        {
            "contiguous.argmax(-1, indices)": (
                "np.subtract(x.shape[axis] - 1, contiguous[..., ::-1].argmax(-1), out=indices)"
            )
        },
        "tests/runtime/test_kernels.py::test_argmax_takes_the_first[0]",
        "array_equal",
    ),
    Bug(
        "gather-one-row-on",
        "gather reads the row after the one at the index",
        "runtime/cpu/kernels/basic.py",
        {"np.copyto(scratch, indices)\n    np.take": "np.add(indices, 1, out=scratch)\n    np.take"},
        f"{SAMPLE}[gather-1]",
        "Not equal to tolerance",
    ),
    Bug(
        "index-equal-to-the-size",
        "the first index after the end of a table is accepted",
        "runtime/cpu/kernels/basic.py",
        {", None) >= size:": ", None) > size:"},
        "tests/runtime/test_kernels.py::test_check_index_finds_the_first_index_outside[int32]",
        r"assert \(\) == \(3, 3, 1\)",
    ),
    Bug(
        "range-without-overflow",
        "the range of an index is computed as if integers did not overflow, so that it is not checked",
        "compiler/ops/ranges.py",
        {"return found if limits and limits[0] <= low and high <= limits[1] else limits": "return found"},
        "tests/passes/test_index_checks.py::test_an_index_that_may_overflow_is_checked",
        "assert 0 == 1",
    ),
    Bug(
        "full-batch-for-the-last",
        "a mean divides by the planned batch, even if the last batch is smaller",
        "compiler/targets/numpy/ops.py",
        {"{s['factor']} * B{power}": "{s['factor'] * TYPICAL_BATCH}"},
        "tests/targets/test_against_interpreter.py::test_smaller_batch_uses_the_same_program[softmax]",
        "Not equal to tolerance",
    ),
)

GRADIENTS = (
    Bug(
        "missing-unbroadcast",
        "the gradient of a broadcast operand is not summed back to its shape",
        "compiler/gradient/autodiff.py",
        {"sum_to(builder, gradient, operand.type))": "gradient)"},
        f"{SLOPE}[add-2]",
        r"add: gradient f32\[2,3\] of an operand f32\[3\]",
    ),
    Bug(
        "swapped-transposition",
        "the gradient of a matrix product does not transpose the other factor",
        "compiler/ops/linear.py",
        {"da = builder.matmul(left, transposed(builder, right))": "da = builder.matmul(left, right)"},
        f"{SLOPE}[matmul-0]",
        "the inner dimensions of a matrix product differ",
    ),
    Bug(
        "scan-not-reversed",
        "the gradient of a scan runs in the direction of the scan",
        "compiler/gradient/scans.py",
        {'"reverse": not node.attributes["reverse"]': '"reverse": node.attributes["reverse"]'},
        f"{SLOPE}[scan-6]",
        "scan, input x0",
    ),
)

PASSES = (
    Bug(
        "live-node-dropped",
        "dead-code follows only the first operand of a node",
        "compiler/ir/graph.py",
        {"needed.update(node.operands)": "needed.update(node.operands[:1])"},
        f"{ALONE}_models[softmax-predict-dead-code]",
        "after dead-code: graph evaluate: an operand is not defined before its use",
    ),
    Bug(
        "random-nodes-merged",
        "two draws of one shape become one",
        "compiler/passes/common_subexpressions.py",
        {
            'if RANDOM in node.op.traits or "body"': 'if "body"',
            "repr(node.attributes))": 'repr({**node.attributes, "stream": 0}))',
        },
        f"{ALONE}_delicate_graphs[two draws of one shape-common-subexpressions]",
        "common-subexpressions: y",
    ),
    Bug(
        "folded-to-the-wrong-dtype",
        "a number that is computed at compile time has the dtype of the operand",
        "compiler/passes/constant_folding.py",
        {"Literal(types[0], value=value)": "Literal(known[0].type, value=value)"},
        f"{ALONE}_delicate_graphs[numbers that become another type-constant-folding]",
        "after constant-folding: graph step: output c was bool",
    ),
    Bug(
        "wrong-type-after-a-pass",
        "simplify gives a sum without the axes along which it is the same",
        "compiler/passes/linear_sums.py",
        {"return stretched(self.builder, value, over.result(over.shape))": "return value"},
        f"{ALONE}_delicate_graphs[a sum of what is the same all along-simplify]",
        r"after simplify: graph step: output y was f32\[4,3\] and is f32\[3\]",
    ),
    Bug(
        "wrong-order-in-one-consumer",
        "the result of a product over pixels is read with rows and columns exchanged",
        "compiler/targets/numpy/convolutions.py",
        {"permutation=(2, 0, 1, 3)": "permutation=(2, 1, 0, 3)"},
        f"{ALONE}_models[separable_cnn-predict-convolutions]",
        "convolutions: output",
    ),
    Bug(
        "padding-on-the-other-side",
        "padding above goes below, and padding on the left to the right",
        "compiler/targets/numpy/convolutions.py",
        {"low=(0, top, left, 0), high=(0, bottom, right, 0)": "low=(0, bottom, right, 0), high=(0, top, left, 0)"},
        f"{ALONE}_samples[convolutions]",
        "convolutions on conv2d-",
    ),
    Bug(
        "tiles-leave-a-rest",
        "the step of tiles does not divide the length, and what is left is not computed",
        "compiler/targets/numpy/regions.py",
        {"+ 1) if length % step == 0)": "+ 1))"},
        f"{GRAPH}[tiles of a length with few divisors-255]",
        "Not equal to tolerance",
    ),
    Bug(
        "hash-order",
        "variables of one kind are in the order of a set of names",
        "compiler/planning/manifest.py",
        {"ordered = sorted(types, key": "ordered = sorted(set(types), key"},
        "tests/ir/test_text.py::test_text_and_source_do_not_depend_on_hash_seeds",
        "== 1",
        {"MODELS": ("softmax",), "SEEDS": (0, 1, 2)},
    ),
    Bug(
        "printed-without-dtype",
        "a number of another dtype than f32, i32 and bool is printed like one of these",
        "compiler/ir/printer.py",
        {'else f"{text}:{value.type.dtype}"': "else text"},
        "tests/ir/test_text.py::test_print_read_print_is_the_identity_for_delicate_graphs[numbers of other dtypes]",
        "differ in dtype",
    ),
)

LIBRARY = (
    Bug(
        "momentum-not-kept",
        "SGD computes a new velocity and does not keep it",
        "compiler/std/optimizers.nn",
        {
            "  v = momentum * v - rate * g\n  if nesterov { return p + momentum * v - rate * g }\n  return p + v": (
                "  w = momentum * v - rate * g\n  if nesterov { return p + momentum * w - rate * g }\n  return p + w"
            )
        },
        f"{FORMULA}_optimizer[SGD(lr=0.1, momentum=0.9)]",
        "step 1",
    ),
    Bug(
        "weight-decay-sign",
        "weight decay makes the parameters of SGD grow",
        "compiler/std/optimizers.nn",
        {"p = p * (1 - rate * weight_decay) }\n  if fraction": "p = p * (1 + rate * weight_decay) }\n  if fraction"},
        f"{FORMULA}_optimizer[SGD(lr=0.1, weight_decay=0.2)]",
        "step 0",
    ),
    Bug(
        "rate-of-the-next-step",
        "the learning rate of a schedule is that of the next step",
        "compiler/std/schedules.nn",
        {"return lr(step) }": "return lr(step + 1) }"},
        f"{FORMULA}_optimizer[SGD(lr=step(0.1, every=2, factor=0.5))]",
        "step 1",
    ),
    Bug(
        "epsilon-dropped",
        "batch normalization divides by the root of the variance without epsilon",
        "compiler/std/layers.nn",
        {"(gamma * rsqrt(v + eps))": "(gamma * rsqrt(v))"},
        f"{FORMULA}_batch_norm[f32[B, 4]]",
        "Not equal to tolerance",
    ),
    Bug(
        "sum-over-the-wrong-axis",
        "log_softmax sums over the batch",
        "compiler/std/activations.nn",
        {"log(sum(exp(shifted), axes=-1, keepdims=true))": "log(sum(exp(shifted), axes=0, keepdims=true))"},
        f"{FORMULA}_function[log_softmax]",
        "Not equal to tolerance",
    ),
    Bug(
        "scale-applied-twice",
        "images of bytes are divided by 255 twice",
        "compiler/elaborate/inputs.py",
        {'value = site.emit("mul", value, scale)': 'value = site.emit("mul", site.emit("mul", value, scale), scale)'},
        "tests/elaborate/test_graphs.py::test_inputs_are_converted_from_the_way_they_are_stored",
        "Mismatched elements",
    ),
)

RUNTIME = (
    Bug(
        "stale-running-mean",
        "values that depend on the running statistics are computed only for the first evaluation",
        "runtime/program.py",
        {"PREPARE in self.functions:": ("PREPARE in self.functions and (PREPARE, 1) not in self.bound:")},
        "tests/passes/test_parameter_folding.py::test_an_evaluation_sees_the_variables_as_they_are",
        "Not equal to tolerance",
    ),
    Bug(
        "mask-reused",
        "random numbers do not depend on the step: every step drops the same units",
        "runtime/random.py",
        {"= block, row, step & WORD": "= block, row, 0"},
        "tests/runtime/test_random.py::test_a_draw_depends_on_seed_step_and_stream_alone[uniform]",
        "== 5",
    ),
    Bug(
        "seed-ignored",
        "initial values are those of seed 0",
        "runtime/program.py",
        {'variables["seed"][...] = seed': 'variables["seed"][...] = 0'},
        "tests/targets/test_against_interpreter.py::test_initial_values[softmax]",
        "Not equal to tolerance",
    ),
    Bug(
        "root-of-a-mean-taken-for-a-mean",
        "a function of a mean counts as a mean over the examples: no warning that its figures depend on the batches",
        "compiler/elaborate/over_examples.py",
        {'return only if only.kind == "example" and only.power == 0 else UNKNOWN': "return only"},
        "tests/elaborate/test_metrics.py::test_a_root_of_a_mean_depends_on_the_batch",
        "",  # there is no warning to show
    ),
    Bug(
        "totals-of-one-batch",
        "the totals of a metric are those of the last batch",
        "runtime/feeding.py",
        {"COMBINE[how](combined[name], outputs[name], out=combined[name])": "combined[name][...] = outputs[name]"},
        "tests/runtime/test_totals.py::test_figures_do_not_depend_on_the_batch[7]",
        "Not equal to tolerance",
    ),
    Bug(
        "order-of-a-resumed-run",
        "a resumed run uses the order of the data of a run's first epochs",
        "runtime/training/trainer.py",
        {"settings.seed, epoch, self.settings": "settings.seed, self.trained + 1, self.settings"},
        "tests/runtime/test_trainer.py::test_resuming_is_bit_exact[2]",
        "'w': b'",
    ),
)

BUGS = {bug.name: bug for bug in (*PLAN, *GENERATED, *GRADIENTS, *PASSES, *LIBRARY, *RUNTIME)}


def table() -> str:
    """All bugs as a table in Markdown."""
    lines = ["| bug | what is wrong | the ordinary test that fails |", "|---|---|---|"]
    lines += [f"| {bug.name} | {bug.wrong} (`{bug.file}`) | `{bug.check}` |" for bug in BUGS.values()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
