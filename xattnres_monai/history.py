"""The feature history: every stage output so far, in order, and pooled copies of it, each made once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["FeatureHistory"]


class FeatureHistory:
    """Stage outputs ``h_0 … h_{t-1}`` of one forward pass, shared by all later stages.

    A source that is finer than a stage is brought to its grid by average pooling, level by level: an axis is halved as
    long as an even factor (rounded up) is left, but not below the grid that asks, and every level is kept for the
    stages to come. For factor 2 this equals linear interpolation; beyond, it is free of the aliasing that interpolation
    has. Sizes that do not divide are pooled adaptively.

    Example::

        history = FeatureHistory()
        for stage, attention in zip(stages, attentions):
            feature = stage(attention(feature, history))
            history.append(feature)
    """

    def __init__(self) -> None:
        # pyramids[k] holds source k and its pooled copies
        self.pyramids: list[list[Tensor]] = []

    def __len__(self) -> int:
        return len(self.pyramids)

    def append(self, feature: Tensor) -> None:
        """Add the output ``(B, C, *S)`` of the stage that ran last."""
        self.pyramids.append([feature])

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
        feature = self.pyramids[index][0]
        target = [min(n, m) for n, m in zip(feature.shape[2:], size)]
        while list(feature.shape[2:]) != target:
            feature = self._level(index, feature, _next_level(list(feature.shape[2:]), target))
        return feature

    def _level(self, index: int, finer: Tensor, size: list[int]) -> Tensor:
        for copy in self.pyramids[index]:
            if list(copy.shape[2:]) == size:
                return copy
        copy = _average_pool(finer, size)
        self.pyramids[index].append(copy)
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
    if not torch.jit.is_scripting():
        inference = not torch.is_grad_enabled() and not torch.jit.is_tracing() and not torch.compiler.is_compiling()
        if inference and divides and max(factors) == 2 and feature.device.type == "cpu":
            return _halved(feature, factors).to(dtype)
    if feature.dim() == 4:
        pooled = F.avg_pool2d(feature, factors) if divides else F.adaptive_avg_pool2d(feature, size)  # type: ignore[arg-type]
    else:
        pooled = F.avg_pool3d(feature, factors) if divides else F.adaptive_avg_pool3d(feature, size)  # type: ignore[arg-type]
    return pooled.to(dtype)


def _halved(feature: Tensor, factors: list[int]) -> Tensor:
    """Averages of pairs along the axes of factor 2, in a tenth to a half of the time of PyTorch's pooling on a CPU.

    Not for training: the gradients take more memory (docs/performance.md).
    """
    total = feature
    for axis, factor in enumerate(factors, start=2):
        if factor == 2:
            even, odd = total.unflatten(axis, (-1, 2)).unbind(axis + 1)
            total = even + odd
    return total * 0.5 ** factors.count(2)
