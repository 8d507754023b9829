"""Interpolation along one axis after another equals PyTorch's, on either side of the number of voxels that decides."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from xattnres_monai.interpolation import FEW, interpolate


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((5, 4), (10, 4)),
        ((5, 4), (13, 9)),
        ((FEW, FEW + 1), (2 * FEW, 2 * FEW + 2)),
        ((FEW + 2, 3), (2 * FEW + 5, 3)),
        ((3, 1, 2), (6, 5, 2)),
        ((4, FEW + 1, 3), (9, FEW + 7, 6)),
        ((FEW + 1, 3, FEW), (FEW + 2, 3, FEW + 1)),
    ],
)
def test_equals_pytorch(shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    feature = torch.randn(2, 3, *shape, dtype=torch.float64, requires_grad=True)
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    expected = F.interpolate(feature, size=size, mode=mode, align_corners=False)
    interpolated = interpolate(feature, list(size))
    torch.testing.assert_close(interpolated, expected)
    gradient = torch.randn_like(expected)
    expected_gradient = torch.autograd.grad(expected, feature, gradient)[0]
    torch.testing.assert_close(torch.autograd.grad(interpolated, feature, gradient)[0], expected_gradient)
