"""XAttnResSwinUNETR: MONAI's SwinUNETR with cross-stage attention residuals (XAttnRes, arXiv 2604.03297).

Differs from the paper: the backbone is MONAI's SwinUNETR (arXiv 2201.01266). The history holds the Swin stages' outputs
as the next stage takes them, before the ``normalize`` of MONAI's hidden states, which feeds skips and bottleneck only.
The convolutions at 1/2 to 1/8 of the resolution are part of the skips, and go with them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from monai.networks.blocks import UnetrUpBlock
from monai.networks.nets import SwinUNETR
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from xattnres_monai.attention.history import FeatureHistory
from xattnres_monai.attention.options import XAttnResOptions
from xattnres_monai.attention.stages import Stage, attention_maps, cross_stage_attentions
from xattnres_monai.networks.checks import check_channels, check_multiples, check_not_one_voxel
from xattnres_monai.networks.up_block import remove_skip

__all__ = ["XAttnResSwinUNETR"]


class XAttnResSwinUNETR(SwinUNETR):
    """MONAI's :class:`~monai.networks.nets.SwinUNETR` whose stages choose their input from all stages before them.

    The stages are ``encoder1`` (the convolutions at full resolution), ``embedding`` (of patches), ``swin1 … swin4`` and
    ``decoder5 … decoder1``. ``encoder1`` and ``embedding`` read the image and do not aggregate; ``decoder5`` attends on
    the bottleneck's output. Parameters of the backbone keep MONAI's names; those of the attention live under
    ``xattnres.``.

    Args:
        xattnres: :class:`~xattnres_monai.XAttnResOptions`, the same as a mapping, or ``None``: the defaults.
        dropout: another name for ``drop_rate``, which MONAI Label gives.
        *args, **kwargs: as for MONAI's ``SwinUNETR``.

    Raises:
        ValueError: for an unknown option, or for an input of the wrong dimensions, channels or size.

    Example::

        from xattnres_monai import XAttnResSwinUNETR

        network = XAttnResSwinUNETR(in_channels=1, out_channels=14, feature_size=48, xattnres={"fusion": "residual"})
        network(torch.rand(1, 1, 96, 96, 96)).shape  # (1, 14, 96, 96, 96)
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
            kwargs["drop_rate"] = dropout
        super().__init__(*args, **kwargs)
        given = inspect.signature(SwinUNETR).bind(*args, **kwargs)
        given.apply_defaults()
        self.spatial_dims: int = given.arguments["spatial_dims"]
        self.in_channels: int = given.arguments["in_channels"]
        self.skip_connections = options.skip_connections
        self.merges = options.merges
        if not self.skip_connections:
            for block in self._up_blocks():
                remove_skip(block, self.spatial_dims, given.arguments["norm_name"])
            del self.encoder2, self.encoder3, self.encoder4  # they only served the skips
        stages = self._stages(given.arguments["feature_size"])
        self.xattnres = cross_stage_attentions(self.spatial_dims, stages, options)

    def forward(self, x: Tensor) -> Tensor:
        """Segment.

        Args:
            x: image ``(B, in_channels, *S)``; every side a multiple of ``patch_size ** 5``.

        Returns:
            Logits ``(B, out_channels, *S)``.
        """
        if not torch.jit.is_tracing():
            self._check_input(x)
        attentions = list(self.xattnres.values())
        history = FeatureHistory()
        feature = x
        for stage in range(6):
            feature = attentions[stage](x if stage < 2 else feature, history)
            feature = self._encode(stage, feature)
            history.append(feature)
        feature = self.encoder10(self._normalized(feature))
        for block, attention, skip in zip(self._up_blocks(), attentions[6:], self._skips(history)):
            feature = self._decode(block, attention, feature, skip, history)
            history.append(feature)
        return self.out(feature)

    def attention_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Weights ``(B, N, *S)`` of the N earlier stages, by stage: :func:`xattnres_monai.attention_maps`."""
        return attention_maps(self, x)

    def _stages(self, feature_size: int) -> list[Stage]:
        encoder = [Stage("encoder1", feature_size, "encoder"), Stage("embedding", feature_size, "encoder")]
        encoder += [Stage(f"swin{number}", feature_size * 2**number, "encoder") for number in (1, 2, 3, 4)]
        decoder = []
        for number, factor in ((5, 8), (4, 4), (3, 2), (2, 1), (1, 1)):
            width = feature_size * factor
            attends_on = width if self.merges else None
            skip = "encoder1" if number == 1 else None  # the others are normalised, or pass through convolutions
            decoder.append(Stage(f"decoder{number}", width, "decoder", attends_on, skip))
        return [*encoder, *decoder]

    def _check_input(self, x: Tensor) -> None:
        check_channels(self, x, self.spatial_dims, self.in_channels)
        multiples = [side**5 for side in ensure_tuple_rep(self.patch_size, self.spatial_dims)]
        check_multiples(self, x, multiples)
        check_not_one_voxel(self, x, multiples)

    def _encode(self, stage: int, feature: Tensor) -> Tensor:
        swin = self.swinViT
        if stage == 0:
            return self.encoder1(feature)
        if stage == 1:
            return swin.pos_drop(swin.patch_embed(feature))
        layers = (swin.layers1, swin.layers2, swin.layers3, swin.layers4)[stage - 2]
        if swin.use_v2:
            convolutions = (swin.layers1c, swin.layers2c, swin.layers3c, swin.layers4c)[stage - 2]
            feature = convolutions[0](feature.contiguous())
        return layers[0](feature.contiguous())

    def _decode(
        self, block: UnetrUpBlock, attention: nn.Module, feature: Tensor, skip: Tensor | None, history: FeatureHistory
    ) -> Tensor:
        if self.merges:
            feature = attention(block.transp_conv(feature), history)
        else:
            feature = block.transp_conv(attention(feature, history))
        if skip is not None:
            feature = torch.cat([feature, skip], dim=1)
        return block.conv_block(feature)

    def _up_blocks(self) -> tuple[UnetrUpBlock, ...]:
        return self.decoder5, self.decoder4, self.decoder3, self.decoder2, self.decoder1

    def _skips(self, history: FeatureHistory) -> list[Tensor | None]:
        """What MONAI concatenates in each decoder stage: hidden states, most of them after convolutions."""
        if not self.skip_connections:
            return [None] * 5
        embedding, swin1, swin2, swin3 = (self._normalized(history.feature(stage)) for stage in (1, 2, 3, 4))
        return [swin3, self.encoder4(swin2), self.encoder3(swin1), self.encoder2(embedding), history.feature(0)]

    def _normalized(self, feature: Tensor) -> Tensor:
        return self.swinViT.proj_out(feature, self.normalize)
