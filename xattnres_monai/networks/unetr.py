"""XAttnResUNETR: MONAI's UNETR with cross-stage attention residuals (XAttnRes, arXiv 2604.03297).

Differs from the paper: the backbone is MONAI's UNETR (arXiv 2103.10504). The blocks that bring transformer features to
the decoder's grids are part of its skips, and go with them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from monai.networks.nets import UNETR
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from xattnres_monai.attention.history import FeatureHistory
from xattnres_monai.attention.options import XAttnResOptions
from xattnres_monai.attention.stages import Stage, attention_maps, cross_stage_attentions
from xattnres_monai.networks.checks import check_channels
from xattnres_monai.networks.up_block import remove_skip

__all__ = ["XAttnResUNETR"]


class XAttnResUNETR(UNETR):
    """MONAI's :class:`~monai.networks.nets.UNETR` whose stages choose their input from all stages before them.

    The stages are ``encoder1`` (the convolutions at full resolution), ``transformer1 … transformer4`` (the segments of
    the vision transformer that UNETR taps, on the grid of tokens; the last after the final norm) and
    ``decoder5 … decoder2``. ``encoder1`` and ``transformer1`` read the image and do not aggregate. Parameters of the
    backbone keep MONAI's names; those of the attention live under ``xattnres.``.

    Args:
        xattnres: :class:`~xattnres_monai.XAttnResOptions`, the same as a mapping, or ``None``: the defaults.
        dropout: another name for ``dropout_rate``, which MONAI Label gives.
        *args, **kwargs: as for MONAI's ``UNETR``.

    Raises:
        ValueError: for an unknown option, or for an input of the wrong dimensions, channels or size.

    Example::

        from xattnres_monai import XAttnResUNETR

        network = XAttnResUNETR(in_channels=1, out_channels=14, img_size=(96, 96, 96), xattnres={"query": "spatial"})
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
            kwargs["dropout_rate"] = dropout
        super().__init__(*args, **kwargs)
        given = inspect.signature(UNETR).bind(*args, **kwargs)
        given.apply_defaults()
        self.spatial_dims: int = given.arguments["spatial_dims"]
        self.in_channels: int = given.arguments["in_channels"]
        self.img_size = ensure_tuple_rep(given.arguments["img_size"], self.spatial_dims)
        self.skip_connections = options.skip_connections
        self.merges = options.merges
        if not self.skip_connections:
            for block in (self.decoder5, self.decoder4, self.decoder3, self.decoder2):
                remove_skip(block, self.spatial_dims, given.arguments["norm_name"])
            self.encoder2 = self.encoder3 = self.encoder4 = nn.Identity()  # they only served the skips
        stages = self._stages(given.arguments["feature_size"])
        self.xattnres = cross_stage_attentions(self.spatial_dims, stages, options)

    def forward(self, x: Tensor) -> Tensor:
        """Segment.

        Args:
            x: image ``(B, in_channels, *img_size)``.

        Returns:
            Logits ``(B, out_channels, *img_size)``.
        """
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            self._check_input(x)
        history = FeatureHistory()
        feature = x
        for stage, attention in enumerate(self.xattnres.values()):
            if stage < 2:
                feature = x
            if stage > 4 and self.merges:
                feature = self._upsample(stage, feature)
            feature = attention(feature, history)
            if stage > 4 and not self.merges:
                feature = self._upsample(stage, feature)
            feature = self._run(stage, feature, history)
            history.append(feature)
        return self.out(feature)

    def attention_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Weights ``(B, N, *S)`` of the N earlier stages, by stage: :func:`xattnres_monai.attention_maps`."""
        return attention_maps(self, x)

    def _stages(self, feature_size: int) -> list[Stage]:
        transformer = [Stage(f"transformer{number}", self.hidden_size, "encoder") for number in (1, 2, 3, 4)]
        decoder = []
        for number in (5, 4, 3, 2):
            width = feature_size * 2 ** (number - 2)
            attends_on = width if self.merges else None
            skip = "encoder1" if number == 2 else None  # the others pass through blocks of their own
            decoder.append(Stage(f"decoder{number}", width, "decoder", attends_on, skip))
        return [Stage("encoder1", feature_size, "encoder"), *transformer, *decoder]

    def _check_input(self, x: Tensor) -> None:
        check_channels(self, x, self.spatial_dims, self.in_channels)
        if tuple(x.shape[2:]) != self.img_size:
            raise ValueError(
                f"{type(self).__name__} got an image of size {tuple(x.shape[2:])}, expected {self.img_size}, the size "
                "of its position embedding; use a SlidingWindowInferer, or build the network with another img_size"
            )

    def _run(self, stage: int, feature: Tensor, history: FeatureHistory) -> Tensor:
        if stage == 0:
            return self.encoder1(feature)
        if stage < 5:
            return self._transform(stage, feature)
        if self.skip_connections:
            feature = torch.cat([feature, self._skip(stage, history)], dim=1)
        return self._convolve(stage, feature)

    def _transform(self, stage: int, feature: Tensor) -> Tensor:
        """Run the blocks up to MONAI's tap: after the fourth, seventh and tenth, and after the last and the norm."""
        first, last = [0, 0, 4, 7, 10][stage], [0, 4, 7, 10, 12][stage]
        tokens = self.vit.patch_embedding(feature) if stage == 1 else feature.flatten(2).transpose(1, 2).contiguous()
        for index, block in enumerate(self.vit.blocks):
            if first <= index and index < last:  # noqa: PLR1716  TorchScript does not chain comparisons
                tokens = block(tokens)
        if stage == 4:
            tokens = self.vit.norm(tokens)
        return self.proj_feat(tokens)

    def _skip(self, stage: int, history: FeatureHistory) -> Tensor:
        if stage == 5:
            return self.encoder4(history.feature(3))
        if stage == 6:
            return self.encoder3(history.feature(2))
        if stage == 7:
            return self.encoder2(history.feature(1))
        return history.feature(0)

    def _upsample(self, stage: int, feature: Tensor) -> Tensor:
        if stage == 5:
            return self.decoder5.transp_conv(feature)
        if stage == 6:
            return self.decoder4.transp_conv(feature)
        if stage == 7:
            return self.decoder3.transp_conv(feature)
        return self.decoder2.transp_conv(feature)

    def _convolve(self, stage: int, feature: Tensor) -> Tensor:
        if stage == 5:
            return self.decoder5.conv_block(feature)
        if stage == 6:
            return self.decoder4.conv_block(feature)
        if stage == 7:
            return self.decoder3.conv_block(feature)
        return self.decoder2.conv_block(feature)
