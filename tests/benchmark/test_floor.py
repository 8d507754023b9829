from __future__ import annotations

import torch
from torch import nn

from xattnres_monai import CrossStageAttention, FeatureHistory
from xattnres_monai.benchmark.floor import Rates, Work, least_seconds, rates, work


class Aggregation(nn.Module):
    """One stage of 3 channels on 4×4 that draws on 2 channels of 8×8 and 5 channels of 2×2."""

    def __init__(self):
        super().__init__()
        self.attention = CrossStageAttention(2, 3, [2, 5])

    def forward(self, image):
        history = FeatureHistory()
        for channels, size in ((2, 8), (5, 2), (3, 4)):
            history.append(image.new_zeros(1, channels, size, size))
        return self.attention(history.feature(2), history)


def test_the_work_of_one_aggregation_counted_by_hand():
    current, pooled, coarse = 3 * 4 * 4, 2 * 4 * 4, 5 * 2 * 2
    moved = 2 * current + pooled + coarse  # the current feature is read, the result written
    moved += 2 * 8 * 8 + pooled  # pooling reads the first source and writes its copy
    operations = 6 * current * 3  # norm, dot product and sum of three values
    operations += 2 * 2 * 3 * (4 * 4) + 2 * 5 * 3 * (2 * 2)  # projections, each on its own grid
    operations += 3 * current  # interpolation of the second
    assert work(Aggregation(), torch.zeros(1, 1, 8, 8)) == Work(moved, operations)


def test_a_network_without_aggregation_has_no_work():
    assert work(nn.Conv2d(1, 1, 3), torch.zeros(1, 1, 8, 8)) == Work(0, 0)


def test_the_time_is_that_of_what_takes_longer():
    rates = Rates(copying=2.0, computing=3.0)
    assert [least_seconds(Work(*given), rates) for given in ((5, 1), (1, 5), (0, 0))] == [10, 15, 0]


def test_the_rates_of_this_machine_are_measured():
    assert all(1e-13 < seconds < 1e-6 for seconds in rates("cpu"))
