"""MONAI transforms of the bundles that MONAI does not have."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

__all__ = ["CheckFinited"]


class CheckFinited(MapTransform):
    """Refuse images with NaN or infinite intensities: one such voxel spoils a whole normalised image and its gradients.

    Args:
        keys: of the images to check.

    Raises:
        ValueError: names the file and counts the voxels.
    """

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(data):
            image = torch.as_tensor(data[key])
            broken = int((~torch.isfinite(image)).sum())
            if broken:
                name = getattr(data[key], "meta", {}).get("filename_or_obj", key)
                raise ValueError(
                    f"{name} has {broken} voxels that are NaN or infinite, expected finite intensities; "
                    "repair the image or take it out of the data set"
                )
        return dict(data)
