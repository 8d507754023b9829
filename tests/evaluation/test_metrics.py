from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import from_engine
from monai.metrics import HausdorffDistanceMetric, SurfaceDistanceMetric

from xattnres_monai.evaluation.metrics import SurfaceMetric


def cube(start: int) -> MetaTensor:
    """One hot, of a cube at ``start`` along the last axis, in voxels of 1 x 1 x 2.5 mm."""
    volume = torch.zeros(2, 12, 12, 12)
    volume[1, 3:7, 3:7, start : start + 4] = 1
    volume[0] = 1 - volume[1]
    return MetaTensor(volume, affine=torch.diag(torch.tensor([1.0, 1.0, 2.5, 1.0])))


@pytest.mark.parametrize(
    "metric_fn, shift, expected",
    [
        (HausdorffDistanceMetric(include_background=False), 2, 5.0),
        (HausdorffDistanceMetric(include_background=False, percentile=95), 2, 5.0),
        (HausdorffDistanceMetric(include_background=False), 0, 0.0),
        (SurfaceDistanceMetric(include_background=False, symmetric=True), 0, 0.0),
        # 56 voxels of a surface: 24 lie on the other, 4 are 1 mm from its edge, 12 a slice above it, 16 two slices
        (SurfaceDistanceMetric(include_background=False, symmetric=True), 2, (4 * 1 + 12 * 2.5 + 16 * 5) / 56),
    ],
)
def test_distances_are_in_millimetres(metric_fn, shift, expected):
    engine = Engine(lambda engine, batch: batch)
    engine.state.metric_details = {}
    metric = SurfaceMetric(metric_fn=metric_fn, output_transform=from_engine(["pred", "label"]))
    metric.attach(engine, "distance")
    engine.run([[{"pred": cube(2 + shift), "label": cube(2)}, {"pred": cube(2), "label": cube(2)}]])
    assert engine.state.metric_details["distance"].squeeze().tolist() == pytest.approx([expected, 0.0])
