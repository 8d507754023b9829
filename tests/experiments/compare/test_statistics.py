from __future__ import annotations

import numpy as np
import pytest

from xattnres_monai.experiments.compare.statistics import holm, summarised


def test_a_shift_is_found_with_its_interval():
    noise = np.random.default_rng(3).normal(scale=0.01, size=20)
    difference = summarised(0.02 + noise)
    low, high = difference.interval
    assert low < 0.02 < high and high - low < 0.02
    assert difference.mean == pytest.approx(0.02 + noise.mean())
    assert difference.p_value < 1e-4


def test_noise_is_no_difference():
    difference = summarised(np.random.default_rng(1).normal(size=30))
    assert difference.interval[0] < 0 < difference.interval[1] and difference.p_value > 0.05


@pytest.mark.parametrize(
    ("values", "mean", "p_value"),
    [
        ([0.0, 0.0, 0.0], 0.0, 1.0),  # equal
        ([0.1, np.nan, 0.1], 0.1, 0.5),  # one patient cannot be compared, two are too few for an interval
        ([np.nan, np.nan, np.nan], np.nan, 1.0),
    ],
)
def test_of_few_patients_no_more_is_said_than_can_be(values, mean, p_value):
    difference = summarised(np.array(values))
    assert difference.mean == pytest.approx(mean, nan_ok=True) and difference.p_value == pytest.approx(p_value)
    assert np.isnan(difference.interval).all()


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03, 0.9]) == pytest.approx([0.09, 0.04, 0.09, 0.9])
    assert holm([0.6, 0.7]) == [1, 1] and holm([]) == []
