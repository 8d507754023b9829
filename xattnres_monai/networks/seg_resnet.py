"""XAttnResSegResNet: MONAI's SegResNet with cross-stage attention residuals (XAttnRes, arXiv 2604.03297).

Differs from the paper: the backbone is MONAI's SegResNet (arXiv 1810.11654), whose skips are sums, not concatenations:
without them the decoder's weights stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.networks.nets import SegResNet
from torch import Tensor

from xattnres_monai.attention.history import FeatureHistory
from xattnres_monai.attention.options import XAttnResOptions
from xattnres_monai.attention.stages import Stage, attention_maps, cross_stage_attentions
from xattnres_monai.networks.checks import check_channels, check_multiples, check_not_one_voxel

__all__ = ["XAttnResSegResNet"]


class XAttnResSegResNet(SegResNet):
    """MONAI's :class:`~monai.networks.nets.SegResNet` whose stages choose their input from all stages before them.

    The stages are ``encoder0 …`` and ``decoder… decoder0``, numbered by resolution. Parameters of the backbone keep
    MONAI's names; those of the attention live under ``xattnres.``.

    Args:
        xattnres: :class:`~xattnres_monai.XAttnResOptions`, the same as a mapping, or ``None``: the defaults.
        dropout: another name for ``dropout_prob``, which MONAI Label gives.
        *args, **kwargs: as for MONAI's ``SegResNet``.

    Raises:
        ValueError: for an unknown option, or for an input of the wrong dimensions, channels or size.

    Example::

        from xattnres_monai import XAttnResSegResNet

        network = XAttnResSegResNet(spatial_dims=3, in_channels=4, out_channels=3, init_filters=16)
        network(torch.rand(1, 4, 64, 64, 64)).shape  # (1, 3, 64, 64, 64)
    """

    def __init__(
        self,
        *args: Any,
        xattnres: XAttnResOptions | Mapping[str, Any] | None = None,
        dropout: float | None = None,
        **kwargs: Any,
    ) -> None:
        options = XAttnResOptions.of(xattnres)
        if dropout is not None:
            kwargs["dropout_prob"] = dropout
        super().__init__(*args, **kwargs)
        self.skip_connections = options.skip_connections
        self.merges = options.merges
        self.xattnres = cross_stage_attentions(self.spatial_dims, self._stages(), options)

    def forward(self, x: Tensor) -> Tensor:
        """Segment.

        Args:
            x: image ``(B, in_channels, *S)``; every side a multiple of 2 to the number of up-stages.

        Returns:
            Logits ``(B, out_channels, *S)``.
        """
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            self._check_input(x)
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

    def attention_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Weights ``(B, N, *S)`` of the N earlier stages, by stage: :func:`xattnres_monai.attention_maps`."""
        return attention_maps(self, x)

    def _stages(self) -> list[Stage]:
        widths = [self.init_filters * 2**level for level in range(len(self.down_layers))]
        encoder = [Stage(f"encoder{n}", width, "encoder") for n, width in enumerate(widths)]
        decoder = [
            Stage(f"decoder{n}", width, "decoder", width if self.merges else None, skip=f"encoder{n}")
            for n, width in enumerate(widths[:-1])
        ]
        return [*encoder, *reversed(decoder)]

    def _check_input(self, x: Tensor) -> None:
        check_channels(self, x, self.spatial_dims, self.in_channels)
        multiples = [2 ** len(self.up_layers)] * self.spatial_dims
        check_multiples(self, x, multiples)
        check_not_one_voxel(self, x, multiples)

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
