"""The feature history: all stage outputs so far, in order, and their pooled copies, each computed once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xattnres_monai.attention.functional import mean_square

__all__ = ["FeatureHistory"]


class FeatureHistory:
    """Holds the stage outputs ``h_0 … h_{t-1}`` of one forward pass for all later stages.

    A finer source is average-pooled to the stage's grid. Pooling goes level by level. It halves an axis while an even
    factor (rounded up) is left, but never below the stage's grid. Later stages reuse every level. For factor 2 this
    equals linear interpolation. For larger factors it avoids the aliasing of interpolation. If the sizes do not
    divide evenly, the pooling is adaptive.

    Keys are normalised by the mean square of a source over its channels. The history computes this once for each grid.

    A new history is empty. Make one for each forward pass, and append every stage output to it.

    Raises:
        IndexError: when :meth:`feature`, :meth:`pooled` or :meth:`mean_square` gets the index of a stage that is not in
            the history.

    Source:
        arXiv 2604.03297 (XAttnRes): every stage output goes into one history, and each stage chooses its input from all
        of it.

    Example::

        import torch
        from xattnres_monai import FeatureHistory

        history = FeatureHistory()
        history.append(torch.rand(1, 16, 64, 64))
        history.append(torch.rand(1, 32, 32, 32))
        history.pooled(0, size=[32, 32]).shape  # (1, 16, 32, 32)
    """

    def __init__(self) -> None:
        # pyramids[k] holds source k and its pooled copies, squares[k] the mean squares over their channels
        self.pyramids: list[list[Tensor]] = []
        self.squares: list[list[Tensor]] = []

    def __len__(self) -> int:
        return len(self.pyramids)

    def append(self, feature: Tensor) -> None:
        """Add the output ``(B, C, *S)`` of the stage that has just run."""
        self.pyramids.append([feature])
        empty: list[Tensor] = []
        self.squares.append(empty)

    def feature(self, index: int) -> Tensor:
        """Return the output of stage ``index`` as it was appended."""
        return self.pyramids[index][0]

    def pooled(self, index: int, size: list[int]) -> Tensor:
        """Return the output of stage ``index``, average-pooled along every axis where it is finer than ``size``.

        Args:
            index: position of the source in the history.
            size: spatial size of the current stage's grid, in voxels.

        Returns:
            Tensor ``(B, C, *min(S, size))``. An axis that is coarser than ``size`` stays as it is.
        """
        return pooled(self.pyramids[index], size)

    def mean_square(self, index: int, size: list[int]) -> Tensor:
        """Return the mean square over the channels of what :meth:`pooled` returns.

        Args:
            index: position of the source in the history.
            size: spatial size of the current stage's grid, in voxels.

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
    """Pool the first of ``levels`` to the grid ``size``, and add the levels made on the way to the list."""
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
        feature = feature.float()  # float16 sums overflow in the CPU kernels, and some kernels are missing
    if feature.dim() == 4:
        pooled = F.avg_pool2d(feature, factors) if divides else F.adaptive_avg_pool2d(feature, size)  # type: ignore[arg-type]
    else:
        pooled = F.avg_pool3d(feature, factors) if divides else F.adaptive_avg_pool3d(feature, size)  # type: ignore[arg-type]
    return pooled.to(dtype)
