"""XAttnResUNet: MONAI's UNet with cross-stage attention residuals (XAttnRes, arXiv 2604.03297).

What differs from the paper: MONAI's UNet changes the resolution at the start of a stage, by strided and transposed
convolutions. So a stage attends on the grid that its first convolution reads. A decoder stage merges its skip
connection on that grid too, so the option ``placement`` changes nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.nets import UNet
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from xattnres_monai.attention.history import FeatureHistory
from xattnres_monai.attention.stages import Stage
from xattnres_monai.networks.base import CrossStageNetwork
from xattnres_monai.networks.checks import check_not_one_voxel, size_error

__all__ = ["XAttnResUNet"]


class XAttnResUNet(CrossStageNetwork, UNet):
    """MONAI's :class:`~monai.networks.nets.UNet` whose stages choose their input from all stages before them.

    The stages are ``encoder0 …``, ``bottleneck`` and ``decoder… decoder0``, numbered by resolution. The parameters of
    the backbone keep MONAI's names. Those of the attention start with ``xattnres.``.

    The network maps images ``(B, in_channels, *S)`` to logits ``(B, out_channels, *S)``. Every side of the image must
    be a multiple of the product of its strides.

    Args:
        xattnres: :class:`~xattnres_monai.XAttnResOptions`, the same as a mapping, or ``None`` for the defaults.
        dropout: as for MONAI's ``UNet``.
        *args, **kwargs: as for MONAI's ``UNet``.

    Raises:
        ValueError: for an unknown option, or for an input of the wrong dimensions, channels or size.

    Source: XAttnRes, arXiv 2604.03297; U-Net, arXiv 1505.04597.

    Example::

        import torch
        from xattnres_monai import XAttnResUNet

        network = XAttnResUNet(
            spatial_dims=3, in_channels=1, out_channels=3, channels=(16, 32, 64, 128), strides=(2, 2, 2),
            num_res_units=2, xattnres={"skip_connections": False},
        )
        network(torch.rand(1, 1, 64, 48, 64)).shape  # (1, 3, 64, 48, 64)
    """

    def _segment(self, x: Tensor) -> Tensor:
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

    def _stages(self, arguments: Mapping[str, Any]) -> list[Stage]:
        levels = range(len(self.channels) - 1)
        encoder = [Stage(f"encoder{n}", self.channels[n], "encoder") for n in levels]
        bottleneck = Stage("bottleneck", self.channels[-1], "encoder")
        widths = [self.out_channels, *self.channels[:-2]]
        decoder = [Stage(f"decoder{n}", widths[n], "decoder", skip=f"encoder{n}") for n in levels]
        return [*encoder, bottleneck, *reversed(decoder)]

    def _multiples(self) -> Sequence[int]:
        strides = [ensure_tuple_rep(stride, self.dimensions) for stride in self.strides[: len(self.channels) - 1]]
        return [math.prod(axis) for axis in zip(*strides)]

    def _check_size(self, x: Tensor) -> None:
        multiples = self._multiples()
        # MONAI's UNet concatenates from the first level's output on, whose size is rounded up
        strides = ensure_tuple_rep(self.strides[0], self.dimensions)
        rounded = [math.ceil(side / stride) * stride for side, stride in zip(x.shape[2:], strides)]
        if any(side % multiple for side, multiple in zip(rounded, multiples)):
            raise size_error(self, x, multiples)
        check_not_one_voxel(self, x, multiples)

    def _remove_skips(self, arguments: Mapping[str, Any]) -> None:
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
