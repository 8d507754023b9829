"""XAttnRes in the straightforward form: resize, project, stack, normalise, einsum. The oracle of the efficient form."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xattnres_monai import CrossStageAttention, FeatureHistory


def resample(source: Tensor, size: tuple[int, ...]) -> Tensor:
    """R of the mechanism, one axis at a time: linear towards finer grids, averages towards coarser ones."""
    for axis, wanted in enumerate(size, start=2):
        source = _resample_axis(source.movedim(axis, -1), wanted).movedim(-1, axis)
    return source


def _resample_axis(source: Tensor, wanted: int) -> Tensor:
    while source.shape[-1] > wanted:
        factor = math.ceil(source.shape[-1] / wanted)
        level = max(math.ceil(source.shape[-1] / 2), wanted) if factor % 2 == 0 else wanted
        source = F.adaptive_avg_pool1d(source.flatten(0, -2), level).unflatten(0, source.shape[:-1])
    if source.shape[-1] < wanted:
        shape = source.shape[:-1]
        flat = F.interpolate(source.reshape(-1, 1, source.shape[-1]), size=wanted, mode="linear", align_corners=False)
        source = flat.reshape(*shape, wanted)
    return source


def depth_weights(values: list[Tensor], query: Tensor, key_scale: Tensor) -> Tensor:
    """Weights ``(B, N, *S)`` of sources ``(B, C, *S)`` for a query that broadcasts to them."""
    stacked = torch.stack(values, dim=1)  # (B, N, C, *S)
    keys = stacked / torch.sqrt(stacked.square().mean(2, keepdim=True) + 1e-6)
    scale = key_scale.reshape(-1, *[1] * (values[0].dim() - 2))
    return torch.einsum("bc...,bnc...->bn...", query.expand_as(values[0]), keys * scale).softmax(1)


def depth_attention(values: list[Tensor], query: Tensor, key_scale: Tensor) -> Tensor:
    return torch.einsum("bn...,bnc...->bc...", depth_weights(values, query, key_scale), torch.stack(values, dim=1))


def cross_stage_attention(module: CrossStageAttention, outputs: list[Tensor]) -> Tensor:
    """What ``module`` computes for its sources and the current feature, with its parameters, the long way."""
    current = outputs[-1]
    values = []
    for aligner, source in zip(module.aligners, outputs[:-1]):
        kernel = aligner.projection.weight.flatten(1)
        values.append(torch.einsum("oc,bc...->bo...", kernel, resample(source, tuple(current.shape[2:]))))
    attended = depth_attention([*values, current], module.query(current), module.key_scale)
    return attended if module.gamma is None else current + module.gamma * attended


class NaiveAttention(nn.Module):
    """Stands in a network for ``attention``."""

    def __init__(self, attention: CrossStageAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, current: Tensor, history: FeatureHistory) -> Tensor:
        sources = [history.feature(source) for source in self.attention.sources]
        return cross_stage_attention(self.attention, [*sources, current])


def naive(network: nn.Module) -> nn.Module:
    """A copy of ``network`` whose attention is computed the long way."""
    network = copy.deepcopy(network)
    for name, module in network.xattnres.items():
        if isinstance(module, CrossStageAttention):
            network.xattnres[name] = NaiveAttention(module)
    return network
