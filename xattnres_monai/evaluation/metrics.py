"""Surface distances in the units of the image's spacing. MONAI's metrics take a spacing, but its handlers give none."""

from __future__ import annotations

from collections.abc import Sequence

from ignite.metrics.metric import reinit__is_reduced
from monai.data import MetaTensor
from monai.handlers.ignite_metric import IgniteMetricHandler

__all__ = ["SurfaceMetric"]


class SurfaceMetric(IgniteMetricHandler):
    """MONAI handler for ``HausdorffDistanceMetric`` or ``SurfaceDistanceMetric`` (given as ``metric_fn``).

    Distances are in mm if the label's file has a spacing, and in pixels for PNG. A distance is not finite if prediction
    or label has no voxel of the class.
    """

    @reinit__is_reduced  # type: ignore[untyped-decorator]
    def update(self, output: tuple[Sequence[MetaTensor], Sequence[MetaTensor]]) -> None:
        """Add one-hot predictions and labels ``(C, *S)`` of a batch. The spacing comes from the labels' metadata."""
        for prediction, label in zip(*output):
            spacing = label.pixdim.tolist()[: label.ndim - 1]
            self.metric_fn(prediction[None], label[None], spacing=spacing)
