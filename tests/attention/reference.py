"""Both forms of XAttnRes written down step by step: what the code of the package is compared with."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xattnres_monai import CrossStageAttention, FeatureHistory
from xattnres_monai.attention.literal import LiteralAttention


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


def literal_attention(module: LiteralAttention, outputs: list[Tensor]) -> Tensor:
    """The paper's equation for sources and the current feature, which is the last of ``outputs``."""
    current = outputs[-1]
    values = []
    for projection, source in zip(module.projections, outputs[:-1]):
        kernel = projection.weight.flatten(1)
        values.append(torch.einsum("oc,bc...->bo...", kernel, resample(source, tuple(current.shape[2:]))))
    return depth_attention([*values, current], module.query(current), module.key_scale)


def nested_attention(module: CrossStageAttention, outputs: list[Tensor]) -> Tensor:
    """Sources weighed on their own grids, from the coarsest to that of the current feature, the last of ``outputs``."""
    current = outputs[-1]
    size = tuple(current.shape[2:])
    pairs = []  # (value, logit) of every source, on its grid
    for projection, source in zip([*module.projections, module.own], outputs):
        grid = tuple(min(n, m) for n, m in zip(source.shape[2:], size))
        feature = resample(source, grid)
        query = projection.weight[-1].reshape(1, -1, *[1] * len(grid))
        if projection.query is not None:
            kernel = projection.query.weight.flatten(1) / math.sqrt(current.shape[1])
            query = query + torch.einsum("oc,bc...->bo...", kernel, resample(current, grid))
        logit = (query * feature).sum(1) / torch.sqrt(feature.square().mean(1) + 1e-6)
        value = torch.einsum("oc,bc...->bo...", projection.weight[:-1], feature)
        pairs.append((current if projection is module.own else value, logit))
    grids = sorted(dict.fromkeys(tuple(logit.shape[1:]) for _, logit in pairs), key=math.prod)
    for position, grid in enumerate(grids):
        here = [pair for pair in pairs if tuple(pair[1].shape[1:]) == grid]
        logits = torch.stack([logit for _, logit in here], dim=1)
        value = torch.einsum("bn...,bnc...->bc...", logits.softmax(1), torch.stack([v for v, _ in here], dim=1))
        if grid == size:
            return value
        finer = next(later for later in grids[position + 1 :] if all(n >= m for n, m in zip(later, grid)))
        total = logits.logsumexp(1, keepdim=True)
        pairs.append((resample(value, finer), resample(total, finer)[:, 0]))
    raise AssertionError("the last grid is that of the current feature")


def cross_stage_attention(module: CrossStageAttention, outputs: list[Tensor]) -> Tensor:
    """What ``module`` computes for its sources and the current feature, with its parameters, the long way."""
    form = literal_attention if isinstance(module, LiteralAttention) else nested_attention
    attended = form(module, outputs)
    return attended if module.gamma is None else outputs[-1] + module.gamma * attended


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
