"""Collect the attention weights of all stages during sliding-window inference, and switch off single sources."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xattnres_monai.attention.cross_stage import CrossStageAttention
from xattnres_monai.attention.history import FeatureHistory
from xattnres_monai.attention.stages import attention_maps

__all__ = ["Routing", "attending", "sources_of", "without_source"]


class Routing:
    """Stand-in for a network in an inferer: it returns attention weights instead of logits.

    It also accumulates the weights of all stages over the windows, for :meth:`shares` and :meth:`entropy`.

    Args:
        network: a network with the attribute ``xattnres``, such as ``XAttnResUNet``.
        chosen: pairs of stage and source whose weights are returned.
    """

    def __init__(self, network: nn.Module, chosen: Sequence[tuple[str, str]]) -> None:
        self.network, self.chosen = network, chosen
        self.sums: dict[str, Tensor] = {}
        self.entropies: dict[str, float] = {}
        self.positions: dict[str, int] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """Return the weights of the chosen stages and sources, ``(B, len(chosen), *S)``, for windows ``(B, C, *S)``."""
        maps = attention_maps(self.network, x)
        for stage, weights in maps.items():
            over_positions = [0, *range(2, weights.dim())]
            entropy = torch.special.entr(weights).sum().item()
            self.sums[stage] = self.sums.get(stage, 0) + weights.sum(over_positions, dtype=torch.float64).cpu()
            self.entropies[stage] = self.entropies.get(stage, 0.0) + entropy
            self.positions[stage] = self.positions.get(stage, 0) + weights[:, 0].numel()
        mode = "bilinear" if x.dim() == 4 else "trilinear"
        picked = [
            maps[stage][:, sources_of(self.network, stage).index(source)].unsqueeze(1) for stage, source in self.chosen
        ]
        return torch.cat([F.interpolate(weights, size=x.shape[2:], mode=mode) for weights in picked], dim=1)

    def shares(self) -> dict[str, list[float]]:
        """Return the mean weight of each source over all windows so far, by stage. The weights of a stage sum to 1."""
        return {stage: (total / self.positions[stage]).tolist() for stage, total in self.sums.items()}

    def entropy(self) -> dict[str, float]:
        """Return the mean entropy of the weights at a position, by stage, divided by that of uniform weights."""
        return {
            stage: self.entropies[stage] / self.positions[stage] / math.log(len(total))
            for stage, total in self.sums.items()
        }


def attending(network: nn.Module) -> list[str]:
    """Return the names of the stages with attention, in the order in which they run."""
    attentions = cast(nn.ModuleDict, network.xattnres)
    return [name for name, module in attentions.items() if isinstance(module, CrossStageAttention)]


def sources_of(network: nn.Module, stage: str) -> list[str]:
    """Return the names of a stage's sources. The last is the preceding stage, which made the current feature."""
    attentions = cast(nn.ModuleDict, network.xattnres)
    names = list(attentions)
    sources = cast(CrossStageAttention, attentions[stage]).sources
    return [*(names[index] for index in sources), names[names.index(stage) - 1]]


@contextmanager
def without_source(network: nn.Module, stage: str, source: str) -> Iterator[None]:
    """Within this context, ``stage`` attends to all its sources except ``source``; the other weights sum to 1."""
    attention = cast(CrossStageAttention, cast(nn.ModuleDict, network.xattnres)[stage])
    index = sources_of(network, stage).index(source)

    def replace(module: nn.Module, inputs: tuple[Tensor, FeatureHistory], _: Any) -> Tensor:
        return attention.without(*inputs, index)

    hook = attention.register_forward_hook(replace)
    try:
        with torch.compiler.set_stance("force_eager"):  # compiled code would not see the hook
            yield
    finally:
        hook.remove()
