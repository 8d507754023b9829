"""What all XAttnRes networks share: their options, the attention of their stages, and the check of their input."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from xattnres_monai.attention.options import XAttnResOptions
from xattnres_monai.attention.stages import Stage, attention_maps, cross_stage_attentions
from xattnres_monai.networks.checks import check_channels, check_multiples, check_not_one_voxel

__all__ = ["CrossStageNetwork"]


class CrossStageNetwork(nn.Module):
    """Base of a network whose stages choose their input from all stages before them.

    A subclass inherits from this class first and from the MONAI class second. It defines its stages (:meth:`_stages`),
    how it is built without skip connections (:meth:`_remove_skips`), which sizes it takes (:meth:`_multiples`) and how
    it runs (:meth:`_segment`).

    Args:
        xattnres: :class:`~xattnres_monai.XAttnResOptions`, the same as a mapping, or ``None`` for the defaults.
        dropout: dropout probability. MONAI Label gives it by this name to every network.
        *args, **kwargs: as for the MONAI class.
    """

    dropout_argument: ClassVar[str] = "dropout"  # its name in the MONAI class

    if TYPE_CHECKING:  # the layers of MONAI's classes have no types

        def __getattr__(self, name: str) -> Any: ...

    def __init__(
        self,
        *args: Any,
        xattnres: XAttnResOptions | Mapping[str, Any] | None = None,
        dropout: Any = None,
        **kwargs: Any,
    ) -> None:
        options = XAttnResOptions.of(xattnres)
        if dropout is not None:
            kwargs[self.dropout_argument] = dropout
        super().__init__(*args, **kwargs)
        given = inspect.signature(super().__init__).bind(*args, **kwargs)
        given.apply_defaults()
        arguments = given.arguments
        self.spatial_dims: int = arguments["spatial_dims"]
        self.in_channels: int = arguments["in_channels"]
        self.skip_connections = options.skip_connections
        self.merges = options.merges
        if not self.skip_connections:
            self._remove_skips(arguments)
        self.xattnres = cross_stage_attentions(self.spatial_dims, self._stages(arguments), options)

    def forward(self, x: Tensor) -> Tensor:
        """Segment an image.

        Args:
            x: image ``(B, in_channels, *S)``.

        Returns:
            Logits ``(B, out_channels, *S)``.

        Raises:
            ValueError: for an input of the wrong dimensions, channels or size.
        """
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            check_channels(self, x, self.spatial_dims, self.in_channels)
            self._check_size(x)
        return self._segment(x)

    def attention_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Weights ``(B, N, *S)`` of the N earlier stages, by stage: :func:`xattnres_monai.attention_maps`."""
        return attention_maps(self, x)

    def _stages(self, arguments: Mapping[str, Any]) -> list[Stage]:
        """All stages in the order in which they run; ``arguments`` are those of the MONAI class."""
        raise NotImplementedError

    def _remove_skips(self, arguments: Mapping[str, Any]) -> None:
        """Rebuild the layers that take a skip connection, and drop those that only serve one."""
        raise NotImplementedError

    def _multiples(self) -> Sequence[int]:
        """What each side of the image has to be a multiple of, in voxels."""
        raise NotImplementedError

    def _segment(self, x: Tensor) -> Tensor:
        """Logits of an image that has been checked."""
        raise NotImplementedError

    def _check_size(self, x: Tensor) -> None:
        check_multiples(self, x, self._multiples())
        check_not_one_voxel(self, x, self._multiples())
