from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.attention.reference import resample
from xattnres_monai import FeatureHistory
from xattnres_monai.attention import history as history_module


def _history(*sizes: tuple[int, ...]) -> FeatureHistory:
    history = FeatureHistory()
    for size in sizes:
        history.append(torch.randn(2, 3, *size))
    return history


def test_keeps_the_order_and_the_features_themselves():
    features = [torch.rand(1, 2, 4, 4), torch.rand(1, 4, 2, 2)]
    history = FeatureHistory()
    for feature in features:
        history.append(feature)
    assert len(history) == 2
    assert history.feature(0) is features[0] and history.feature(1) is features[1]


@pytest.mark.parametrize(
    "size, grid",
    [
        ((16, 16), (8, 8)),
        ((16, 16), (4, 4)),
        ((16, 12), (4, 12)),
        ((9, 6), (3, 2)),
        ((15, 13), (8, 7)),
        ((15, 13), (4, 4)),
        ((12, 8, 20), (3, 4, 5)),
        ((7, 9, 11), (2, 3, 1)),
    ],
)
def test_pools_to_the_grid_as_the_reference_does(size, grid):
    history = _history(size)
    torch.testing.assert_close(history.pooled(0, list(grid)), resample(history.feature(0), grid))


def test_factor_two_equals_linear_interpolation():
    history = _history((8, 12, 6))
    linear = F.interpolate(history.feature(0), size=(4, 6, 3), mode="trilinear", align_corners=False)
    torch.testing.assert_close(history.pooled(0, [4, 6, 3]), linear)


@pytest.mark.parametrize("size, grid", [((9, 7), (8, 6)), ((10, 8), (8, 4)), ((5, 9, 7), (4, 8, 5))])
def test_a_grid_that_is_less_than_twice_as_coarse_is_pooled_to_at_once(size, grid):
    """As behind convolutions without padding; the half of such a source is coarser than the grid that asks."""
    history = _history(size)
    pool = F.adaptive_avg_pool2d if len(size) == 2 else F.adaptive_avg_pool3d
    torch.testing.assert_close(history.pooled(0, list(grid)), pool(history.feature(0), grid))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size, grid", [((6, 9), (2, 3)), ((4, 6, 8), (2, 3, 4)), ((6, 3, 5), (2, 1, 5))])
def test_pools_in_half_precision_in_training(size, grid, dtype):
    history = FeatureHistory()
    history.append(torch.randn(1, 2, *size).to(dtype).requires_grad_())
    pooled = history.pooled(0, list(grid))
    pooled.sum().backward()
    assert history.feature(0).grad.sum().item() == pytest.approx(pooled.numel(), rel=0.02)
    torch.testing.assert_close(pooled.float(), resample(history.feature(0).float(), grid), atol=0.02, rtol=0.02)


@pytest.mark.parametrize(
    "size, grid", [((8, 8), (4, 4)), ((8, 8), (2, 2)), ((4, 4, 4), (2, 2, 2)), ((3, 3, 3), (1, 1, 1))]
)
def test_averages_of_large_numbers_are_in_the_range_of_float16(size, grid):
    history = FeatureHistory()
    history.append(torch.full((1, 2, *size), 6e4, dtype=torch.float16))
    assert torch.equal(history.pooled(0, list(grid)), torch.full((1, 2, *grid), 6e4, dtype=torch.float16))


def test_an_axis_that_is_coarser_stays():
    assert _history((16, 4)).pooled(0, [8, 8]).shape[2:] == (8, 4)


def test_a_source_on_the_grid_is_not_copied():
    history = _history((8, 8))
    assert history.pooled(0, [8, 8]) is history.feature(0)


def test_every_level_is_made_once(monkeypatch):
    made = []
    original = history_module._average_pool
    monkeypatch.setattr(history_module, "_average_pool", lambda *args: made.append(args[1]) or original(*args))
    history = _history((32, 32))
    deep = history.pooled(0, [4, 4])
    assert made == [[16, 16], [8, 8], [4, 4]]
    assert history.pooled(0, [4, 4]) is deep
    assert history.pooled(0, [16, 16]).shape[2:] == (16, 16)
    assert len(made) == 3


def test_mean_squares_are_those_of_the_pooled_feature_each_made_once():
    history = _history((8, 8))
    square = history.mean_square(0, [4, 4])
    torch.testing.assert_close(square, history.pooled(0, [4, 4]).square().mean(1, keepdim=True) + 1e-6)
    assert history.mean_square(0, [4, 4]) is square
    assert history.mean_square(0, [8, 8]).shape == (2, 1, 8, 8)
