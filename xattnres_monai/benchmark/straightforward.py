"""XAttnRes as one would write it down: resize at full width, project, stack, normalise, einsum. What it costs is why
:mod:`xattnres_monai.attention` is written otherwise; it is here for that comparison (``benchmark``) only.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xattnres_monai.alignment import StageAligner
from xattnres_monai.attention import CrossStageAttention
from xattnres_monai.history import FeatureHistory

__all__ = ["StraightforwardAttention", "straightforward"]


class StraightforwardAttention(nn.Module):
    """Computes what ``attention`` does, with its parameters, where sizes of stages divide each other."""

    def __init__(self, attention: CrossStageAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, current: Tensor, history: FeatureHistory) -> Tensor:
        size = current.shape[2:]
        aligners = cast("list[StageAligner]", list(self.attention.aligners))
        values = [
            aligner.projection(_resize(history.feature(index), list(size)))
            for index, aligner in zip(self.attention.sources, aligners)
        ]
        stacked = torch.stack([*values, current], dim=1)  # (B, N, C, *S)
        keys = stacked * torch.rsqrt(stacked.square().mean(2, keepdim=True) + 1e-6)
        scale = self.attention.key_scale.reshape(-1, *[1] * len(size))
        query = self.attention.query(current).expand_as(current)
        weights = torch.einsum("bc...,bnc...->bn...", query, keys * scale).softmax(1)
        attended = torch.einsum("bn...,bnc...->bc...", weights, stacked)
        gamma = self.attention.gamma
        return attended if gamma is None else current + gamma * attended


def straightforward(network: nn.Module) -> nn.Module:
    """Replace every :class:`CrossStageAttention` in ``network.xattnres``; returns the network."""
    attentions = cast(nn.ModuleDict, network.xattnres)
    for name, module in attentions.items():
        if isinstance(module, CrossStageAttention):
            attentions[name] = StraightforwardAttention(module)
    return network


def _resize(source: Tensor, size: list[int]) -> Tensor:
    if list(source.shape[2:]) == size:
        return source
    if source.shape[2] < size[0]:
        mode = "bilinear" if len(size) == 2 else "trilinear"
        return F.interpolate(source, size=size, mode=mode, align_corners=False)
    pool = F.adaptive_avg_pool2d if len(size) == 2 else F.adaptive_avg_pool3d
    return pool(source, size)  # type: ignore[arg-type]
