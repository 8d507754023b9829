"""The feature history: every stage output so far, in order, and pooled copies of it, each made once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xattnres_monai.attention.functional import mean_square

__all__ = ["FeatureHistory"]


class FeatureHistory:
    """Stage outputs ``h_0 … h_{t-1}`` of one forward pass, shared by all later stages.

    A source that is finer than a stage is brought to its grid by average pooling, level by level: an axis is halved as
    long as an even factor (rounded up) is left, but not below the grid that asks, and every level is kept for the
    stages to come. For factor 2 this equals linear interpolation; beyond, it is free of the aliasing that interpolation
    has. Sizes that do not divide are pooled adaptively. The mean square of a source over its channels, by which keys
    are normalised, is computed once and pooled in the same way.

    Example::

        history = FeatureHistory()
        for stage, attention in zip(stages, attentions):
            feature = stage(attention(feature, history))
            history.append(feature)
    """

    def __init__(self) -> None:
        # pyramids[k] holds source k and its pooled copies, squares[k] its mean square and the pooled copies of that
        self.pyramids: list[list[Tensor]] = []
        self.squares: list[list[Tensor]] = []

    def __len__(self) -> int:
        return len(self.pyramids)

    def append(self, feature: Tensor) -> None:
        """Add the output ``(B, C, *S)`` of the stage that ran last."""
        self.pyramids.append([feature])
        empty: list[Tensor] = []
        self.squares.append(empty)

    def feature(self, index: int) -> Tensor:
        """The output of stage ``index`` as it was appended."""
        return self.pyramids[index][0]

    def pooled(self, index: int, size: list[int]) -> Tensor:
        """The output of stage ``index``, average-pooled along every axis where it is finer than ``size``.

        Args:
            index: position of the source in the history.
            size: spatial size of the grid that asks, in voxels.

        Returns:
            Tensor ``(B, C, *min(S, size))``; an axis that is coarser than ``size`` stays as it is.
        """
        return pooled(self.pyramids[index], size)

    def mean_square(self, index: int, size: list[int]) -> Tensor:
        """The mean square of stage ``index`` over its channels, pooled as :meth:`pooled` does.

        Args:
            index: position of the source in the history.
            size: spatial size of the grid that asks, in voxels.

        Returns:
            Tensor ``(B, 1, *min(S, size))``, in float32 at least.
        """
        feature = self.pooled(index, size)
        for square in self.squares[index]:
            if square.shape[2:] == feature.shape[2:]:
                return square
        square = mean_square(feature)
        self.squares[index].append(square)
        return square


def pooled(levels: list[Tensor], size: list[int]) -> Tensor:
    """The first of ``levels`` on the grid ``size``; levels that are made on the way are added to the list."""
    feature = levels[0]
    target = [min(n, m) for n, m in zip(feature.shape[2:], size)]
    while list(feature.shape[2:]) != target:
        feature = _level(levels, feature, _next_level(list(feature.shape[2:]), target))
    return feature


def _level(levels: list[Tensor], finer: Tensor, size: list[int]) -> Tensor:
    for copy in levels:
        if list(copy.shape[2:]) == size:
            return copy
    copy = _average_pool(finer, size)
    levels.append(copy)
    return copy


def _next_level(size: list[int], target: list[int]) -> list[int]:
    level: list[int] = []
    for n, m in zip(size, target):
        factor = (n + m - 1) // m
        level.append(max((n + 1) // 2, m) if factor % 2 == 0 else m)
    return level


def _average_pool(feature: Tensor, size: list[int]) -> Tensor:
    factors = [n // m for n, m in zip(feature.shape[2:], size)]
    divides = [n % m for n, m in zip(feature.shape[2:], size)] == [0] * len(size)
    dtype = feature.dtype
    if feature.device.type == "cpu" and dtype != torch.float64:
        feature = feature.float()  # in float16 its kernels add up beyond the range, and some are missing
    if feature.dim() == 4:
        pooled = F.avg_pool2d(feature, factors) if divides else F.adaptive_avg_pool2d(feature, size)  # type: ignore[arg-type]
    else:
        pooled = F.avg_pool3d(feature, factors) if divides else F.adaptive_avg_pool3d(feature, size)  # type: ignore[arg-type]
    return pooled.to(dtype)
