"""XAttnResSwinUNETR: MONAI's SwinUNETR with cross-stage attention residuals (XAttnRes, arXiv 2604.03297).

What differs from the paper: the backbone is MONAI's SwinUNETR (arXiv 2201.01266). The history holds the outputs of the
Swin stages as the next stage takes them. MONAI normalises its hidden states only for skip connections and bottleneck.
The convolutions at 1/2 to 1/8 of the resolution are part of the skip connections and are removed with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from monai.networks.blocks import UnetrUpBlock
from monai.networks.nets import SwinUNETR
from monai.utils import ensure_tuple_rep
from torch import Tensor

from xattnres_monai.attention.history import FeatureHistory
from xattnres_monai.attention.stages import Stage
from xattnres_monai.networks.base import CrossStageNetwork
from xattnres_monai.networks.up_block import remove_skip, run_up_block

__all__ = ["XAttnResSwinUNETR"]


class XAttnResSwinUNETR(CrossStageNetwork, SwinUNETR):
    """MONAI's :class:`~monai.networks.nets.SwinUNETR` whose stages choose their input from all stages before them.

    The stages are ``encoder1`` (the convolutions at full resolution), ``embedding`` (of patches), ``swin1 … swin4`` and
    ``decoder5 … decoder1``. ``encoder1`` and ``embedding`` read the image, so they do not attend. ``decoder5`` attends
    on the bottleneck's output. The parameters of the backbone keep MONAI's names. Those of the attention start with
    ``xattnres.``.

    The network maps images ``(B, in_channels, *S)`` to logits ``(B, out_channels, *S)``. Every side of the image must
    be a multiple of ``patch_size ** 5``, which is 32 by default. Export to TorchScript is by tracing, as
    for MONAI's class.

    Args:
        xattnres: :class:`~xattnres_monai.XAttnResOptions`, the same as a mapping, or ``None`` for the defaults.
        dropout: another name for ``drop_rate``, which MONAI Label uses.
        *args, **kwargs: as for MONAI's ``SwinUNETR``.

    Raises:
        ValueError: for an unknown option, or for an input of the wrong dimensions, channels or size.

    Source: XAttnRes, arXiv 2604.03297; SwinUNETR, arXiv 2201.01266.

    Example::

        import torch
        from xattnres_monai import XAttnResSwinUNETR

        network = XAttnResSwinUNETR(in_channels=1, out_channels=14, feature_size=24, xattnres={"fusion": "residual"})
        network(torch.rand(1, 1, 64, 64, 64)).shape  # (1, 14, 64, 64, 64)
    """

    dropout_argument: ClassVar[str] = "drop_rate"

    def _segment(self, x: Tensor) -> Tensor:
        attentions = list(self.xattnres.values())
        history = FeatureHistory()
        feature = x
        for stage in range(6):
            feature = attentions[stage](x if stage < 2 else feature, history)
            feature = self._encode(stage, feature)
            history.append(feature)
        feature = self.encoder10(self._normalized(feature))
        for block, attention, skip in zip(self._up_blocks(), attentions[6:], self._skips(history)):
            feature = run_up_block(block, attention, feature, skip, history, self.merges)
            history.append(feature)
        return self.out(feature)

    def _stages(self, arguments: Mapping[str, Any]) -> list[Stage]:
        feature_size = arguments["feature_size"]
        encoder = [Stage("encoder1", feature_size, "encoder"), Stage("embedding", feature_size, "encoder")]
        encoder += [Stage(f"swin{number}", feature_size * 2**number, "encoder") for number in (1, 2, 3, 4)]
        decoder = []
        for number, factor in ((5, 8), (4, 4), (3, 2), (2, 1), (1, 1)):
            width = feature_size * factor
            attends_on = width if self.merges else None
            skip = "encoder1" if number == 1 else None  # the others are normalised, or pass through convolutions
            decoder.append(Stage(f"decoder{number}", width, "decoder", attends_on, skip))
        return [*encoder, *decoder]

    def _remove_skips(self, arguments: Mapping[str, Any]) -> None:
        for block in self._up_blocks():
            remove_skip(block, self.spatial_dims, arguments["norm_name"])
        del self.encoder2, self.encoder3, self.encoder4  # they only served the skip connections

    def _multiples(self) -> Sequence[int]:
        return [side**5 for side in ensure_tuple_rep(self.patch_size, self.spatial_dims)]

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
