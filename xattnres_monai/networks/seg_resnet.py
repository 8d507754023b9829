"""XAttnResSegResNet: MONAI's SegResNet with cross-stage attention residuals (XAttnRes, arXiv 2604.03297).

What differs from the paper: skip connections of MONAI's SegResNet (arXiv 1810.11654) are sums, not concatenations. So
the decoder has the same weights with and without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from monai.networks.nets import SegResNet
from torch import Tensor

from xattnres_monai.attention.history import FeatureHistory
from xattnres_monai.attention.stages import Stage
from xattnres_monai.networks.base import CrossStageNetwork

__all__ = ["XAttnResSegResNet"]


class XAttnResSegResNet(CrossStageNetwork, SegResNet):
    """MONAI's :class:`~monai.networks.nets.SegResNet` whose stages choose their input from all stages before them.

    The stages are ``encoder0 …`` and ``decoder… decoder0``, numbered by resolution. The parameters of the backbone keep
    MONAI's names. Those of the attention start with ``xattnres.``.

    The network maps images ``(B, in_channels, *S)`` to logits ``(B, out_channels, *S)``. Every side of the image must
    be a multiple of 2 to the power of the number of decoder stages.

    Args:
        xattnres: :class:`~xattnres_monai.XAttnResOptions`, the same as a mapping, or ``None`` for the defaults.
        dropout: another name for ``dropout_prob``, which MONAI Label uses.
        *args, **kwargs: as for MONAI's ``SegResNet``.

    Raises:
        ValueError: for an unknown option, or for an input of the wrong dimensions, channels or size.

    Source: XAttnRes, arXiv 2604.03297; SegResNet, arXiv 1810.11654.

    Example::

        import torch
        from xattnres_monai import XAttnResSegResNet

        network = XAttnResSegResNet(spatial_dims=3, in_channels=4, out_channels=3, init_filters=16)
        network(torch.rand(1, 4, 64, 64, 64)).shape  # (1, 3, 64, 64, 64)
    """

    dropout_argument: ClassVar[str] = "dropout_prob"

    def _segment(self, x: Tensor) -> Tensor:
        history = FeatureHistory()
        feature = self.convInit(x)
        if self.dropout_prob is not None:
            feature = self.dropout(feature)
        bottom, last = len(self.down_layers) - 1, len(self.xattnres) - 1
        for stage, attention in enumerate(self.xattnres.values()):
            if stage > bottom and self.merges:
                feature = self._upsample(stage - bottom - 1, feature)
            feature = attention(feature, history)
            if stage > bottom and not self.merges:
                feature = self._upsample(stage - bottom - 1, feature)
            if stage > bottom and self.skip_connections:
                feature = feature + history.feature(last - stage)
            feature = self._convolve(stage, feature)
            history.append(feature)
        if self.use_conv_final:
            feature = self.conv_final(feature)
        return feature

    def _stages(self, arguments: Mapping[str, Any]) -> list[Stage]:
        widths = [self.init_filters * 2**level for level in range(len(self.down_layers))]
        encoder = [Stage(f"encoder{n}", width, "encoder") for n, width in enumerate(widths)]
        decoder = [
            Stage(f"decoder{n}", width, "decoder", width if self.merges else None, skip=f"encoder{n}")
            for n, width in enumerate(widths[:-1])
        ]
        return [*encoder, *reversed(decoder)]

    def _remove_skips(self, arguments: Mapping[str, Any]) -> None:
        pass  # skip connections are sums: no layer depends on them

    def _multiples(self) -> Sequence[int]:
        return [2 ** len(self.up_layers)] * self.spatial_dims

    def _upsample(self, step: int, feature: Tensor) -> Tensor:
        for index, layer in enumerate(self.up_samples):
            if index == step:
                feature = layer(feature)
        return feature

    def _convolve(self, stage: int, feature: Tensor) -> Tensor:
        for index, layer in enumerate(self.down_layers):
            if index == stage:
                feature = layer(feature)
        for index, layer in enumerate(self.up_layers):
            if index == stage - len(self.down_layers):
                feature = layer(feature)
        return feature
