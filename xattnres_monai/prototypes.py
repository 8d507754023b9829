"""Leaner forms of cross-stage attention, to be trained beside the landed one on ACDC (docs/results.md): plain, not tuned.

Each function replaces the attention of a built network, with the parameters of the landed form. Taken out again once one
form is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xattnres_monai.attention import CrossStageAttention
from xattnres_monai.history import FeatureHistory, _average_pool, _next_level

EPS = 1e-6


class Prototype(nn.Module):
    """What the forms share: sources by grid, from the coarsest to the stage's own."""

    def __init__(self, inner: CrossStageAttention) -> None:
        super().__init__()
        self.inner = inner

    def grids(self, current: Tensor, history: FeatureHistory) -> dict[tuple[int, ...], list[tuple[int, int, Tensor]]]:
        size = list(current.shape[2:])
        groups: dict[tuple[int, ...], list[tuple[int, int, Tensor]]] = {}
        for place, index in enumerate(self.inner.sources):
            feature = history.pooled(index, size)
            groups.setdefault(tuple(feature.shape[2:]), []).append((place, index, feature))
        groups.setdefault(tuple(size), [])
        return {grid: groups[grid] for grid in sorted(groups, key=math.prod)}

    def kernel(self, place: int) -> Tensor:
        return self.inner.aligners[place].projection.weight.flatten(1)

    def query(self) -> Tensor:
        return self.inner.query.weight.flatten() * self.inner.key_scale


class SourceNorm(Prototype):
    """Keys normalised at the source, before the projection; one flat softmax on the stage's grid."""

    def forward(self, current: Tensor, history: FeatureHistory) -> Tensor:
        size = list(current.shape[2:])
        query = self.query().reshape(1, -1, *[1] * len(size))
        values, logits = [], []
        for grid, entries in self.grids(current, history).items():
            for place, index, feature in entries:
                value = self.inner.aligners[place].projection(feature)
                logits.append(resized((value * query).sum(1, keepdim=True) * inverse_rms(history, index, feature), size))
                values.append(resized(value, size))
        values.append(current)
        logits.append((current * query).sum(1, keepdim=True) * rms_of(current))
        return self.inner._fuse(current, weighted(values, torch.cat(logits, 1).softmax(1)))


class Nested(Prototype):
    """Coarser sources weighed on their own grid; keys normalised after the projection."""

    def forward(self, current: Tensor, history: FeatureHistory) -> Tensor:
        size = tuple(current.shape[2:])
        query = self.query().reshape(1, -1, *[1] * len(size))
        value = lse = None
        for grid, entries in self.grids(current, history).items():
            values = [self.inner.aligners[place].projection(feature) for place, _, feature in entries]
            values += [current] * (grid == size)
            logits = [(v * query).sum(1, keepdim=True) * rms_of(v) for v in values]
            if value is not None:
                values.append(resized(value, grid))
                logits.append(resized(lse, grid))
            stacked = torch.cat(logits, 1)
            lse = torch.logsumexp(stacked, 1, keepdim=True)
            value = weighted(values, stacked.softmax(1))
        return self.inner._fuse(current, value)


class Lean(Prototype):
    """Both, and sources of one grid are weighed, concatenated and projected by one product."""

    def logit(self, place: int, index: int, feature: Tensor, history: FeatureHistory) -> Tensor:
        return pointwise(feature, (self.query() @ self.kernel(place))[None]) * inverse_rms(history, index, feature)

    def own_logit(self, current: Tensor, history: FeatureHistory) -> Tensor:
        return pointwise(current, self.query()[None]) * rms_of(current)

    def forward(self, current: Tensor, history: FeatureHistory) -> Tensor:
        size = tuple(current.shape[2:])
        value = lse = None
        for grid, entries in self.grids(current, history).items():
            logits = [self.logit(*entry, history) for entry in entries]
            values = []
            if value is not None:
                values.append(resized(value, grid))
                logits.append(resized(lse, grid))
            if grid == size:
                values.append(current)
                logits.append(self.own_logit(current, history))
            stacked = torch.cat(logits, 1)
            lse = torch.logsumexp(stacked, 1, keepdim=True)
            shares = stacked.softmax(1)
            value = weighted(values, shares[:, len(entries) :]) if values else None
            if entries:
                scaled = torch.cat([feature * shares[:, k : k + 1] for k, (*_, feature) in enumerate(entries)], 1)
                projected = pointwise(scaled, torch.cat([self.kernel(place) for place, *_ in entries], 1))
                value = projected if value is None else value + projected
        return self.inner._fuse(current, value)


class OwnQueries(Lean):
    """As lean, with a query of its own for each source, apart from the projections; mean squares are pooled."""

    def __init__(self, inner: CrossStageAttention) -> None:
        super().__init__(inner)
        widths = [*inner.widths, inner.key_scale.numel()]
        self.queries = nn.ParameterList(nn.Parameter(torch.zeros(1, width)) for width in widths)
        del inner.query, inner.key_scale

    def logit(self, place: int, index: int, feature: Tensor, history: FeatureHistory) -> Tensor:
        return pointwise(feature, self.queries[place]) * torch.rsqrt(mean_square(history, index, feature) + EPS)

    def own_logit(self, current: Tensor, history: FeatureHistory) -> Tensor:
        return pointwise(current, self.queries[-1]) * rms_of(current)


def beyond_skip(network: nn.Module) -> nn.Module:
    """Own queries, and a UNet's decoder stage does not draw on the encoder output that its skip connection brings anyway."""
    for name, module in network.xattnres.items():
        skipped = int(name.removeprefix("decoder")) if name.startswith("decoder") else -1
        if network.skip_connections and skipped in getattr(module, "sources", ()):
            place = module.sources.index(skipped)
            del module.sources[place], module.widths[place], module.aligners[place]
    return own_queries(network)


def rms_of(feature: Tensor) -> Tensor:
    return torch.rsqrt(feature.square().mean(1, keepdim=True) + EPS)


def inverse_rms(history: FeatureHistory, index: int, feature: Tensor) -> Tensor:
    cache = history.__dict__.setdefault("_inverse_rms", {})
    key = (index, *feature.shape[2:])
    if key not in cache:
        cache[key] = rms_of(feature)
    return cache[key]


def mean_square(history: FeatureHistory, index: int, feature: Tensor) -> Tensor:
    """Of the source, pooled as it is."""
    levels = history.__dict__.setdefault("_mean_squares", {})
    grid = list(history.feature(index).shape[2:])
    if (index, *grid) not in levels:
        levels[(index, *grid)] = history.feature(index).square().mean(1, keepdim=True)
    while grid != list(feature.shape[2:]):
        following = _next_level(grid, list(feature.shape[2:]))
        if (index, *following) not in levels:
            levels[(index, *following)] = _average_pool(levels[(index, *grid)], following)
        grid = following
    return levels[(index, *grid)]


def resized(tensor: Tensor, size: Any) -> Tensor:
    if tuple(tensor.shape[2:]) == tuple(size):
        return tensor
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return F.interpolate(tensor, size=list(size), mode=mode, align_corners=False)


def weighted(values: list[Tensor], weights: Tensor) -> Tensor:
    shares = weights.split(1, 1)
    total = values[0] * shares[0]
    for value, share in zip(values[1:], shares[1:]):
        total = torch.addcmul(total, value, share)
    return total


def pointwise(feature: Tensor, weight: Tensor) -> Tensor:
    convolve = F.conv2d if feature.dim() == 4 else F.conv3d
    return convolve(feature, weight.reshape(*weight.shape, *[1] * (feature.dim() - 2)))


def _form(kind: Callable[[CrossStageAttention], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def replace(network: nn.Module) -> nn.Module:
        for name, module in network.xattnres.items():
            if isinstance(module, CrossStageAttention):
                network.xattnres[name] = kind(module)
        return network

    return replace


source_norm, nested, lean, own_queries = map(_form, (SourceNorm, Nested, Lean, OwnQueries))
