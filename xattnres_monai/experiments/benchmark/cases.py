"""The networks and inputs of the benchmark, in the three forms that it compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from xattnres_monai.networks import XAttnResSwinUNETR, XAttnResUNet, XAttnResUNETR

__all__ = ["CASES", "FORMS", "Case"]

FORMS = ("plain", "xattnres", "literal")
NETWORKS = {"unet": XAttnResUNet, "unetr": XAttnResUNETR, "swin_unetr": XAttnResSwinUNETR}


@dataclass(frozen=True)
class Case:
    """A network and its input.

    Args:
        network: ``unet``, ``unetr`` or ``swin_unetr``.
        spatial_dims: 2 or 3.
        size: length of every side of the image, in voxels.
        batch: number of images.
        width: ``feature_size`` of a transformer, or the number of channels of the UNet's first level.
        levels: number of levels of the UNet.
    """

    network: str
    spatial_dims: int
    size: int
    batch: int
    width: int
    levels: int = 5

    def build(self, form: str, options: Mapping[str, Any]) -> nn.Module:
        """Build the network in one of the three forms, with 14 output classes and random weights from seed 0."""
        torch.manual_seed(0)
        arguments: dict[str, Any] = {"spatial_dims": self.spatial_dims, "in_channels": 1, "out_channels": 14}
        if self.network == "unet":
            channels = [self.width * 2**level for level in range(self.levels)]
            arguments |= {"channels": channels, "strides": [2] * (self.levels - 1), "num_res_units": 2}
        else:
            arguments["feature_size"] = self.width
        if self.network == "unetr":
            arguments["img_size"] = self.size
        given = {"plain": {"stages": "none"}, "xattnres": options, "literal": {**options, "form": "literal"}}[form]
        network: nn.Module = NETWORKS[self.network](**arguments, xattnres=given)
        return network

    def image(self, device: str) -> torch.Tensor:
        return torch.rand(self.batch, 1, *[self.size] * self.spatial_dims, device=device)

    def __str__(self) -> str:
        name = {"unet": "UNet", "unetr": "UNETR", "swin_unetr": "SwinUNETR"}[self.network]
        width = f"({self.width}…{self.width * 2 ** (self.levels - 1)})" if self.network == "unet" else f"f{self.width}"
        return f"{name} {self.spatial_dims}D {width}, {self.size}{'²³'[self.spatial_dims - 2]}, batch {self.batch}"


CASES = {
    "swin_unetr_f48": Case("swin_unetr", 3, 96, 1, 48),
    "swin_unetr_f24": Case("swin_unetr", 3, 64, 2, 24),
    "unetr_f16": Case("unetr", 3, 96, 1, 16),
    "unet_3d": Case("unet", 3, 96, 2, 16),
    "unet_2d_wide": Case("unet", 2, 256, 8, 32),
    "unet_2d": Case("unet", 2, 160, 16, 16),
}
