"""Cross-stage attention of one stage: its aligners, its pseudo-query, and how the result enters the stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from monai.networks.layers import Conv
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xattnres_monai.alignment import StageAligner
from xattnres_monai.blockwise import blockwise_depth_attention, runs_blockwise
from xattnres_monai.functional import depth_attention, depth_weights
from xattnres_monai.history import FeatureHistory
from xattnres_monai.options import XAttnResOptions

__all__ = ["CrossStageAttention"]

# what aligners consist of as they are made
PLAIN = (nn.ModuleList, StageAligner, nn.Conv2d, nn.Conv3d)


class StaticQuery(nn.Module):
    """One learned query for all positions, ``(1, C, 1, …)``, zero at first: a new network weighs sources equally."""

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, channels, *[1] * spatial_dims))

    def forward(self, current: Tensor) -> Tensor:
        return self.weight


class SpatialQuery(nn.Module):
    """A query for each position, ``(B, C, *S)``: a 1×1 convolution of the current feature, zero at first, over √C."""

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        self.convolution = Conv[Conv.CONV, spatial_dims](channels, channels, kernel_size=1)
        nn.init.zeros_(self.convolution.weight)
        nn.init.zeros_(self.convolution.bias)
        self.scale = 1.0 / math.sqrt(channels)

    def forward(self, current: Tensor) -> Tensor:
        return self.convolution(current) * self.scale


class CrossStageAttention(nn.Module):
    """Lets one stage choose its input from the whole feature history (arXiv 2604.03297).

    The sources are the earlier stages' outputs, aligned to the current feature, and the current feature as it is.

    Args:
        spatial_dims: 2 or 3.
        channels: width C of the current feature.
        source_channels: widths of the sources, in the order of the history.
        options: ``query``, ``fusion`` and ``recompute`` are used here.
        sources: places of the sources in the history; by default all that are before the current feature's.

    Raises:
        ValueError: when ``sources`` are not as many as ``source_channels``.

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
        self.recompute = options.recompute
        self.widths = list(source_channels)
        self.sources = list(range(len(self.widths)) if sources is None else sources)
        if len(self.sources) != len(self.widths):
            raise ValueError(f"got {len(self.sources)} sources, expected {len(self.widths)}, one for each width")
        self.expected = max(self.sources, default=-1) + 2  # entries of the history: the sources and the current feature
        self.aligners = nn.ModuleList(StageAligner(spatial_dims, width, channels) for width in source_channels)
        self.query = (StaticQuery if options.query == "static" else SpatialQuery)(spatial_dims, channels)
        self.key_scale = nn.Parameter(torch.ones(channels))
        self.gamma = nn.Parameter(torch.zeros(())) if options.fusion == "residual" else None

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
        sources = self._sources(current, history)
        if not torch.jit.is_scripting():
            if runs_blockwise(current) and self._is_plain():
                return self._fuse(current, self._blockwise(current, sources))
            if self.recompute and torch.is_grad_enabled():
                return checkpoint(self._attend, current, sources, use_reentrant=False)
        return self._attend(current, sources)

    def weights(self, current: Tensor, history: FeatureHistory) -> Tensor:
        """Weight ``(B, N, *S)`` of each source in the order of the history, the current feature last."""
        values = self._align(current, self._sources(current, history))
        return depth_weights(values, self.query(current), self.key_scale)

    def without(self, current: Tensor, history: FeatureHistory, source: int) -> Tensor:
        """The stage's input when it has one source less: the others' weights are renormalised.

        Args:
            current: as in :meth:`forward`.
            history: as in :meth:`forward`.
            source: index of the source that is left out, in the order of :meth:`weights`.
        """
        values = self._align(current, self._sources(current, history))
        del values[source]
        return self._fuse(current, depth_attention(values, self.query(current), self.key_scale))

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

    def _align(self, current: Tensor, sources: list[Tensor]) -> list[Tensor]:
        values: list[Tensor] = []
        for index, aligner in enumerate(self.aligners):
            values.append(aligner(sources[index], list(current.shape[2:])))
        values.append(current)
        return values

    def _attend(self, current: Tensor, sources: list[Tensor]) -> Tensor:
        values = self._align(current, sources)
        return self._fuse(current, depth_attention(values, self.query(current), self.key_scale))

    @torch.jit.unused
    def _is_plain(self) -> bool:
        """Whether the aligners are as they were made: pruning, adapters and hooks need that modules are called."""
        return all(
            type(module) in PLAIN
            and getattr(module, "bias", None) is None
            and not (module._forward_hooks or module._forward_pre_hooks)
            and not (module._backward_hooks or module._backward_pre_hooks)
            for module in self.aligners.modules()
        )

    @torch.jit.unused
    def _blockwise(self, current: Tensor, sources: list[Tensor]) -> Tensor:
        kernels = [cast(StageAligner, aligner).projection.weight for aligner in self.aligners]
        scale = self.key_scale.reshape([1, -1] + [1] * (current.dim() - 2))
        return blockwise_depth_attention(current, sources, kernels, self.query(current) * scale)

    def _fuse(self, current: Tensor, attended: Tensor) -> Tensor:
        if self.gamma is None:
            return attended
        return current + self.gamma * attended
