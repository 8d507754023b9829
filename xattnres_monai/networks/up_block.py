"""MONAI's UNETR up-block without its skip."""

from __future__ import annotations

from typing import Any

from monai.networks.blocks import UnetrUpBlock

__all__ = ["remove_skip"]


def remove_skip(block: UnetrUpBlock, spatial_dims: int, norm_name: Any) -> None:
    """Make the convolution of ``block`` take the up-sampled feature alone: no concatenation, no weights for one."""
    width = block.transp_conv.conv.out_channels
    convolution = type(block.conv_block)
    block.conv_block = convolution(spatial_dims, width, width, kernel_size=3, stride=1, norm_name=norm_name)
