"""XAttnResUNETR: MONAI's UNETR with cross-stage attention residuals (XAttnRes, arXiv 2604.03297).

What differs from the paper: the backbone is MONAI's UNETR (arXiv 2103.10504). The blocks that bring features of the
transformer to the decoder's grids are part of its skip connections and are removed with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from monai.networks.blocks import UnetrUpBlock
from monai.networks.nets import UNETR
from torch import Tensor

from xattnres_monai.attention.history import FeatureHistory
from xattnres_monai.attention.stages import Stage
from xattnres_monai.networks.base import CrossStageNetwork
from xattnres_monai.networks.up_block import remove_skip, run_up_block

__all__ = ["XAttnResUNETR"]


class XAttnResUNETR(CrossStageNetwork, UNETR):
    """MONAI's :class:`~monai.networks.nets.UNETR` whose stages choose their input from all stages before them.

    The stages are ``encoder1`` (the convolutions at full resolution), ``transformer1 … transformer4`` (the parts of the
    vision transformer between the blocks that UNETR taps, on the grid of tokens) and ``decoder5 … decoder2``.
    ``encoder1`` and ``transformer1`` read the image, so they do not attend. The parameters of the backbone keep MONAI's
    names. Those of the attention start with ``xattnres.``.

    The network maps images ``(B, in_channels, *img_size)`` to logits ``(B, out_channels, *img_size)``. Export to
    TorchScript is by tracing.

    Args:
        xattnres: :class:`~xattnres_monai.XAttnResOptions`, the same as a mapping, or ``None`` for the defaults.
        dropout: another name for ``dropout_rate``, which MONAI Label uses.
        *args, **kwargs: as for MONAI's ``UNETR``.

    Raises:
        ValueError: for an unknown option, or for an input of the wrong dimensions, channels or size.

    Source: XAttnRes, arXiv 2604.03297; UNETR, arXiv 2103.10504.

    Example::

        import torch
        from xattnres_monai import XAttnResUNETR

        network = XAttnResUNETR(in_channels=1, out_channels=14, img_size=(96, 96, 96), xattnres={"query": "spatial"})
        network(torch.rand(1, 1, 96, 96, 96)).shape  # (1, 14, 96, 96, 96)
    """

    dropout_argument: ClassVar[str] = "dropout_rate"

    def _segment(self, x: Tensor) -> Tensor:
        attentions = list(self.xattnres.values())
        history = FeatureHistory()
        feature = x
        for stage in range(5):
            feature = attentions[stage](x if stage < 2 else feature, history)
            feature = self._encode(stage, feature)
            history.append(feature)
        for block, attention, skip in zip(self._up_blocks(), attentions[5:], self._skips(history)):
            feature = run_up_block(block, attention, feature, skip, history, self.merges)
            history.append(feature)
        return self.out(feature)

    def _stages(self, arguments: Mapping[str, Any]) -> list[Stage]:
        feature_size = arguments["feature_size"]
        transformer = [Stage(f"transformer{number}", self.hidden_size, "encoder") for number in (1, 2, 3, 4)]
        decoder = []
        for number in (5, 4, 3, 2):
            width = feature_size * 2 ** (number - 2)
            attends_on = width if self.merges else None
            skip = "encoder1" if number == 2 else None  # the others pass through blocks of their own
            decoder.append(Stage(f"decoder{number}", width, "decoder", attends_on, skip))
        return [Stage("encoder1", feature_size, "encoder"), *transformer, *decoder]

    def _remove_skips(self, arguments: Mapping[str, Any]) -> None:
        for block in self._up_blocks():
            remove_skip(block, self.spatial_dims, arguments["norm_name"])
        del self.encoder2, self.encoder3, self.encoder4  # they only served the skip connections

    def _check_size(self, x: Tensor) -> None:
        size = tuple(side * patch for side, patch in zip(self.feat_size, self.patch_size))
        if tuple(x.shape[2:]) != size:
            raise ValueError(
                f"{type(self).__name__} got an image of size {tuple(x.shape[2:])}, expected {size}, the size of its "
                "position embedding; use a SlidingWindowInferer, or build the network with another img_size"
            )

    def _encode(self, stage: int, feature: Tensor) -> Tensor:
        if stage == 0:
            return self.encoder1(feature)
        # MONAI taps the transformer after its fourth, seventh and tenth block, and after the last block and the norm
        first, last = ((0, 4), (4, 7), (7, 10), (10, None))[stage - 1]
        tokens = self.vit.patch_embedding(feature) if stage == 1 else feature.flatten(2).transpose(1, 2).contiguous()
        for block in self.vit.blocks[first:last]:
            tokens = block(tokens)
        if stage == 4:
            tokens = self.vit.norm(tokens)
        return self.proj_feat(tokens)

    def _up_blocks(self) -> tuple[UnetrUpBlock, ...]:
        return self.decoder5, self.decoder4, self.decoder3, self.decoder2

    def _skips(self, history: FeatureHistory) -> list[Tensor | None]:
        """What MONAI concatenates in each decoder stage: features of the transformer, brought to the stage's grid."""
        if not self.skip_connections:
            return [None] * 4
        encoder1, transformer1, transformer2, transformer3 = (history.feature(stage) for stage in range(4))
        return [self.encoder4(transformer3), self.encoder3(transformer2), self.encoder2(transformer1), encoder1]
