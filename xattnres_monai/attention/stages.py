"""The stages of a network, the attention before each of them, and the weights of that attention."""

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
    """Passes the current feature on, as the plain network does. Stages that do not attend have this module."""

    def forward(self, current: Tensor, history: FeatureHistory) -> Tensor:
        return current


class Stage(NamedTuple):
    """Describes one stage of a network to :func:`cross_stage_attentions`.

    Args:
        name: name of the stage, unique in the network.
        channels: number of channels of its output.
        part: the half of the network that it belongs to, ``"encoder"`` or ``"decoder"``. The bottleneck counts as
            encoder.
        attends_on: number of channels of the stage's current feature. Give it if that feature is not the output of the
            stage before, such as an up-sampled feature on the grid of the stage's own output.
        skip: name of the stage whose output the skip connection brings unchanged. With ``sources="unskipped"``, the
            attention does not draw on that output.

    :func:`cross_stage_attentions` checks the values.

    Source:
        arXiv 2604.03297 (XAttnRes): stage t chooses its input from the history ``h_0 … h_{t-1}``.

    Example::

        from xattnres_monai import Stage, cross_stage_attentions

        stages = [Stage("encoder0", 16, "encoder"), Stage("encoder1", 32, "encoder"), Stage("decoder0", 16, "decoder")]
        cross_stage_attentions(2, stages)["decoder0"].sources  # [0]
    """

    name: str
    channels: int
    part: Literal["encoder", "decoder"]
    attends_on: int | None = None
    skip: str | None = None


def cross_stage_attentions(
    spatial_dims: int, stages: Sequence[Stage], options: XAttnResOptions | Mapping[str, Any] | None = None
) -> nn.ModuleDict:
    """Build the attention modules of a network, one for each stage.

    Before a stage runs, the network calls the stage's module with ``(current, history)``. The module returns the
    stage's input. The first stage has no history, and the second has only the current feature. Their modules pass the
    current feature on. So do the modules of stages that ``options.stages`` leaves out.

    Args:
        spatial_dims: 2 for images, 3 for volumes.
        stages: all stages of the network, in the order in which they run.
        options: an :class:`~xattnres_monai.XAttnResOptions`, a mapping with its names, or ``None`` for the defaults.

    Returns:
        The modules by the names of the stages, in the order of ``stages``.

    Raises:
        ValueError: when ``spatial_dims`` is neither 2 nor 3, when two stages have the same name, when a part is
            unknown, when a skip does not come from an earlier stage, or when an option or its value is unknown.
        TypeError: when ``options`` is of another type.

    Source:
        arXiv 2604.03297 (XAttnRes), the cross-stage form of Attention Residuals (arXiv 2603.15031). Before every stage,
        the attention computes ``y = Σ_k a_k V_k`` over the history (:class:`~xattnres_monai.CrossStageAttention`).

    Example::

        import torch
        from torch import nn
        from xattnres_monai import FeatureHistory, Stage, cross_stage_attentions

        attentions = cross_stage_attentions(2, [Stage(f"encoder{k}", 8, "encoder") for k in range(4)])
        history, feature = FeatureHistory(), torch.rand(1, 8, 64, 64)
        for attention in attentions.values():
            stage = nn.Conv2d(8, 8, kernel_size=3, stride=2, padding=1)
            feature = stage(attention(feature, history))
            history.append(feature)
        feature.shape  # (1, 8, 4, 4)
    """
    options = XAttnResOptions.of(options)
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise ValueError(f"got the stages {', '.join(names)}, expected names that differ; give each stage its own name")
    parts = {stage.part for stage in stages} - {"encoder", "decoder"}
    if parts:
        raise ValueError(f"got the part {', '.join(parts)} of a stage, expected encoder or decoder; correct its part")
    attention = CrossStageAttention if options.form == "nested" else LiteralAttention
    attentions = nn.ModuleDict()
    for index, stage in enumerate(stages):
        if stage.skip not in (None, *names[:index]):
            raise ValueError(
                f"got a skip from {stage.skip} to {stage.name}, expected one from a stage before it; "
                "name an earlier stage, or change the order of the stages"
            )
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
    """Run a network on ``x`` and return the weights of every :class:`~xattnres_monai.CrossStageAttention` inside it.

    The network runs in eval mode and without gradients. Its mode is restored afterwards.

    Args:
        network: any network with :class:`~xattnres_monai.CrossStageAttention` modules.
        x: input of the network, such as an image ``(B, channels, *size)`` with its size in pixels or voxels.

    Returns:
        Weights ``(B, N, *S)`` on the grid of the stage's input, one tensor for each module. Its key is the module's
        name in the network, without the prefix ``xattnres.``. The N sources are in the order of the history, the
        current feature last. The dictionary is empty if the network has no such module.

    Raises:
        ValueError: when the history does not fit a module. The network's own errors pass through as well.

    Source:
        arXiv 2604.03297 (XAttnRes), the cross-stage form of Attention Residuals (arXiv 2603.15031). The maps are the
        weights ``a_k`` in ``y = Σ_k a_k V_k``. They sum to 1 over the sources.

    Example::

        import torch
        from xattnres_monai import XAttnResUNet, attention_maps

        network = XAttnResUNet(spatial_dims=2, in_channels=1, out_channels=2, channels=(8, 16, 32), strides=(2, 2))
        attention_maps(network, torch.rand(1, 1, 64, 64))["decoder0"].shape  # (1, 4, 32, 32)
    """
    maps: dict[str, Tensor] = {}
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, CrossStageAttention):

            def record(module: CrossStageAttention, inputs: Any, _: Tensor, name: str = name) -> None:
                maps[name.removeprefix("xattnres.")] = module.weights(*inputs)

            hooks.append(module.register_forward_hook(record))
    try:
        # compiled code would skip the hooks
        with torch.compiler.set_stance("force_eager"), eval_mode(network):
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return maps
