"""When native code pays, from the seconds of epochs."""

from __future__ import annotations

import pytest

from tests.bench.first_epoch import HEAD, Seconds, comparison, pays_after

NUMPY = Seconds(cold=4, cached=3, next=2)


@pytest.mark.parametrize(
    ("native", "expected"),
    [
        (Seconds(cold=4, cached=1, next=0.5), "1 epoch"),
        (Seconds(cold=5.4, cached=1, next=1), "3 epochs"),  # 5.4, 6.4, 7.4 against 4, 6, 8
        (Seconds(cold=5, cached=1, next=2), "never"),
    ],
)
def test_epochs_until_native_code_pays(native: Seconds, expected: str):
    assert pays_after(NUMPY, native) == expected


def test_the_table_has_a_row_for_each_code():
    head, _, numpy, native = comparison({"mlp": {"NumPy": NUMPY, "native": Seconds(3, 2, 1)}})
    assert [cell.strip() for cell in head.split("|")[1:-1]] == list(HEAD)
    assert [cell.strip() for cell in numpy.split("|")[1:-1]] == ["mlp", "NumPy", "4.00", "3.00", "2.00", ""]
    assert [cell.strip() for cell in native.split("|")[1:-1]] == ["mlp", "native", "3.00", "2.00", "1.00", "1 epoch"]
