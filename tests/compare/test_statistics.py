from __future__ import annotations

import numpy as np
import pytest

from xattnres_monai.compare.statistics import paired_difference


def test_a_shift_is_found_with_its_interval():
    noise = np.random.default_rng(3).normal(scale=0.01, size=20)
    difference = paired_difference(0.8 + 0.02 + noise, np.full(20, 0.8))
    low, high = difference.interval
    assert low < 0.02 < high and high - low < 0.02
    assert difference.mean == pytest.approx(0.02 + noise.mean())
    assert difference.p_value < 1e-4


def test_noise_is_no_difference():
    noise = np.random.default_rng(1).normal(size=(2, 30))
    difference = paired_difference(*noise)
    assert difference.interval[0] < 0 < difference.interval[1] and difference.p_value > 0.05


@pytest.mark.parametrize(
    ("values", "mean", "p_value"),
    [
        ([0.5, 0.6, 0.7], 0.0, 1.0),  # equal
        ([0.6, np.nan, 0.8], 0.1, 0.5),  # one patient cannot be compared, two are too few for an interval
        ([np.nan, np.nan, np.nan], np.nan, 1.0),
    ],
)
def test_of_few_patients_no_more_is_said_than_can_be(values, mean, p_value):
    difference = paired_difference(np.array(values), np.array([0.5, 0.6, 0.7]))
    assert difference.mean == pytest.approx(mean, nan_ok=True) and difference.p_value == pytest.approx(p_value)
    assert np.isnan(difference.interval).all()


def test_patients_must_be_the_same():
    with pytest.raises(ValueError, match="got 2 values and 3 references, expected one per patient each"):
        paired_difference(np.zeros(2), np.zeros(3))
