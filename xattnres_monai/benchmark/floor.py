"""The least time that the aggregation of a network can take on a machine, however it is written.

Of every stage: the sources (pooled, where they are finer) and the current feature have to be read and the result to be
written once; and the projections, one linear interpolation of what is coarser, and two operations each for norm, dot
product and sum have to be computed for every number. The floor is the larger of the two times, at the rates that this
machine reaches with a copy of a large array and a product of large matrices.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from xattnres_monai.attention import CrossStageAttention
from xattnres_monai.history import FeatureHistory

__all__ = ["Rates", "Work", "least_seconds", "rates", "work"]


class Work(NamedTuple):
    """What an inference has to move and to compute for the aggregation."""

    numbers: int  # read or written
    operations: int  # of floating point


def work(network: nn.Module, image: torch.Tensor) -> Work:
    """Count the work of all :class:`CrossStageAttention` in ``network`` for an image ``(B, C, *S)``."""
    moved, operations = 0, 0
    histories: list[FeatureHistory] = []

    def count(module: nn.Module, inputs: tuple[torch.Tensor, FeatureHistory], _: Any) -> None:
        nonlocal moved, operations
        current, history = inputs
        histories.append(history)
        values = current.numel()
        sources = [
            history.pooled(index, list(current.shape[2:])) for index in cast(CrossStageAttention, module).sources
        ]
        moved += 2 * values + sum(source.numel() for source in sources)
        operations += 6 * values * (len(sources) + 1)
        for source in sources:
            positions = source.shape[0] * math.prod(source.shape[2:])
            operations += 2 * source.shape[1] * current.shape[1] * positions
            operations += 3 * values * (source.shape[2:] != current.shape[2:])

    modules = [module for module in network.modules() if isinstance(module, CrossStageAttention)]
    hooks = [module.register_forward_hook(count) for module in modules]
    try:
        with torch.no_grad():
            network.eval()(image)
    finally:
        for hook in hooks:
            hook.remove()
    pyramids = histories[-1].pyramids if histories else []
    for levels in pyramids:  # every pooled copy is made once, of a finer one
        moved += sum(finer.numel() + copy.numel() for finer, copy in itertools.pairwise(levels))
    return Work(moved, operations)


class Rates(NamedTuple):
    """Seconds that a machine takes."""

    copying: float  # for a number that is read or written
    computing: float  # for an operation


def least_seconds(needed: Work, rates: Rates) -> float:
    """The least time for ``needed``: of moving and computing, what takes longer."""
    return max(needed.numbers * rates.copying, needed.operations * rates.computing)


def rates(device: str) -> Rates:
    """What ``device`` reaches in float32."""
    source, target = torch.zeros(2, 2**26, device=device)
    left, right, product = torch.zeros(3, 2048, 2048, device=device)
    copying = _seconds(lambda: target.copy_(source), device) / (2 * source.numel())
    computing = _seconds(lambda: torch.mm(left, right, out=product), device) / (2 * 2048**3)
    return Rates(copying, computing)


def _seconds(step: Callable[[], Any], device: str) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        step()
        if device != "cpu":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)
