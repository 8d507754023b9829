"""MONAI's UNETR up-block with attention before it, and without its skip connection."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.blocks import UnetrUpBlock
from torch import Tensor, nn

from xattnres_monai.attention.history import FeatureHistory

__all__ = ["remove_skip", "run_up_block"]


def run_up_block(
    block: UnetrUpBlock,
    attention: nn.Module,
    feature: Tensor,
    skip: Tensor | None,
    history: FeatureHistory,
    merges: bool,
) -> Tensor:
    """Run a decoder stage.

    Args:
        block: the stage. It up-samples, concatenates the skip connection and convolves.
        attention: the stage's attention.
        feature: output ``(B, C, *S)`` of the stage before.
        skip: what the skip connection brings, on the stage's own grid, or ``None`` without one.
        history: all stage outputs so far.
        merges: whether the attention runs after the up-sampling, where the skip connection is merged, or before it.

    Returns:
        Output of the stage.
    """
    if merges:
        feature = attention(block.transp_conv(feature), history)
    else:
        feature = block.transp_conv(attention(feature, history))
    if skip is not None:
        feature = torch.cat([feature, skip], dim=1)
    return block.conv_block(feature)


def remove_skip(block: UnetrUpBlock, spatial_dims: int, norm_name: Any) -> None:
    """Make the convolution of ``block`` take the up-sampled feature alone: no concatenation, no weights for one."""
    width = block.transp_conv.conv.out_channels
    convolution = type(block.conv_block)
    block.conv_block = convolution(spatial_dims, width, width, kernel_size=3, stride=1, norm_name=norm_name)
