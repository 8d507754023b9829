"""Cross-stage attention of one stage: its aligners, its pseudo-query, and how the result enters the stage."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

import torch
from monai.networks.layers import Conv
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xattnres_monai.alignment import StageAligner
from xattnres_monai.functional import depth_attention, depth_weights
from xattnres_monai.history import FeatureHistory

__all__ = ["CrossStageAttention", "Stage", "XAttnResOptions", "attention_maps", "cross_stage_attentions"]


@dataclass(frozen=True)
class XAttnResOptions:
    """What a network does with its feature history.

    Args:
        stages: which stages aggregate; the history always holds all of them. The bottleneck counts as encoder.
        query: ``static``, one learned vector per stage (arXiv 2604.03297), or ``spatial``, a 1×1 convolution of the
            current feature, divided by √C (the authors' later "spatial adaptive pseudo-query").
        fusion: ``replace``, the aggregate is the stage's input (the paper's equation), or ``residual``, it is added to
            the current feature with a learned factor γ that starts at 0.
        skip_connections: whether the network keeps its own skips.
        recompute: compute the aligned sources again in the backward pass instead of keeping them (less memory, more
            time).

    Raises:
        ValueError: for a value that is not among those named.
    """

    stages: Literal["all", "encoder", "decoder", "none"] = "all"
    query: Literal["static", "spatial"] = "static"
    fusion: Literal["replace", "residual"] = "replace"
    skip_connections: bool = True
    recompute: bool = False

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value, allowed = getattr(self, name), get_args(hint) or (True, False)
            if not any(value is choice or (isinstance(choice, str) and value == choice) for choice in allowed):
                raise ValueError(f"xattnres option {name!r}: got {value!r}, expected {_one_of(allowed, value)}")

    @classmethod
    def of(cls, options: XAttnResOptions | Mapping[str, Any] | None) -> XAttnResOptions:
        """Options from a plain mapping (as a JSON config gives it); ``None`` stands for the defaults.

        Raises:
            ValueError: for an option that does not exist or a value that is not allowed.
            TypeError: for anything that is not a mapping.
        """
        if isinstance(options, cls):
            return options
        if options is not None and not isinstance(options, Mapping):
            raise TypeError(f"xattnres: got {options!r}, expected a mapping, e.g. {{'stages': 'decoder'}}, or None")
        names = [field.name for field in fields(cls)]
        for name in options or {}:
            if name not in names:
                raise ValueError(f"xattnres got the unknown option {name!r}, expected {_one_of(names, name)}")
        return cls(**(options or {}))


def _one_of(choices: Sequence[object], got: object) -> str:
    close = difflib.get_close_matches(str(got), [str(choice) for choice in choices], n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return "one of " + ", ".join(map(repr, choices)) + hint


class StaticQuery(nn.Module):
    """One learned query for all positions, ``(1, C, 1, …)``, zero at first: a new network weighs sources equally."""

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, channels, *[1] * spatial_dims))

    def forward(self, current: Tensor) -> Tensor:
        return self.weight


class SpatialQuery(nn.Module):
    """A query for each position, ``(B, C, *S)``: a 1×1 convolution of the current feature, zero at first, over √C."""

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        self.convolution = Conv[Conv.CONV, spatial_dims](channels, channels, kernel_size=1)
        nn.init.zeros_(self.convolution.weight)
        nn.init.zeros_(self.convolution.bias)
        self.scale = 1.0 / math.sqrt(channels)

    def forward(self, current: Tensor) -> Tensor:
        return self.convolution(current) * self.scale


class CrossStageAttention(nn.Module):
    """Lets one stage choose its input from the whole feature history (arXiv 2604.03297).

    The sources are the earlier stages' outputs, aligned to the current feature, and the current feature as it is.

    Args:
        spatial_dims: 2 or 3.
        channels: width C of the current feature.
        source_channels: widths of the stage outputs before the current one, in the order of the history.
        options: ``query``, ``fusion`` and ``recompute`` are used here.

    Example::

        attention = CrossStageAttention(spatial_dims=2, channels=32, source_channels=[16])
        history = FeatureHistory()
        history.append(torch.rand(1, 16, 64, 64))
        history.append(torch.rand(1, 32, 32, 32))
        attention(history.feature(1), history).shape  # (1, 32, 32, 32)
    """

    def __init__(
        self,
        spatial_dims: int,
        channels: int,
        source_channels: Sequence[int],
        options: XAttnResOptions | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        options = XAttnResOptions.of(options)
        self.recompute = options.recompute
        self.aligners = nn.ModuleList(StageAligner(spatial_dims, width, channels) for width in source_channels)
        self.query = (StaticQuery if options.query == "static" else SpatialQuery)(spatial_dims, channels)
        self.key_scale = nn.Parameter(torch.ones(channels))
        self.gamma = nn.Parameter(torch.zeros(())) if options.fusion == "residual" else None

    def forward(self, current: Tensor, history: FeatureHistory) -> Tensor:
        """The stage's input.

        Args:
            current: ``(B, C, *S)``, what a plain network would hand to the stage.
            history: all stage outputs so far; its last entry is the stage that made ``current``.

        Returns:
            Tensor of the shape of ``current``.

        Raises:
            ValueError: when the history is shorter than the sources that this stage was built for.
        """
        sources = self._sources(current, history)
        if not torch.jit.is_scripting():
            if self.recompute and torch.is_grad_enabled():
                return checkpoint(self._fuse, current, sources, use_reentrant=False)
        return self._fuse(current, sources)

    def weights(self, current: Tensor, history: FeatureHistory) -> Tensor:
        """Weight ``(B, N, *S)`` of each source in the order of the history, the current feature last."""
        values = self._align(current, self._sources(current, history))
        return depth_weights(values, self.query(current), self.key_scale)

    def _sources(self, current: Tensor, history: FeatureHistory) -> list[Tensor]:
        expected = len(self.aligners) + 1
        if len(history) < expected:
            raise ValueError(
                f"got a history of {len(history)} stage outputs, expected at least {expected}: the sources and the "
                "current feature; append every stage output to it"
            )
        return [history.pooled(index, list(current.shape[2:])) for index in range(len(self.aligners))]

    def _align(self, current: Tensor, sources: list[Tensor]) -> list[Tensor]:
        values: list[Tensor] = []
        for index, aligner in enumerate(self.aligners):
            values.append(aligner(sources[index], list(current.shape[2:])))
        values.append(current)
        return values

    def _fuse(self, current: Tensor, sources: list[Tensor]) -> Tensor:
        attended = depth_attention(self._align(current, sources), self.query(current), self.key_scale)
        if self.gamma is None:
            return attended
        return current + self.gamma * attended


class CurrentFeature(nn.Module):
    """Stands where a stage does not aggregate: its input is the current feature, as in the plain network."""

    def forward(self, current: Tensor, history: FeatureHistory) -> Tensor:
        return current


class Stage(NamedTuple):
    """One stage of a network: its name, the width of its output, and the half of the network that it belongs to."""

    name: str
    channels: int
    part: Literal["encoder", "decoder"]


def cross_stage_attentions(
    spatial_dims: int, stages: Sequence[Stage], options: XAttnResOptions | Mapping[str, Any] | None = None
) -> nn.ModuleDict:
    """One module per stage, by its name, that is called with ``(current, history)`` before the stage runs.

    The first stage has no history and the second only the current feature; these, and the stages that
    ``options.stages`` leaves out, pass the current feature on.

    Args:
        spatial_dims: 2 or 3.
        stages: all stages of the network in the order in which they run.
        options: see :class:`XAttnResOptions`.
    """
    options = XAttnResOptions.of(options)
    attentions = nn.ModuleDict()
    for index, stage in enumerate(stages):
        aggregates = index > 1 and options.stages in ("all", stage.part)
        widths = [earlier.channels for earlier in stages[:index]]
        attentions[stage.name] = (
            CrossStageAttention(spatial_dims, widths[-1], widths[:-1], options) if aggregates else CurrentFeature()
        )
    return attentions


@torch.no_grad()
def attention_maps(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The weights of every :class:`CrossStageAttention` inside ``network`` when it runs on ``x``.

    Args:
        network: any network that holds :class:`CrossStageAttention` modules.
        x: its input.

    Returns:
        Weights ``(B, N, *S)`` on the stage's input grid, by the name of the module in the network (without the prefix
        ``xattnres.``); N sources in the order of the history, the current feature last.
    """
    maps: dict[str, Tensor] = {}
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, CrossStageAttention):

            def record(module: CrossStageAttention, inputs: Any, _: Tensor, name: str = name) -> None:
                maps[name.removeprefix("xattnres.")] = module.weights(*inputs)

            hooks.append(module.register_forward_hook(record))
    try:
        network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return maps
