"""Paired differences between variants that were evaluated on the same cases."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["Difference", "summarised"]

Values = NDArray[np.float64]


class Difference(NamedTuple):
    """Of two variants, over patients.

    Args:
        values: difference of every patient.
        mean: over patients.
        interval: 95 % confidence interval of the mean, by bootstrap over patients; NaN for fewer than three.
        p_value: two-sided Wilcoxon signed-rank test; 1 when no patient differs.
    """

    values: Values
    mean: float
    interval: tuple[float, float]
    p_value: float


def summarised(differences: Values) -> Difference:
    """The mean of differences, one per patient, and how sure it is; NaN is left out."""
    differences = differences[np.isfinite(differences)]
    if not differences.any():  # none, or all zero: neither method is defined
        return Difference(differences, 0.0 if differences.size else np.nan, (np.nan, np.nan), 1.0)
    interval = (np.nan, np.nan)
    if len(differences) > 2 and np.ptp(differences) > 0:
        low, high = stats.bootstrap((differences,), np.mean, rng=np.random.default_rng(0)).confidence_interval
        interval = float(low), float(high)
    return Difference(differences, float(differences.mean()), interval, float(stats.wilcoxon(differences).pvalue))
