"""Networks and their states, for the tests of what checkpoints load."""

from __future__ import annotations

import copy

import torch
from monai.networks.nets import SwinUNETR, UNet
from torch import nn

from xattnres_monai import XAttnResUNet

ARGUMENTS = {
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 2,
    "channels": (4, 8, 16),
    "strides": (2, 2),
    "num_res_units": 1,
    "norm": "batch",
}


def plain_unet(**changes) -> UNet:
    """With running statistics of its own, as after a training."""
    torch.manual_seed(1)
    network = UNet(**{**ARGUMENTS, **changes})
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(2, network.in_channels, *[16] * network.dimensions) * 5)
    return network


def unet(**changes) -> XAttnResUNet:
    torch.manual_seed(2)
    return XAttnResUNet(**{**ARGUMENTS, **changes}, xattnres={"fusion": "residual"})


def swin(feature_size: int = 12, seed: int = 0, **changes) -> SwinUNETR:
    torch.manual_seed(seed)
    return SwinUNETR(
        **{"in_channels": 1, "out_channels": 2, "feature_size": feature_size, "spatial_dims": 3, **changes}
    )


def snapshot(network: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(network.state_dict())


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def prefixed(prefix: str):
    return lambda state: {prefix + name: value for name, value in state.items()}
