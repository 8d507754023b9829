"""Sources of a stage, projected and brought to its grid one slab of the volume after another, and their gradients.

A slab is one index of the first spatial axis: a plane of a volume, a row of an image. Used by
:mod:`xattnres_monai.blockwise`; :class:`xattnres_monai.alignment.StageAligner` does the same for a whole volume.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from xattnres_monai.interpolation import interpolate

__all__ = ["CoarseSource", "FineSource", "prepared"]


class FineSource:
    """A source on the grid of the stage: projected slab by slab."""

    def __init__(self, source: Tensor, kernel: Tensor, differentiate: bool) -> None:
        self.source, self.kernel = source.flatten(3), kernel.flatten(1)
        if differentiate:
            self.d_source, self.d_kernel = torch.empty_like(self.source), torch.zeros_like(self.kernel)

    def block(self, start: int, stop: int, buffer: Tensor) -> Tensor:
        """Values ``(B, C, m, R)`` of slabs ``start … stop``, in ``buffer``."""
        slab = self.source[:, :, start:stop].flatten(2)
        torch.bmm(self.kernel.expand(slab.shape[0], -1, -1), slab, out=buffer.flatten(2))
        return buffer

    def accumulate(self, start: int, stop: int, gradient: Tensor) -> None:
        """Take the gradient of slabs ``start … stop``."""
        d_values = gradient.flatten(2)
        slab = self.source[:, :, start:stop].flatten(2)
        self.d_kernel += torch.bmm(d_values, slab.mT).sum(0)
        self.d_source[:, :, start:stop] = (self.kernel.t() @ d_values).view_as(self.source[:, :, start:stop])

    def gradients(self) -> tuple[Tensor, Tensor]:
        """Of the source ``(B, C_k, D, R)`` and of the kernel ``(C, C_k)``."""
        return self.d_source, self.d_kernel


class CoarseSource:
    """A source on a coarser grid: projected there and interpolated in all axes but the first; that one slab by slab."""

    def __init__(self, source: Tensor, kernel: Tensor, size: list[int], differentiate: bool) -> None:
        self.leaves = source.detach().requires_grad_(differentiate), kernel.detach().requires_grad_(differentiate)
        whole = size[0] % source.shape[2] == 0
        self.factor = size[0] // source.shape[2] if whole else 1
        with torch.set_grad_enabled(differentiate):
            projected = (self.leaves[1].flatten(1) @ self.leaves[0].flatten(2)).unflatten(2, source.shape[2:])
            if not whole:
                projected = interpolate(projected, [size[0], *source.shape[3:]])
            # one slab more at either end, for those of the finer grid that lie outside the outermost of the coarser
            padded = torch.cat([projected[:, :, :1], projected, projected[:, :, -1:]], dim=2)
            self.padded = interpolate(padded, [padded.shape[2], *size[1:]]).flatten(3)  # (B, C, slabs, R)
        self.values = self.padded.detach()
        if differentiate:
            self.gradient = torch.zeros_like(self.values)

    def block(self, start: int, stop: int, buffer: Tensor) -> Tensor:
        """Values ``(B, C, m, R)`` of slabs ``start … stop``, in ``buffer``."""
        for below, above, share, fine in self._phases(start, stop):
            torch.lerp(self.values[:, :, below], self.values[:, :, above], share, out=buffer[:, :, fine])
        return buffer

    def accumulate(self, start: int, stop: int, gradient: Tensor) -> None:
        """Take the gradient of slabs ``start … stop``."""
        for below, above, share, fine in self._phases(start, stop):
            self.gradient[:, :, below].add_(gradient[:, :, fine], alpha=1 - share)
            self.gradient[:, :, above].add_(gradient[:, :, fine], alpha=share)

    def gradients(self) -> tuple[Tensor, ...]:
        """Of the source and of the kernel."""
        return torch.autograd.grad(self.padded, self.leaves, self.gradient)

    def _phases(self, start: int, stop: int) -> Iterator[tuple[slice, slice, float, slice]]:
        """Slabs that lie at the same place between two of the coarser grid: those two, the share of the second."""
        for first in range(start, min(start + self.factor, stop)):
            phase = (first % self.factor + 0.5) / self.factor
            below = first // self.factor + (phase > 0.5)
            count = len(range(first, stop, self.factor))
            share = phase - 0.5 if phase > 0.5 else phase + 0.5
            fine = slice(first - start, stop - start, self.factor)
            yield slice(below, below + count), slice(below + 1, below + 1 + count), share, fine


def prepared(
    sources: Sequence[Tensor], kernels: Sequence[Tensor], size: list[int], differentiate: bool
) -> list[FineSource | CoarseSource]:
    return [
        FineSource(source.contiguous(), kernel, differentiate)
        if list(source.shape[2:]) == size
        else CoarseSource(source, kernel, size, differentiate)
        for source, kernel in zip(sources, kernels)
    ]
