"""XAttnRes in the straightforward form: resize, project, stack, normalise, einsum. The oracle of the efficient form."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from xattnres_monai import CrossStageAttention


def resample(source: Tensor, size: tuple[int, ...]) -> Tensor:
    """R of the mechanism, one axis at a time: linear towards finer grids, averages towards coarser ones."""
    for axis, wanted in enumerate(size, start=2):
        source = _resample_axis(source.movedim(axis, -1), wanted).movedim(-1, axis)
    return source


def _resample_axis(source: Tensor, wanted: int) -> Tensor:
    while source.shape[-1] > wanted:
        factor = math.ceil(source.shape[-1] / wanted)
        level = math.ceil(source.shape[-1] / 2) if factor % 2 == 0 else wanted
        source = F.adaptive_avg_pool1d(source.flatten(0, -2), level).unflatten(0, source.shape[:-1])
    if source.shape[-1] < wanted:
        shape = source.shape[:-1]
        flat = F.interpolate(source.reshape(-1, 1, source.shape[-1]), size=wanted, mode="linear", align_corners=False)
        source = flat.reshape(*shape, wanted)
    return source


def cross_stage_attention(module: CrossStageAttention, outputs: list[Tensor]) -> Tensor:
    """What ``module`` computes for the stage outputs so far, with its parameters, the long way."""
    current = outputs[-1]
    values = []
    for aligner, source in zip(module.aligners, outputs[:-1]):
        kernel = aligner.projection.weight.flatten(1)
        values.append(torch.einsum("oc,bc...->bo...", kernel, resample(source, tuple(current.shape[2:]))))
    stacked = torch.stack([*values, current], dim=1)  # (B, N, C, *S)
    keys = stacked / torch.sqrt(stacked.square().mean(2, keepdim=True) + 1e-6)
    scale = module.key_scale.reshape(-1, *[1] * (current.dim() - 2))
    query = module.query(current).expand_as(current)
    weights = torch.einsum("bc...,bnc...->bn...", query, keys * scale).softmax(1)
    attended = torch.einsum("bn...,bnc...->bc...", weights, stacked)
    return attended if module.gamma is None else current + module.gamma * attended
