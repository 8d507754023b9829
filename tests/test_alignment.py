from __future__ import annotations

import pytest
import torch

from tests.reference import resample
from xattnres_monai import StageAligner


@pytest.mark.parametrize("source, grid", [((4, 4), (8, 8)), ((3, 5), (7, 9)), ((2, 3, 4), (5, 6, 4)), ((6, 6), (6, 6))])
def test_projecting_first_equals_resampling_first(source, grid):
    aligner = StageAligner(len(grid), 3, 5)
    feature = torch.randn(2, 3, *source)
    torch.testing.assert_close(aligner(feature, list(grid)), aligner.projection(resample(feature, grid)))


def test_projects_on_the_coarse_grid():
    aligner = StageAligner(2, 3, 5)
    sizes = []
    aligner.projection.register_forward_hook(lambda _, inputs, __: sizes.append(tuple(inputs[0].shape[2:])))
    aligner(torch.randn(1, 3, 4, 4), [16, 16])
    assert sizes == [(4, 4)]


def test_the_projection_has_no_bias():
    assert StageAligner(3, 3, 5).projection.bias is None


def test_refuses_other_dimensions():
    with pytest.raises(ValueError, match=r"got spatial_dims=1, expected 2 or 3"):
        StageAligner(1, 3, 5)
