"""Training steps of Keras, as `fit` makes them: `keras_steps MODEL THREADS`.

The backend is that of KERAS_BACKEND, else the first installed one of TensorFlow, JAX and PyTorch.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from importlib.util import find_spec
from time import perf_counter
from typing import Any

BACKENDS = ("tensorflow", "jax", "torch")
os.environ.setdefault("KERAS_BACKEND", next(filter(find_spec, BACKENDS), BACKENDS[0]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402  (the settings come first)
import numpy as np  # noqa: E402
from keras import layers  # noqa: E402

from tests.bench.peers.common import BATCH, RECIPES, REPEATS, SECONDS, float_digits, report  # noqa: E402

MOST_STEPS = 469  # an epoch of MNIST


def network(model: str) -> keras.Model:
    """Images [N, 28, 28] to ten outputs, logits except for softmax."""
    relu = {"activation": "relu"}
    image = layers.Reshape((28, 28, 1))
    stacks: dict[str, Any] = {
        "softmax": lambda: [layers.Flatten(), layers.Dense(10, activation="sigmoid")],
        "mlp": lambda: [
            *(layers.Flatten(), layers.Dense(512, **relu), layers.Dense(512, **relu)),
            *(layers.Dropout(0.5), layers.Dense(10)),
        ],
        "cnn": lambda: [
            *(image, layers.Conv2D(24, 5), layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling2D()),
            *(layers.Conv2D(48, 5), layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling2D()),
            *(layers.Flatten(), layers.Dense(512), layers.BatchNormalization(), layers.ReLU(), layers.Dense(10)),
        ],
        "separable_cnn": lambda: [
            *(image, layers.Conv2D(24, 5, **relu), layers.MaxPooling2D(), layers.DepthwiseConv2D(5, **relu)),
            *(layers.Conv2D(48, 1, **relu), layers.MaxPooling2D()),
            *(layers.Flatten(), layers.Dense(512, **relu), layers.Dense(10)),
        ],
        "bilstm": lambda: [
            layers.Bidirectional(layers.LSTM(128, recurrent_activation="hard_sigmoid")),
            layers.Dense(10),
        ],
    }
    return keras.Sequential([layers.Input((28, 28)), *stacks[model]()])


class EpochTimes(keras.callbacks.Callback):
    """The seconds of every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.start = perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.seconds.append(perf_counter() - self.start)


def main() -> None:
    model = sys.argv[1]
    images, labels = float_digits()
    net, recipe = network(model), RECIPES[model]
    loss: Any = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if model == "softmax":
        labels, loss = keras.utils.to_categorical(labels, 10), "mean_squared_error"
    net.compile(keras.optimizers.SGD(recipe.lr, recipe.momentum, nesterov=recipe.momentum > 0), loss)

    def epochs(count: int, steps: int) -> list[float]:
        """Milliseconds per step for each of some epochs."""
        times = EpochTimes()
        examples = steps * BATCH
        x, y = (np.resize(array, (examples, *array.shape[1:])) for array in (images, labels))
        net.fit(x, y, batch_size=BATCH, epochs=count, verbose=0, callbacks=[times])
        return [seconds / steps * 1e3 for seconds in times.seconds]

    guess = epochs(2, 20)[1]
    steps = min(MOST_STEPS, max(1, round(SECONDS * 1e3 / guess)))
    backend = keras.backend.backend()
    report(epochs(REPEATS + 1, steps)[1:], keras=keras.__version__, **{backend: version_of(backend)})


def version_of(backend: str) -> str:
    """TensorFlow is distributed under several names."""
    module = sys.modules.get(backend)
    return getattr(module, "__version__", None) or version(backend)


if __name__ == "__main__":
    main()
