"""Programs in the language from a seed: a model of library layers and its own layers, and a `train` block.

The model is a list of statements that mostly update one value, `h = h |> Dense(3)`, so that most of them can be removed
when a program is reduced. Which statements are possible depends on what `h` is for each example of the batch: a vector,
a sequence or an image.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from random import Random

Sizes = tuple[int, ...]  # of one example: [n], [T, n] or [H, W, C]
MOST = 72  # elements of one example
ACTIVATIONS = (
    "relu", "tanh", "sigmoid", "gelu", "silu", "elu", "softplus", "leaky_relu(0.1)", "hard_sigmoid", "identity", "sin",
)  # fmt: skip
INITIALIZERS = ("glorot_uniform", "he_normal", "normal(stddev=0.4)", "uniform(-0.5, 0.5)", "orthogonal")
DECLARATIONS = {
    "Gated": """layer Gated(units, bias=0.1)(x: f32[B, ..., n]) {
  param w: f32[n, units] = glorot_uniform
  param v: f32[n, units] = normal(stddev=0.3)
  return (x @ w + bias) * sigmoid(x @ v)
}""",
    "Stack": """layer Stack(widths, skip=true)(x: f32[B, n]) {
  for width in widths {
    y = x |> Dense(width) |> tanh
    if skip and shape(y) == shape(x) { y = x + y }
    x = y
  }
  return x
}""",
    "Normed": """layer Normed(momentum=0.9)(x: f32[..., c]) {
  param gamma: f32[c] = ones
  state running: f32[c] = zeros
  state steps: i32[] = 0
  axes = range(rank(x) - 1)
  if not training { return gamma * (x - running) }
  m = mean(x, axes=axes)
  running = momentum * running + (1 - momentum) * m
  steps = steps + 1
  return gamma * (x - m)
}""",
    "bump": """fn bump(height=0.5)(x: f32[...]) {
  y = x * x
  return where(x > height, height + y / (1 + y), x - stop_gradient(height * y))
}""",
    "Leaky": """cell Leaky(units)(x: f32[B, n]) {
  param w: f32[n, units] = glorot_uniform
  param speed: f32[units] = uniform(-1, 1)
  carry h: f32[B, units] = 0
  carry seen: f32[B, 1] = 1
  h = h + sigmoid(speed) * (tanh(x @ w) - h) / seen
  seen = seen + 0.5
  return h
}""",
    "Clipped": """optimizer Clipped(lr=0.1, momentum=0.9, limit=1)(p, g, step) {
  state m = zeros_like(p)
  length = sqrt(sum(square(g)) + 0.01)
  m = momentum * m + (1 - momentum) * g * (limit / max(length, limit))
  return p - value_at(lr, step) * m
}""",
    "triangle": """fn triangle(peak, steps)(step) {
  t = cast(step, "f32") / steps
  return peak * max(1 - abs(2 * t - 1), 0.1)
}""",
    "both": """fn both(first: f32[B, n], second: f32[B, ...], label: i32[B], target: f32[B, ...]) {
  return softmax_cross_entropy(first, label) + 0.3 * mean_squared_error(second, target)
}""",
}
OPTIMIZERS = (
    "SGD(lr={lr})", "SGD(lr={lr}, momentum=0.9)", "SGD(lr={lr}, momentum=0.8, nesterov=true, decay=0.01)",
    "Adam(lr={lr}, eps=0.01)", "AdamW(lr={lr}, eps=0.01, weight_decay=0.1)", "RMSprop(lr={lr}, eps=0.01)",
    "RMSprop(lr={lr}, momentum=0.5, centered=true, eps=0.1)", "Adagrad(lr={lr}, weight_decay=0.01)", "Clipped(lr={lr})",
)  # fmt: skip
RATES = ("0.05", "0.1", "step(0.1, every=2)", "exponential(0.1, every=3)", "cosine(0.1, steps=4)", "triangle(0.1, 4)")
RATES += ("constant(0.1, warmup=2)",)
LOSSES = (
    "softmax_cross_entropy", "mean_squared_error", "mean_absolute_error", "huber", "huber(delta=0.5)",
    "one_hot_mean_squared_error", "binary_cross_entropy_with_logits", "binary_cross_entropy",
)  # fmt: skip
OF_LABELS = ("softmax_cross_entropy", "one_hot_mean_squared_error")
# Of words, which are -3 … 6 unless they are an index as they are: some leave their table in some batches.
INDICES = (
    *["word |> Embedding(5, {units})"] * 3, "word % 5 |> Embedding(5, {units})", "word + 3 |> Embedding(9, {units})",
    "max(word, 0) |> Embedding(6, {units})", "gather(one_hot(iota(10), {units} + 9), word + 3)[:, 0:{units}]",
)  # fmt: skip


def generate_model(seed: int) -> str:
    """The text of a program."""
    return Writer(Random(seed)).program()


class Writer:
    """Writes one program; `sizes` is the shape of `h` without the batch, `kept` are earlier values of it."""

    def __init__(self, random: Random):
        self.random = random
        self.lines: list[str] = []
        self.kept: dict[str, Sizes] = {}
        self.sizes: Sizes = ()

    def program(self) -> str:
        random = self.random
        inputs = self.inputs()
        for _ in range(random.choice((1, 2, 3, 4, 6))):
            self.statement()
        loss = random.choice((*LOSSES, "both"))
        returned = self.outputs(loss)
        body = "\n".join(f"  {line}" for line in self.lines)
        model = f"model Fuzzed({inputs}) {{\n{body}\n  return {returned}\n}}"
        optimizer = random.choice(OPTIMIZERS).format(lr=random.choice(RATES))
        entries = [f"loss = {loss}", f"optimizer = {optimizer}", "batch = 3"]
        if loss == "softmax_cross_entropy":
            entries += random.choice(([], ["metrics = [accuracy]"], ["metrics = [top_k_accuracy(2), perplexity]"]))
        train = "train Fuzzed {\n" + "\n".join(f"  {entry}" for entry in entries) + "\n}"
        used = f"{model}\n{train}"
        declared = [text for name, text in DECLARATIONS.items() if name in used]
        return "\n\n".join([*declared, model, train]) + "\n"

    # Inputs and outputs -----------------------------------------------------------------------------------------------

    def inputs(self) -> str:
        random = self.random
        self.sizes = random.choice(
            ((random.randint(1, 6),), (random.randint(1, 4), random.randint(1, 4)), self.image())
        )
        declared = [f"x: {tensor(self.sizes)}"]
        self.lines.append("h = x")
        self.kept["x"] = self.sizes
        if random.random() < 0.2:
            declared.append(f"z: {tensor(self.sizes)}")
            self.kept["z"] = self.sizes
            self.lines.append(random.choice(("h = h + z", "h = h * z", "h = max(h, z)", "h = concat(h, z)")))
            if "concat" in self.lines[-1]:
                self.sizes = (*self.sizes[:-1], 2 * self.sizes[-1])
        if random.random() < 0.15:
            declared.append("word: i32[B]")
            units = random.randint(1, 3)
            index = random.choice(INDICES).format(units=units)
            self.lines.append(f"e = {index}")
            self.kept["e"] = (units,)
        return ", ".join(declared)

    def image(self) -> Sizes:
        return self.random.randint(3, 5), self.random.randint(3, 5), self.random.choice((1, 2, 3))

    def outputs(self, loss: str) -> str:
        """Brings `h` into a shape that the loss accepts; returns the names that the model returns."""
        if len(self.sizes) == 3 or (len(self.sizes) == 2 and self.random.random() < 0.5):
            self.flatten()
        units = self.random.randint(2, 4)
        if loss == "both":
            if len(self.sizes) != 1:
                self.flatten()
            self.lines.append("second = h")
            self.lines.append(f"first = h |> Dense({units})")
            return "first, second"
        if loss in OF_LABELS or self.random.random() < 0.7:
            self.step(f"Dense({units})", (*self.sizes[:-1], units))
        if loss == "binary_cross_entropy":
            self.step("sigmoid", self.sizes)
        return "h"

    # Statements -------------------------------------------------------------------------------------------------------

    def step(self, layer: str, sizes: Sizes) -> None:
        self.assign(f"h |> {layer}", sizes)

    def assign(self, expression: str, sizes: Sizes) -> None:
        self.lines.append(f"h = {expression}")
        self.sizes = sizes

    def statement(self) -> None:
        """Adds a statement; each rank has its own list, and some statements fit any rank."""
        if self.random.random() < 0.25:
            self.keep_or_join()
            return
        choices: dict[int, tuple[Callable[[], None], ...]] = {
            1: (self.dense, self.dense, self.vector, self.to_sequence, self.to_image),
            2: (self.recurrent, self.recurrent, self.sequence, self.dense, self.flatten),
            3: (self.convolution, self.convolution, self.convolution, self.pooling, self.picture, self.flatten),
        }
        self.random.choice((*choices[len(self.sizes)], self.anywhere))()

    def keep_or_join(self) -> None:
        """Keeps `h`, or joins it with a kept value of a matching shape."""
        name = f"k{len(self.kept)}"
        fitting = [other for other, sizes in self.kept.items() if sizes == self.sizes]
        joined = [other for other, sizes in self.kept.items() if sizes[:-1] == self.sizes[:-1]]
        if fitting and self.random.random() < 0.5:
            other = self.random.choice(fitting)
            self.assign(self.random.choice((f"h + {other}", f"h * {other}", f"0.5 * (h - {other})")), self.sizes)
        elif joined and self.random.random() < 0.5:
            other = self.random.choice(joined)
            total = self.sizes[-1] + self.kept[other][-1]
            if prod(self.sizes[:-1]) * total <= MOST:
                self.assign(f"concat(h, {other})", (*self.sizes[:-1], total))
        else:
            self.lines.append(f"{name} = h")
            self.kept[name] = self.sizes

    def anywhere(self) -> None:
        random, last = self.random, self.sizes[-1]
        self.step(
            random.choice(
                (
                    random.choice(ACTIVATIONS), random.choice(ACTIVATIONS), "LayerNorm", "BatchNorm", "Normed",
                    f"BatchNorm(momentum=0.5, eps=0.1) |> {random.choice(ACTIVATIONS)}", "Dropout(0.4)", "bump",
                    "bump(0.3)", "softmax", f"Gated({last})",
                )
            ),
            self.sizes,
        )  # fmt: skip

    def dense(self) -> None:
        random, units = self.random, self.random.randint(1, 5)
        options = random.choice(("", f", activation={random.choice(ACTIVATIONS)}", ", use_bias=false"))
        options += random.choice(("", f", init={random.choice(INITIALIZERS)}"))
        layer = random.choice((f"Dense({units}{options})", f"Dense({units}{options})", f"Gated({units})"))
        self.step(layer, (*self.sizes[:-1], units))

    def vector(self) -> None:
        random, (n,) = self.random, self.sizes
        units = random.randint(1, 4)
        chosen = random.choice(
            (
                (f"h |> Stack([{n}, {units}, {units}])", (units,)),
                (f"h |> Stack([{units}, {n}], skip=false)", (n,)),
                ("h * sigmoid(sum(h, axes=-1, keepdims=true))", (n,)),
                (f"h[:, 0:{max(1, n - 1)}]", (max(1, n - 1),)),
                (f"h[:, 0:{n}:2]", ((n + 1) // 2,)),
                ("where(h > 0.3, h, 0.1 * h)", (n,)),
                ("clip(h, -0.7, 1.3) + max(h, 0.2) - min(h, 0.1)", (n,)),
                ("h / (1 + abs(h))", (n,)),
                ("log(1.5 + square(h)) * sqrt(0.5 + h * h)", (n,)),
                ("concat(split(h, 2)[1], split(h, 2)[0])" if n % 2 == 0 else "flip(h, 1)", (n,)),
                ("h - mean(h, axes=0)", (n,)),
                ("exp(-square(h))", (n,)),
            )
        )
        self.assign(*chosen)

    def to_sequence(self) -> None:
        (n,) = self.sizes
        parts = [d for d in range(1, n + 1) if n % d == 0]
        steps = self.random.choice(parts)
        self.assign(f"reshape(h, [B, {steps}, {n // steps}])", (steps, n // steps))

    def to_image(self) -> None:
        sizes = self.image()
        self.step(f"Dense({prod(sizes)}) |> Reshape([{sizes[0]}, {sizes[1]}, {sizes[2]}])", sizes)

    def recurrent(self) -> None:
        random, (steps, _) = self.random, self.sizes
        units = random.randint(1, 4)
        cell = random.choice(("SimpleRNN", "LSTM", "GRU", "Leaky")) + f"({units})"
        whole = random.random() < 0.5
        options = (", return_sequences=true" if whole else "") + random.choice(("", ", reverse=true"))
        if random.random() < 0.3:
            self.step(f"Bidirectional({cell}{', return_sequences=true' if whole else ''})", (2 * units,))
            units *= 2
        else:
            self.step(f"RNN({cell}{options})", (units,))
        self.sizes = (steps, units) if whole else (units,)

    def sequence(self) -> None:
        steps, n = self.sizes
        chosen = self.random.choice(
            (
                ("transpose(h, [0, 2, 1])", (n, steps)),
                ("flip(h, 1)", (steps, n)),
                ("pad(h, [[0, 0], [1, 0], [0, 2]])", (steps + 1, n + 2)),
                ("mean(h, axes=1)", (n,)),
                ("reduce_max(h, axes=-1)", (steps,)),
                ("softmax(h @ transpose(h, [0, 2, 1])) @ h", (steps, n)),
                ("h[:, -1]", (n,)),
                ("h - mean(h, axes=[0, 1])", (steps, n)),
                (f'h * reshape(cast(iota({steps}), "f32"), [{steps}, 1])', (steps, n)),
                ("broadcast(sum(h, axes=1, keepdims=true), shape(h)) * h", (steps, n)),
            )
        )
        if prod(chosen[1]) <= MOST:
            self.assign(*chosen)

    def flatten(self) -> None:
        self.step("Flatten", (prod(self.sizes),))

    def convolution(self) -> None:
        random, (height, width, channels) = self.random, self.sizes
        kernel = random.choice([k for k in (1, 2, 3) if k <= min(height, width)])
        stride, same = random.choice((1, 1, 2, 3)), random.random() < 0.5
        dilation = random.choice([d for d in (1, 1, 2) if (kernel - 1) * d + 1 <= min(height, width)])
        groups = random.choice([g for g in (1, 1, 2, 3) if channels % g == 0])
        filters = groups * random.choice((1, 2))
        options = f", stride={stride}" if stride > 1 else ""
        options += ', padding="same"' if same else ""
        options += f", dilation={dilation}" if dilation > 1 else ""
        layer = random.choice(("Conv2D", "Conv2D", "Conv2D", "DepthwiseConv2D", "SeparableConv2D"))
        if layer == "DepthwiseConv2D":
            multiplier = random.choice((1, 2))
            filters, text = channels * multiplier, f"{layer}({kernel}, depth_multiplier={multiplier}{options})"
        elif layer == "SeparableConv2D":
            text = f"{layer}({filters}, {kernel}{options})"
        else:
            text = f"{layer}({filters}, {kernel}{options}{f', groups={groups}' if groups > 1 else ''})"
        text += random.choice(("", "", " |> BatchNorm", " |> BatchNorm |> relu", f" |> {random.choice(ACTIVATIONS)}"))
        reach = (kernel - 1) * dilation + 1
        sizes = [(s + stride - 1) // stride if same else (s - reach) // stride + 1 for s in (height, width)]
        self.step(text, (*sizes, filters))

    def pooling(self) -> None:
        random, (height, width, channels) = self.random, self.sizes
        if random.random() < 0.2:
            self.step("GlobalAvgPool2D", (channels,))
            return
        window = random.choice([k for k in (1, 2, 3) if k <= min(height, width)])
        stride, same = random.choice((window, window, 1, 2)), random.random() < 0.3
        padding = ', padding="same"' if same else ""
        layer = random.choice(("MaxPool2D", "MaxPool2D", "AvgPool2D"))
        sizes = [(s + stride - 1) // stride if same else (s - window) // stride + 1 for s in (height, width)]
        self.step(f"{layer}({window}, stride={stride}{padding})", (*sizes, channels))

    def picture(self) -> None:
        height, width, channels = self.sizes
        chosen = self.random.choice(
            (
                ("pad(h, [[0, 0], [1, 0], [0, 1], [0, 0]])", (height + 1, width + 1, channels)),
                ("flip(h, 2)", self.sizes),
                ("transpose(h, [0, 2, 1, 3])", (width, height, channels)),
                ("h * mean(h, axes=[1, 2], keepdims=true)", self.sizes),
                (f"reshape(h, [B, {height}, {width * channels}])", (height, width * channels)),
                ("sum(h, axes=3)", (height, width)),
                (f"h[:, 0:{height}:2]", ((height + 1) // 2, width, channels)),
            )
        )
        if prod(chosen[1]) <= MOST:
            self.assign(*chosen)


def tensor(sizes: Sizes) -> str:
    return f"f32[B, {', '.join(map(str, sizes))}]"
