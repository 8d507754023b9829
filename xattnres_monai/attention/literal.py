"""The paper's equation, step by step: resize, project, normalise, weigh (arXiv 2604.03297).

The option ``form: literal`` selects it. It is here for comparison: it shows how the leaner form of :mod:`.cross_stage`
changes the results, and what that form saves.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from monai.networks.layers import Conv
from torch import Tensor, nn

from xattnres_monai.attention.cross_stage import CrossStageAttention
from xattnres_monai.attention.functional import depth_attention, depth_weights
from xattnres_monai.attention.history import FeatureHistory

__all__ = ["LiteralAttention"]


class StaticQuery(nn.Module):
    """One learned query for all positions, ``(1, C, 1, …)``.

    It starts at zero, so that a new network weighs all sources equally.
    """

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, channels, *[1] * spatial_dims))

    def forward(self, current: Tensor) -> Tensor:
        return self.weight


class SpatialQuery(nn.Module):
    """A query for each position, ``(B, C, *S)``: a 1×1 convolution of the current feature, divided by √C.

    The convolution starts at zero, so that a new network weighs all sources equally.
    """

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        self.convolution = Conv[Conv.CONV, spatial_dims](channels, channels, kernel_size=1)
        nn.init.zeros_(self.convolution.weight)
        nn.init.zeros_(self.convolution.bias)
        self.scale = 1.0 / math.sqrt(channels)

    def forward(self, current: Tensor) -> Tensor:
        return self.convolution(current) * self.scale


class LiteralAttention(CrossStageAttention):
    """Brings all sources to the grid and width of the current feature, and weighs them there by one softmax.

    The equation is::

        V_k = P_k(R(h_k))      a = softmax_k q · (g ⊙ V_k / rms(V_k))      y = Σ_k a_k V_k

    ``R`` resamples a source to the grid of the current feature, by average pooling or linear interpolation. ``P_k`` is
    a 1×1 convolution, ``q`` the pseudo-query and ``g`` a learned scale.

    The arguments and the use are those of :class:`~xattnres_monai.attention.cross_stage.CrossStageAttention`.
    """

    def _build(self, spatial_dims: int, channels: int, spatial: bool) -> None:
        self.mode = "bilinear" if spatial_dims == 2 else "trilinear"
        convolution = Conv[Conv.CONV, spatial_dims]
        self.projections = nn.ModuleList(convolution(width, channels, 1, bias=False) for width in self.widths)
        self.query = (SpatialQuery if spatial else StaticQuery)(spatial_dims, channels)
        self.key_scale = nn.Parameter(torch.ones(channels))

    def weights(self, current: Tensor, history: FeatureHistory) -> Tensor:
        """Return the weights ``(B, N, *S)`` of the sources in the order of the history, the current feature last."""
        values = self._aligned(current, self._sources(current, history))
        return depth_weights(values, self.query(current), self.key_scale)

    def without(self, current: Tensor, history: FeatureHistory, source: int) -> Tensor:
        """Build the stage's input without one source. The weights of the others are renormalised."""
        values = self._aligned(current, self._sources(current, history))
        del values[source]
        return self._fuse(current, depth_attention(values, self.query(current), self.key_scale))

    def _drawn(self, current: Tensor, history: FeatureHistory) -> tuple[list[Tensor], list[Tensor]]:
        none: list[Tensor] = []  # no mean squares: this form normalises keys after the projection
        return self._sources(current, history), none

    def _attend(self, current: Tensor, sources: list[Tensor], mean_squares: list[Tensor]) -> Tensor:
        values = self._aligned(current, sources)
        return self._fuse(current, depth_attention(values, self.query(current), self.key_scale))

    def _aligned(self, current: Tensor, sources: list[Tensor]) -> list[Tensor]:
        size = list(current.shape[2:])
        values: list[Tensor] = []
        for index, projection in enumerate(self.projections):
            source = sources[index]
            if list(source.shape[2:]) != size:
                source = F.interpolate(source, size=size, mode=self.mode, align_corners=False)
            values.append(projection(source))
        values.append(current)
        return values
