"""The data set `digits`: 14,000 images of handwritten-looking digits, drawn at start-up: training needs no download.

Every image is drawn by an imaginary writer, with a separate style and proportions for each digit; no writer of the
test images drew a training image. For each writer and digit, a table has the distance from each point of the plane to
the strokes. An image reads this table through its own slant, rotation, size, shift and wobble, and has ink wherever the
distance is less than half the pen's width.

Only uniform random bits, + - * / and square roots are used, all of which are exactly rounded: the bytes are the same on
every machine.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from runtime.datasets.dataset import ArrayInfo, Dataset, Footprint, Report, Split
from runtime.datasets.digit_strokes import STYLES

SIDE = 28  # pixels
TABLE_SIDE = 40  # points of a distance table along each axis
TABLE_REACH = 1.5  # the tables cover [-1.5, 1.5] in both directions; the strokes span about [-1, 1]
PIXELS_PER_UNIT = 10.0  # a digit of size 1 is 20 pixels high, as in MNIST
IMAGES_AT_ONCE = 128  # working arrays of 400 kB stay in the cache
WORKING_BYTES = 14_500_000  # measured: half are the distance tables, the rest positions and pens of all images

JITTER = 0.11  # how far a writer moves a control point, at most, in each of the two draws added
INFO = {"image": ArrayInfo("u8", (SIDE, SIDE)), "label": ArrayInfo("u8", ())}


class Sheet(NamedTuple):
    """The images of one split. Each has its own key of the random stream, so no two splits share anything."""

    key: int
    writers: int
    images: int


TRAIN = Sheet(key=0x6E6E63_01, writers=120, images=12_000)
TEST = Sheet(key=0x6E6E63_02, writers=40, images=2_000)
FOOTPRINT = Footprint((TRAIN.images + TEST.images) * (SIDE * SIDE + 1), WORKING_BYTES, TRAIN.images)


class Randomness:
    """Uniform numbers from the raw bits of Philox: the same in every version of NumPy, unlike those of its samplers."""

    def __init__(self, key: int):
        self._bits = np.random.Philox(key=key)

    def integers(self, stop: int, *shape: int) -> np.ndarray:
        """Integers 0 … stop-1, intp."""
        raw = self._bits.random_raw(shape) >> np.uint64(40)
        return ((raw * np.uint64(stop)) >> np.uint64(24)).astype(np.intp)

    def between(self, low: float, high: float, *shape: int) -> np.ndarray:
        """Uniform in [low, high), f32."""
        unit = (self._bits.random_raw(shape) >> np.uint64(40)).astype(np.float32) * 2.0**-24
        return unit * (high - low) + low

    def around(self, reach: float, *shape: int) -> np.ndarray:
        """The sum of two uniform draws from [-reach, reach): mostly near 0, never beyond 2 * reach, f32."""
        return self.between(-reach, reach, *shape) + self.between(-reach, reach, *shape)

    def bytes(self, *shape: int) -> np.ndarray:
        """Uniform in 0 … 255, u8; the product of `shape` is a multiple of 8."""
        return self._bits.random_raw(int(np.prod(shape)) // 8).astype("<u8").view(np.uint8).reshape(shape)


def is_here(data_dir: str | None) -> bool:
    """Always: the images are drawn, not downloaded."""
    return True


def load(data_dir: str | None, report: Report) -> Dataset:
    """Both splits: 12,000 images for training and 2,000 for testing. `data_dir` and `report` are not used."""
    return Dataset("digits", train=draw_sheet(TRAIN), test=draw_sheet(TEST))


def draw_sheet(sheet: Sheet) -> Split:
    """One split: image u8[N, 28, 28], label u8[N]."""
    random = Randomness(sheet.key)
    tables = distance_tables(sheet.writers, random)
    labels = random.integers(len(STYLES), sheet.images)
    table = labels * sheet.writers + random.integers(sheet.writers, sheet.images)
    x, y, unit = place(sheet.images, random)
    half_width = random.between(0.75, 1.9, sheet.images)  # of the pen, in pixels
    ink = random.between(150, 275, sheet.images)
    grain = random.between(0.02, 0.25, sheet.images)
    images = np.empty((sheet.images, SIDE * SIDE), np.uint8)
    for start in range(0, sheet.images, IMAGES_AT_ONCE):
        rows = slice(start, start + IMAGES_AT_ONCE)
        distance = look_up(tables, table[rows], polynomial(x[:, rows]), polynomial(y[:, rows]))
        distance *= unit[rows, None]
        covered = np.clip(half_width[rows, None] + 0.5 - distance, 0, 1, out=distance)
        covered *= ink[rows, None]
        noise = random.bytes(*covered.shape).astype(np.float32) - 127.5
        covered += noise * grain[rows, None]
        images[rows] = np.clip(covered, 0, 255, out=covered)
    return Split({"image": images.reshape(-1, SIDE, SIDE), "label": labels.astype(np.uint8)})


def distance_tables(writers: int, random: Randomness) -> np.ndarray:
    """Tables of the distance to each writer's nearest stroke: f32[10 * writers, TABLE_SIDE * TABLE_SIDE]."""
    axis = np.linspace(-TABLE_REACH, TABLE_REACH, TABLE_SIDE, dtype=np.float32)
    y, x = (plane.ravel() for plane in np.meshgrid(axis, axis, indexing="ij"))
    tables = np.empty((len(STYLES), writers, x.size), np.float32)
    for digit, styles in enumerate(STYLES):
        chosen = random.integers(len(styles), writers)
        proportions = random.around(0.12, writers, 1, 2) + 1
        for number, style in enumerate(styles):
            who = np.flatnonzero(chosen == number)
            nearest = np.full((len(who), x.size), np.inf, np.float32)
            for stroke in style:
                controls = np.array([point.split(",") for point in stroke.split()], np.float32) / 5 - 1
                bent = (controls + random.around(JITTER, len(who), *controls.shape)) * proportions[who]
                path = smooth(bent)
                for start, stop in pairwise(path):
                    np.minimum(nearest, squared_distance(x, y, start, stop), out=nearest)
            tables[digit, who] = np.sqrt(nearest)
    return tables.reshape(-1, x.size)


def smooth(controls: np.ndarray) -> np.ndarray:
    """Points along the quadratic B-spline of the control points f32[writers, n, 2]: f32[2n - 1, writers, 2]."""
    path = np.empty((2 * controls.shape[1] - 1, len(controls), 2), np.float32)
    points = controls.swapaxes(0, 1)
    path[::2] = points
    path[2:-2:2] = (points[:-2] + 6 * points[1:-1] + points[2:]) / 8
    path[1::2] = (points[:-1] + points[1:]) / 2
    return path


def squared_distance(x: np.ndarray, y: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """From the points (x, y) of a plane f32[p] to each writer's segment f32[writers, 2]: f32[writers, p]."""
    start_x, start_y = start.T[..., None]
    along_x, along_y = (stop - start).T[..., None]
    length = along_x * along_x + along_y * along_y + 1e-12  # squared; avoids a division by 0 for equal points
    x = x - start_x
    y = y - start_y
    part = x * (along_x / length)
    part += y * (along_y / length)
    np.clip(part, 0, 1, out=part)
    x -= part * along_x
    y -= part * along_y
    x *= x
    y *= y
    x += y
    return x


def place(images: int, random: Randomness) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random positions of the images on the planes of their strokes.

    Returns the coefficients of x and y on the plane as polynomials of the pixel's position (see `polynomial`), each
    f32[8, images], and the pixels per unit of the plane, f32[images].
    """
    turn = random.around(0.16, images)  # tangent of the angle: gives sine and cosine without calls to libm
    cosine = 1 / np.sqrt(1 + turn * turn)
    sine = turn * cosine
    slant = random.around(0.25, images) + 0.1
    size = random.between(0.7, 1.05, images)
    width = size * random.between(0.7, 1.1, images)
    x = random.around(0.06, 8, images)
    y = random.around(0.06, 8, images)
    shift_x, shift_y = random.around(0.16, 2, images)
    x[0] = -shift_x
    y[0] = -shift_y
    x[1] = cosine / width
    x[2] = (sine + slant * cosine) / width
    y[1] = -sine / size
    y[2] = cosine / size
    return x, y, np.sqrt(width * size) * PIXELS_PER_UNIT


def polynomial(coefficients: np.ndarray) -> np.ndarray:
    """c0 + c1 u + c2 v + c3 uv + c4 uu + c5 vv + c6 uuv + c7 uvv at every pixel: f32[images, 784].

    u and v are the pixel's position to the right and down from the centre, in units of 10 pixels; `coefficients` is
    f32[8, images]. The first three give slant, rotation, size and shift, the others the wobble. A matrix product would
    round differently on different machines.
    """
    axis = (np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2) / PIXELS_PER_UNIT
    u, v = axis[None, None, :], axis[None, :, None]
    c = coefficients[:, :, None, None]
    result = (c[4] + c[6] * v) * u
    result += c[1] + (c[3] + c[7] * v) * v
    result *= u
    result += c[0] + (c[2] + c[5] * v) * v
    return result.reshape(coefficients.shape[1], -1)


def look_up(tables: np.ndarray, table: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The distances at (x, y) f32[images, p], interpolated in each image's table: f32[images, p]."""
    per_unit = (TABLE_SIDE - 1) / (2 * TABLE_REACH)
    x, y = (np.clip((axis + TABLE_REACH) * per_unit, 0, TABLE_SIDE - 1.001) for axis in (x, y))
    column, row = x.astype(np.int32), y.astype(np.int32)
    x -= column
    y -= row
    corner = row * TABLE_SIDE + column + (table[:, None] * tables.shape[1])
    flat = tables.ravel()
    above, below = (
        left + (right - left) * x
        for left, right in ((flat.take(corner + offset), flat.take(corner + offset + 1)) for offset in (0, TABLE_SIDE))
    )
    return above + (below - above) * y
