"""Surface distances in the units of the image's spacing, which MONAI's metrics take and its handlers do not give."""

from __future__ import annotations

from collections.abc import Sequence

from ignite.metrics.metric import reinit__is_reduced
from monai.data import MetaTensor
from monai.handlers.ignite_metric import IgniteMetricHandler

__all__ = ["SurfaceMetric"]


class SurfaceMetric(IgniteMetricHandler):
    """MONAI handler of ``HausdorffDistanceMetric`` or ``SurfaceDistanceMetric`` (given as ``metric_fn``).

    Distances are in mm where the label's file has a spacing, and in pixels for PNG. A distance is not finite where
    prediction or label has no voxel of a class.
    """

    @reinit__is_reduced  # type: ignore[untyped-decorator]
    def update(self, output: tuple[Sequence[MetaTensor], Sequence[MetaTensor]]) -> None:
        """Take one-hot predictions and labels ``(C, *S)`` of a batch; the labels' metadata give the spacing."""
        for prediction, label in zip(*output):
            spacing = label.pixdim.tolist()[: label.ndim - 1]
            self.metric_fn(prediction[None], label[None], spacing=spacing)
