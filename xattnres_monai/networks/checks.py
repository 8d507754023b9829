"""Checks of a network's input. They run first, so that the error is about the input and not about some layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

__all__ = ["check_channels", "check_multiples", "check_not_one_voxel", "size_error"]


def check_channels(network: nn.Module, x: Tensor, spatial_dims: int, in_channels: int) -> None:
    """Raise a ``ValueError`` unless ``x`` is ``(B, in_channels, *S)`` with ``spatial_dims`` spatial axes."""
    shape, name = tuple(x.shape), type(network).__name__
    axes = ", ".join("HWD"[:spatial_dims])
    if x.dim() != spatial_dims + 2:
        raise ValueError(
            f"{name} got an input of shape {shape} with {x.dim()} axes, expected {spatial_dims + 2}: "
            f"(batch, channels, {axes}); "
            "add the missing axes with unsqueeze, or build the network with another spatial_dims"
        )
    if x.shape[1] != in_channels:
        raise ValueError(
            f"{name} got an input of shape {shape} with {x.shape[1]} channels, expected {in_channels} on axis 1; "
            f"select the channels, or build the network with in_channels={x.shape[1]}"
        )


def check_multiples(network: nn.Module, x: Tensor, multiples: Sequence[int]) -> None:
    """Raise a ``ValueError`` unless every side of the image is a multiple of its entry in ``multiples`` (voxels)."""
    if any(side % multiple for side, multiple in zip(x.shape[2:], multiples)):
        raise size_error(network, x, multiples)


def check_not_one_voxel(network: nn.Module, x: Tensor, multiples: Sequence[int]) -> None:
    """Raise a ``ValueError`` where instance norm would have to normalise the single voxel of the coarsest grid."""
    one_voxel = all(side <= multiple for side, multiple in zip(x.shape[2:], multiples))
    if one_voxel and any(isinstance(module, _InstanceNorm) for module in network.modules()):
        raise size_error(network, x, multiples, "with more than one of them along an axis, for instance norm")


def size_error(network: nn.Module, x: Tensor, multiples: Sequence[int], more: str = "") -> ValueError:
    """The error for an image size that the network cannot take; ``multiples`` has one entry per axis, in voxels."""
    size, needed = tuple(x.shape[2:]), tuple(multiples)
    return ValueError(
        f"{type(network).__name__} got an image of size {size}, expected multiples of {needed}{more and ' '}{more}; "
        f"pad it, e.g. with monai.transforms.DivisiblePad(k={needed})"
    )
