"""The stages of a network, the attention before each of them, and the weights that it gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from monai.networks import eval_mode
from torch import Tensor, nn

from xattnres_monai.attention.cross_stage import CrossStageAttention
from xattnres_monai.attention.history import FeatureHistory
from xattnres_monai.attention.literal import LiteralAttention
from xattnres_monai.attention.options import XAttnResOptions

__all__ = ["Stage", "attention_maps", "cross_stage_attentions"]


class CurrentFeature(nn.Module):
    """Stands where a stage does not aggregate: its input is the current feature, as in the plain network."""

    def forward(self, current: Tensor, history: FeatureHistory) -> Tensor:
        return current


class Stage(NamedTuple):
    """One stage of a network.

    Args:
        name: of the stage, unique in the network.
        channels: width of its output.
        part: half of the network that it belongs to.
        attends_on: width of the feature that it would take plainly, on the grid of its own output, where that is not
            the output of the stage before.
        skip: name of the stage whose output its skip connection brings as it is; ``sources="unskipped"`` does not draw
            on that one.
    """

    name: str
    channels: int
    part: Literal["encoder", "decoder"]
    attends_on: int | None = None
    skip: str | None = None


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

    Raises:
        ValueError: when two stages have one name, for an unknown part, and for a skip from a stage that is not before.
    """
    options = XAttnResOptions.of(options)
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise ValueError(f"got the stages {', '.join(names)}, expected names that differ; rename those that do not")
    parts = {stage.part for stage in stages} - {"encoder", "decoder"}
    if parts:
        raise ValueError(f"got the part {', '.join(parts)} of a stage, expected encoder or decoder")
    attention = CrossStageAttention if options.form == "nested" else LiteralAttention
    attentions = nn.ModuleDict()
    for index, stage in enumerate(stages):
        if stage.skip not in (None, *names[:index]):
            raise ValueError(f"got a skip from {stage.skip} to {stage.name}, expected one from a stage before it")
        skipped = stage.skip if options.sources == "unskipped" and options.skip_connections else None
        sources = [k for k in range(index - 1) if names[k] != skipped]
        if sources and options.stages in ("all", stage.part):
            width = stage.attends_on or stages[index - 1].channels
            widths = [stages[k].channels for k in sources]
            attentions[stage.name] = attention(spatial_dims, width, widths, options, sources)
        else:
            attentions[stage.name] = CurrentFeature()
    return attentions


def attention_maps(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The weights of every :class:`CrossStageAttention` inside ``network`` when it runs on ``x``, in eval mode.

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
        # compiled code would not see the hooks
        with torch.compiler.set_stance("force_eager"), eval_mode(network):
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return maps
