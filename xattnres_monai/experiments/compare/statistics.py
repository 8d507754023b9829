"""Statistics of paired differences between variants that were evaluated on the same cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["Difference", "holm", "summarised"]

Values = NDArray[np.float64]


class Difference(NamedTuple):
    """The difference between two variants over patients.

    Args:
        values: difference of every patient.
        mean: mean over patients.
        interval: 95 % confidence interval of the mean, by bootstrap over patients; NaN for fewer than three patients,
            or if all have the same difference.
        p_value: p-value of the two-sided Wilcoxon signed-rank test; 1 when no patient differs.
    """

    values: Values
    mean: float
    interval: tuple[float, float]
    p_value: float


def summarised(differences: Values) -> Difference:
    """Return mean, confidence interval and p-value of differences, one per patient, without those that are NaN."""
    differences = differences[np.isfinite(differences)]
    if not differences.any():  # neither method is defined without differences or if all are zero
        return Difference(differences, 0.0 if differences.size else np.nan, (np.nan, np.nan), 1.0)
    interval = (np.nan, np.nan)
    if len(differences) > 2 and np.ptp(differences) > 0:
        low, high = stats.bootstrap((differences,), np.mean, rng=np.random.default_rng(0)).confidence_interval
        interval = float(low), float(high)
    return Difference(differences, float(differences.mean()), interval, float(stats.wilcoxon(differences).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of several tests by Holm's method.

    If only tests with an adjusted p-value below 0.05 count as findings, the probability of one or more false findings
    is at most 0.05.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    p = np.asarray(p_values)
    order = np.argsort(p)
    adjusted = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted[np.argsort(order)].tolist()
