"""Grid and width of one source, brought to those of one stage, in the cheaper of two equal orders."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.networks.layers import Conv
from torch import Tensor, nn

from xattnres_monai.interpolation import interpolate

__all__ = ["StageAligner"]


class StageAligner(nn.Module):
    """``V = P(R(h))``: resampling R and a 1×1(×1) convolution P without bias, ``in_channels`` → ``out_channels``.

    Both are linear and act on different axes, so they commute: the projection runs on the coarser grid. A finer source
    comes pooled (:meth:`FeatureHistory.pooled <xattnres_monai.history.FeatureHistory.pooled>`) and is projected
    afterwards; a coarser one is projected first and then interpolated linearly.

    Args:
        spatial_dims: 2 or 3.
        in_channels: width of the source.
        out_channels: width of the stage's input.

    Raises:
        ValueError: when ``spatial_dims`` is neither 2 nor 3.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"got spatial_dims={spatial_dims}, expected 2 or 3: images or volumes")
        self.mode = "bilinear" if spatial_dims == 2 else "trilinear"
        self.projection = Conv[Conv.CONV, spatial_dims](in_channels, out_channels, kernel_size=1, bias=False)

    def forward(self, source: Tensor, size: list[int]) -> Tensor:
        """Align ``source``.

        Args:
            source: ``(B, in_channels, *S)`` with no axis finer than ``size``.
            size: spatial size of the stage's input, in voxels.

        Returns:
            Tensor ``(B, out_channels, *size)``.
        """
        value: Tensor = self.projection(source)
        if list(value.shape[2:]) == size:
            return value
        if not torch.jit.is_scripting():
            if value.dim() == 5 and value.device.type == "cpu" and torch.compiler.is_dynamo_compiling():
                # the compiler's own code gathers eight voxels for each new one (docs/performance.md)
                return interpolate(value, size)
        return F.interpolate(value, size=size, mode=self.mode, align_corners=False)
