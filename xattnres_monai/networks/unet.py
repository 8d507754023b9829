"""XAttnResUNet: MONAI's UNet with cross-stage attention residuals (XAttnRes, arXiv 2604.03297).

Differs from the paper: the backbone is MONAI's UNet (strided and transposed convolutions at the start of a stage), so a
stage aggregates on the grid that its first convolution reads. There the point where a stage takes its input and the
point where it merges its skip are one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from monai.networks.nets import UNet
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from xattnres_monai.attention.history import FeatureHistory
from xattnres_monai.attention.options import XAttnResOptions
from xattnres_monai.attention.stages import Stage, attention_maps, cross_stage_attentions
from xattnres_monai.networks.checks import check_channels, check_not_one_voxel, size_error

__all__ = ["XAttnResUNet"]


class XAttnResUNet(UNet):
    """MONAI's :class:`~monai.networks.nets.UNet` whose stages choose their input from all stages before them.

    The stages are ``encoder0 …``, ``bottleneck`` and ``decoder… decoder0``, numbered by resolution. Parameters of the
    backbone keep MONAI's names; those of the attention live under ``xattnres.``.

    Args:
        xattnres: :class:`~xattnres_monai.XAttnResOptions`, the same as a mapping, or ``None``: the defaults.
        *args, **kwargs: as for MONAI's ``UNet``.

    Raises:
        ValueError: for an unknown option, or for an input of the wrong dimensions, channels or size.

    Example::

        from xattnres_monai import XAttnResUNet

        network = XAttnResUNet(
            spatial_dims=3, in_channels=1, out_channels=3, channels=(16, 32, 64, 128), strides=(2, 2, 2),
            num_res_units=2, xattnres={"skip_connections": False},
        )
        network(torch.rand(1, 1, 64, 48, 64)).shape  # (1, 3, 64, 48, 64)
    """

    def __init__(self, *args: Any, xattnres: XAttnResOptions | Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        options = XAttnResOptions.of(xattnres)
        super().__init__(*args, **kwargs)
        self.skip_connections = options.skip_connections
        if not self.skip_connections:
            self._narrow_decoder()
        self.xattnres = cross_stage_attentions(self.dimensions, self._stages(), options)

    def forward(self, x: Tensor) -> Tensor:
        """Segment.

        Args:
            x: image ``(B, in_channels, *S)``; every side a multiple of the product of its strides.

        Returns:
            Logits ``(B, out_channels, *S)``.
        """
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            self._check_input(x)
        history = FeatureHistory()
        feature = x
        count = len(self.xattnres)
        for stage, attention in enumerate(self.xattnres.values()):
            feature = attention(feature, history)
            if self.skip_connections and stage > count // 2:
                feature = torch.cat([history.feature(count - 1 - stage), feature], dim=1)
            feature = self.model(feature, stage, count)
            history.append(feature)
        return feature

    def attention_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Weights ``(B, N, *S)`` of the N earlier stages, by stage: :func:`xattnres_monai.attention_maps`."""
        return attention_maps(self, x)

    def _stages(self) -> list[Stage]:
        levels = range(len(self.channels) - 1)
        encoder = [Stage(f"encoder{n}", self.channels[n], "encoder") for n in levels]
        bottleneck = Stage("bottleneck", self.channels[-1], "encoder")
        widths = [self.out_channels, *self.channels[:-2]]
        decoder = [Stage(f"decoder{n}", widths[n], "decoder", skip=f"encoder{n}") for n in levels]
        return [*encoder, bottleneck, *reversed(decoder)]

    def _check_input(self, x: Tensor) -> None:
        check_channels(self, x, self.dimensions, self.in_channels)
        strides = [ensure_tuple_rep(stride, self.dimensions) for stride in self.strides[: len(self.channels) - 1]]
        multiples = [math.prod(axis) for axis in zip(*strides)]
        # MONAI's UNet concatenates from the first level's output on, whose size is rounded up
        below = [(math.ceil(side / stride) * stride) for side, stride in zip(x.shape[2:], strides[0])]
        if any(side % multiple for side, multiple in zip(below, multiples)):
            raise size_error(self, x, multiples)
        check_not_one_voxel(self, x, multiples)

    def _narrow_decoder(self) -> None:
        """Build the up-layers again for inputs without the skip's half of the channels."""
        level = self.model
        below = [*self.channels[:-2], self.channels[-1]]  # width of what arrives from below
        above = [self.out_channels, *self.channels[:-2]]
        for index, stride in zip(range(len(below)), self.strides):
            level[2] = self._get_up_layer(below[index], above[index], stride, index == 0)
            level = level[1].submodule

    def _get_connection_block(self, down_path: nn.Module, up_path: nn.Module, subblock: nn.Module) -> nn.Module:
        below = _Below(subblock) if isinstance(subblock, _Level) else _Bottleneck(subblock)
        return _Level(down_path, below, up_path)


class _Level(nn.Sequential):
    """MONAI's connection block (down, what lies below, up), which runs one of its ``count`` stages at a time."""

    def forward(self, x: Tensor, stage: int, count: int) -> Tensor:  # type: ignore[override]
        if stage == 0:
            return self[0](x)
        if stage == count - 1:
            return self[2](x)
        return self[1](x, stage - 1, count - 2)


class _Below(nn.Module):
    """The next level, under the name that MONAI's ``SkipConnection`` gives it."""

    def __init__(self, submodule: nn.Module) -> None:
        super().__init__()
        self.submodule = submodule

    def forward(self, x: Tensor, stage: int, count: int) -> Tensor:
        return self.submodule(x, stage, count)


class _Bottleneck(_Below):
    """The bottleneck, a single layer, likewise."""

    def forward(self, x: Tensor, stage: int, count: int) -> Tensor:
        return self.submodule(x)
