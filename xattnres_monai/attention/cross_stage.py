"""Cross-stage attention of one stage: what it draws on, how it weighs it, and how the result enters the stage."""

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

LEFT_OUT = -1e30  # a score that weighs nothing; -inf would give NaN on a grid with a single source


class Projection(nn.Module):
    """Value and score of one source for one stage: ``v = P h`` and ``s = u · h``, by one matrix product.

    ``u`` is the pseudo-query of the stage for this source. It starts at zero, so that a new network weighs all sources
    equally. With ``spatial``, a 1×1 convolution of the current feature, zero at first, is added to ``u`` at every
    position, over √C.

    Args:
        spatial_dims: 2 or 3.
        in_channels: width of the source.
        out_channels: width of the value; 0 for a score alone.
        query_channels: width of the current feature where the query is spatial, else 0.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, query_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.weight = nn.Parameter(torch.zeros(out_channels + 1, in_channels))  # the rows of P, then u
        nn.init.uniform_(self.weight[:-1], -1 / math.sqrt(in_channels), 1 / math.sqrt(in_channels))  # as of nn.Conv2d
        self.scale = 1 / math.sqrt(max(1, query_channels))
        self.query = None
        if query_channels > 0:
            self.query = Conv[Conv.CONV, spatial_dims](query_channels, in_channels, kernel_size=1, bias=False)
            nn.init.zeros_(self.query.weight)

    def forward(self, source: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        """Value ``(B, out_channels, *S)`` and score ``(B, 1, *S)``; both features are on the grid S."""
        # on a CPU a batched product takes less time than a 1×1 convolution (docs/performance.md)
        product = torch.bmm(self.weight.expand(source.shape[0], -1, -1), source.flatten(2))
        value, score = product.unflatten(2, source.shape[2:]).split([self.out_channels, 1], dim=1)
        if self.query is not None:
            query = at_least_float32(self.query(current))  # its product with the source is beyond float16's range
            score = score + (query * source).sum(1, keepdim=True) * self.scale
        return value, score


class CrossStageAttention(nn.Module):
    """Lets one stage choose its input from the whole feature history (arXiv 2604.03297).

    The sources are the earlier stages' outputs, projected to the width of the current feature, and the current feature
    as it is. They are weighed on their own grids by :func:`xattnres_monai.nested_attention`. What differs from the
    paper's equation, and what the attention costs: docs/mechanism.md.

    Args:
        spatial_dims: 2 or 3.
        channels: width C of the current feature.
        source_channels: widths of the sources, in the order of the history.
        options: ``query``, ``fusion`` and ``recompute`` are used here.
        sources: places of the sources in the history; by default all that are before the current feature's.

    Raises:
        ValueError: when ``spatial_dims`` is neither 2 nor 3, or ``sources`` are not as many as ``source_channels``.

    Example::

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
            raise ValueError(f"got spatial_dims={spatial_dims}, expected 2 or 3: images or volumes")
        self.recompute = options.recompute
        self.widths = list(source_channels)
        self.sources = list(range(len(self.widths)) if sources is None else sources)
        if len(self.sources) != len(self.widths):
            raise ValueError(f"got {len(self.sources)} sources, expected {len(self.widths)}, one for each width")
        self.expected = max(self.sources, default=-1) + 2  # entries of the history: the sources and the current feature
        self.gamma = nn.Parameter(torch.zeros(())) if options.fusion == "residual" else None
        self._build(spatial_dims, channels, options.query == "spatial")

    def _build(self, spatial_dims: int, channels: int, spatial: bool) -> None:
        asking = channels if spatial else 0
        self.projections = nn.ModuleList(Projection(spatial_dims, width, channels, asking) for width in self.widths)
        self.own = Projection(spatial_dims, channels, 0, asking)  # the current feature competes with its score

    def forward(self, current: Tensor, history: FeatureHistory) -> Tensor:
        """The stage's input.

        Args:
            current: ``(B, C, *S)``, what a plain network would hand to the stage.
            history: all stage outputs so far; its last entry is the stage that made ``current``.

        Returns:
            Tensor of the shape of ``current``.

        Raises:
            ValueError: when the history is shorter than the sources that this stage was built for, or theirs are other
                widths.
        """
        sources, mean_squares = self._drawn(current, history)
        if not torch.jit.is_scripting():
            if self.recompute and torch.is_grad_enabled():
                return checkpoint(self._attend, current, sources, mean_squares, use_reentrant=False)
        return self._attend(current, sources, mean_squares)

    def weights(self, current: Tensor, history: FeatureHistory) -> Tensor:
        """Weight ``(B, N, *S)`` of each source in the order of the history, the current feature last.

        It is the share that the source has in the result: of a coarser source, the product of its weight on its own
        grid, interpolated, and the weights of the carried pairs on the finer grids.
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
        """The stage's input when it has one source less: the others' weights are renormalised.

        Args:
            current: as in :meth:`forward`.
            history: as in :meth:`forward`.
            source: index of the source that is left out, in the order of :meth:`weights`.
        """
        sources, mean_squares = self._drawn(current, history)
        values, scores = self._projected(current, sources)
        scores[source] = torch.full_like(mean_squares[source], LEFT_OUT)
        return self._fuse(current, nested_attention(values, scores, mean_squares))

    def _drawn(self, current: Tensor, history: FeatureHistory) -> tuple[list[Tensor], list[Tensor]]:
        """The sources, no axis finer than the current feature's, and their mean squares; the current one's last."""
        size = list(current.shape[2:])
        sources = self._sources(current, history)
        mean_squares = [history.mean_square(index, size) for index in self.sources]
        mean_squares.append(self._own_mean_square(current, history))
        return sources, mean_squares

    def _sources(self, current: Tensor, history: FeatureHistory) -> list[Tensor]:
        if len(history) < self.expected:
            raise ValueError(
                f"got a history of {len(history)} stage outputs, expected at least {self.expected}: the sources and "
                "the current feature; append every stage output to it"
            )
        sources = [history.pooled(index, list(current.shape[2:])) for index in self.sources]
        widths = [source.shape[1] for source in sources]
        if widths != self.widths:
            raise ValueError(f"got sources of {widths} channels, expected {self.widths}; mend the widths of the stages")
        return sources

    def _own_mean_square(self, current: Tensor, history: FeatureHistory) -> Tensor:
        if not torch.jit.is_scripting():
            if history.feature(len(history) - 1) is current:  # later stages draw on it: once for all
                return history.mean_square(len(history) - 1, list(current.shape[2:]))
        return mean_square(current)

    def _attend(self, current: Tensor, sources: list[Tensor], mean_squares: list[Tensor]) -> Tensor:
        values, scores = self._projected(current, sources)
        return self._fuse(current, nested_attention(values, scores, mean_squares))

    def _projected(self, current: Tensor, sources: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        values: list[Tensor] = []
        scores: list[Tensor] = []
        copies = [current]  # on the sources' grids, for spatial queries
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
