"""The attention before one stage: it weighs earlier stage outputs and builds the stage's input from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.layers import Conv
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xattnres_monai.attention.functional import at_least_float32, mean_square, nested_attention
from xattnres_monai.attention.history import FeatureHistory, pooled
from xattnres_monai.attention.options import XAttnResOptions

__all__ = ["CrossStageAttention"]

LEFT_OUT = -1e30  # a source with this score gets no weight; -inf would give NaN on a grid with a single source


class Projection(nn.Module):
    """Computes the value ``v = P h`` and the score ``s = u · h`` of one source, by one matrix product.

    ``u`` is the stage's pseudo-query for this source. It starts at zero, so that a new network weighs all sources
    equally. A spatial query adds a 1×1 convolution of the current feature, divided by √C, to ``u`` at every position.
    The convolution starts at zero too.

    Args:
        spatial_dims: 2 or 3.
        in_channels: width of the source.
        out_channels: width of the value, or 0 to compute the score alone.
        query_channels: width C of the current feature if the query is spatial, else 0.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, query_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.weight = nn.Parameter(torch.zeros(out_channels + 1, in_channels))  # the rows of P, then u
        nn.init.uniform_(self.weight[:-1], -1 / math.sqrt(in_channels), 1 / math.sqrt(in_channels))  # as nn.Conv2d
        self.scale = 1 / math.sqrt(max(1, query_channels))
        self.query = None
        if query_channels > 0:
            self.query = Conv[Conv.CONV, spatial_dims](query_channels, in_channels, kernel_size=1, bias=False)
            nn.init.zeros_(self.query.weight)

    def forward(self, source: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        """Return the value ``(B, out_channels, *S)`` and the score ``(B, 1, *S)``. Both inputs are on the grid S."""
        # on a CPU a batched matrix product is faster than a 1×1 convolution (docs/performance.md)
        product = torch.bmm(self.weight.expand(source.shape[0], -1, -1), source.flatten(2))
        value, score = product.unflatten(2, source.shape[2:]).split([self.out_channels, 1], dim=1)
        if self.query is not None:
            query = at_least_float32(self.query(current))  # its product with the source can overflow float16
            score = score + (query * source).sum(1, keepdim=True) * self.scale
        return value, score


class CrossStageAttention(nn.Module):
    """Builds the input of one stage from the feature history.

    The current feature is what a plain network would hand to the stage. The sources are the outputs of earlier stages
    and the current feature. The module projects every earlier output to the width of the current feature, and takes the
    current feature as it is. It weighs all sources on their own grids (:func:`xattnres_monai.nested_attention`).

    Args:
        spatial_dims: 2 for images, 3 for volumes.
        channels: number C of channels of the current feature.
        source_channels: number of channels of each earlier output, in the order of the history.
        options: an :class:`~xattnres_monai.XAttnResOptions`, a mapping with its names, or ``None`` for the defaults.
            The module uses ``query``, ``fusion`` and ``recompute``.
        sources: positions of the earlier outputs in the history, one for each number of channels. By
            default these are the first ones, ``0 … len(source_channels) - 1``.

    Returns:
        A module. Calling it with ``(current, history)`` returns the stage's input ``(B, C, *S)``.

    Raises:
        ValueError: when ``spatial_dims`` is neither 2 nor 3, when ``sources`` and ``source_channels`` differ in length,
            or when an option or its value is unknown.
        TypeError: when ``options`` is of another type.

    Source:
        arXiv 2604.03297 (XAttnRes), the cross-stage form of Attention Residuals (arXiv 2603.15031)::

            V_k = P_k(R(h_k))        a = softmax_k q · (g ⊙ V_k / rms(V_k))        y = Σ_k a_k V_k

        docs/mechanism.md explains how this module differs from the equation, and docs/performance.md what it costs.

    Example::

        import torch
        from xattnres_monai import CrossStageAttention, FeatureHistory

        attention = CrossStageAttention(spatial_dims=2, channels=32, source_channels=[16])
        history = FeatureHistory()
        history.append(torch.rand(1, 16, 64, 64))
        history.append(torch.rand(1, 32, 32, 32))
        attention(history.feature(1), history).shape  # (1, 32, 32, 32)
    """

    def __init__(
        self,
        spatial_dims: int,
        channels: int,
        source_channels: Sequence[int],
        options: XAttnResOptions | Mapping[str, Any] | None = None,
        sources: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        options = XAttnResOptions.of(options)
        if spatial_dims not in (2, 3):
            raise ValueError(f"got spatial_dims={spatial_dims}, expected 2 or 3; give 2 for images, 3 for volumes")
        self.recompute = options.recompute
        self.widths = list(source_channels)
        self.sources = list(range(len(self.widths)) if sources is None else sources)
        if len(self.sources) != len(self.widths):
            raise ValueError(
                f"got {len(self.sources)} sources, expected {len(self.widths)}, one for each width; "
                "give sources and source_channels of the same length"
            )
        self.expected = max(self.sources, default=-1) + 2  # entries of the history: sources and current feature
        self.gamma = nn.Parameter(torch.zeros(())) if options.fusion == "residual" else None
        self._build(spatial_dims, channels, options.query == "spatial")

    def _build(self, spatial_dims: int, channels: int, spatial: bool) -> None:
        asking = channels if spatial else 0
        self.projections = nn.ModuleList(Projection(spatial_dims, width, channels, asking) for width in self.widths)
        self.own = Projection(spatial_dims, channels, 0, asking)  # a score alone: the current feature is its own value

    def forward(self, current: Tensor, history: FeatureHistory) -> Tensor:
        """Build the stage's input.

        Args:
            current: the current feature ``(B, C, *S)``, which a plain network would hand to the stage.
            history: all stage outputs so far. Its last entry is the output of the stage that made ``current``.

        Returns:
            Tensor of the shape of ``current``.

        Raises:
            ValueError: when the history is too short for the module's sources, or when a source has another width than
                the module was built for.
        """
        sources, mean_squares = self._drawn(current, history)
        if not torch.jit.is_scripting():
            if self.recompute and torch.is_grad_enabled():
                return checkpoint(self._attend, current, sources, mean_squares, use_reentrant=False)
        return self._attend(current, sources, mean_squares)

    def weights(self, current: Tensor, history: FeatureHistory) -> Tensor:
        """Return the weight of each source at every position.

        The weight of a source is its share in the result. A coarser source passes through several grids. Its share is
        its weight on its own grid, interpolated and multiplied by the weights of the carried pairs on the finer grids.

        Args:
            current: as in :meth:`forward`.
            history: as in :meth:`forward`.

        Returns:
            Weights ``(B, N, *S)`` for N sources in the order of the history, the current feature last.
        """
        sources, mean_squares = self._drawn(current, history)
        values, scores = self._projected(current, sources)
        indicators = []
        for index, value in enumerate(values):
            indicator = value.new_zeros(value.shape[0], len(values), *value.shape[2:], dtype=mean_squares[0].dtype)
            indicator[:, index] = 1
            indicators.append(indicator)
        return nested_attention(indicators, scores, mean_squares)

    def without(self, current: Tensor, history: FeatureHistory, source: int) -> Tensor:
        """Build the stage's input without one source. The weights of the others are renormalised.

        Args:
            current: as in :meth:`forward`.
            history: as in :meth:`forward`.
            source: index of the source to leave out, in the order of :meth:`weights`.

        Returns:
            Tensor of the shape of ``current``.
        """
        sources, mean_squares = self._drawn(current, history)
        values, scores = self._projected(current, sources)
        scores[source] = torch.full_like(mean_squares[source], LEFT_OUT)
        return self._fuse(current, nested_attention(values, scores, mean_squares))

    def _drawn(self, current: Tensor, history: FeatureHistory) -> tuple[list[Tensor], list[Tensor]]:
        """Return the sources, pooled where finer than ``current``, and all mean squares, that of ``current`` last."""
        size = list(current.shape[2:])
        sources = self._sources(current, history)
        mean_squares = [history.mean_square(index, size) for index in self.sources]
        mean_squares.append(self._own_mean_square(current, history))
        return sources, mean_squares

    def _sources(self, current: Tensor, history: FeatureHistory) -> list[Tensor]:
        if len(history) < self.expected:
            raise ValueError(
                f"got a history of {len(history)} stage outputs, expected at least {self.expected}, the current "
                "feature included; append every stage output to the history"
            )
        sources = [history.pooled(index, list(current.shape[2:])) for index in self.sources]
        widths = [source.shape[1] for source in sources]
        if widths != self.widths:
            raise ValueError(
                f"got sources of {widths} channels, expected {self.widths}; correct the widths in source_channels "
                "or in the stages"
            )
        return sources

    def _own_mean_square(self, current: Tensor, history: FeatureHistory) -> Tensor:
        if not torch.jit.is_scripting():
            if history.feature(len(history) - 1) is current:  # the history keeps it for later stages
                return history.mean_square(len(history) - 1, list(current.shape[2:]))
        return mean_square(current)

    def _attend(self, current: Tensor, sources: list[Tensor], mean_squares: list[Tensor]) -> Tensor:
        values, scores = self._projected(current, sources)
        return self._fuse(current, nested_attention(values, scores, mean_squares))

    def _projected(self, current: Tensor, sources: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        values: list[Tensor] = []
        scores: list[Tensor] = []
        copies = [current]  # pooled copies on the sources' grids, for spatial queries
        for index, projection in enumerate(self.projections):
            source = sources[index]
            query = current if projection.query is None else pooled(copies, list(source.shape[2:]))
            value, score = projection(source, query)
            values.append(value)
            scores.append(score)
        values.append(current)
        scores.append(self.own(current, current)[1])
        return values, scores

    def _fuse(self, current: Tensor, attended: Tensor) -> Tensor:
        if self.gamma is None:
            return attended
        return current + self.gamma * attended
