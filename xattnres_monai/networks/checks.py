"""What a network can take, said before its first layer fails with a message about something else."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

__all__ = ["check_channels", "size_error"]


def check_channels(network: str, x: Tensor, spatial_dims: int, in_channels: int) -> None:
    """Raise a ``ValueError`` unless ``x`` is ``(B, in_channels, *S)`` with ``spatial_dims`` spatial axes."""
    shape = tuple(x.shape)
    axes = ", ".join("HWD"[:spatial_dims])
    if x.dim() != spatial_dims + 2:
        raise ValueError(
            f"{network} got an input of shape {shape} with {x.dim()} axes, expected {spatial_dims + 2}: "
            f"(batch, channels, {axes}); "
            "add the missing axes with unsqueeze, or build the network with another spatial_dims"
        )
    if x.shape[1] != in_channels:
        raise ValueError(
            f"{network} got an input of shape {shape} with {x.shape[1]} channels, expected {in_channels} on axis 1; "
            f"select the channels, or build the network with in_channels={x.shape[1]}"
        )


def size_error(network: str, x: Tensor, multiples: Sequence[int]) -> ValueError:
    """The error for a size that the network cannot take; ``multiples`` has one entry per spatial axis, in voxels."""
    size, needed = tuple(x.shape[2:]), tuple(multiples)
    return ValueError(
        f"{network} got an image of size {size}, expected multiples of {needed}; "
        f"pad it, e.g. with monai.transforms.DivisiblePad(k={needed})"
    )
