"""MONAI transforms of the bundles that MONAI does not have, or has with a fault."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import monai.transforms
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from PIL.Image import Image

__all__ = ["CheckFinited", "MergeMasksd", "Spacingd", "to_grey"]


def to_grey(picture: Image) -> Image:
    """One channel of 8 bits from any PNG, for the ``converter`` of MONAI's ``PILReader``; 16 bits stay as they are."""
    return picture if picture.mode.startswith("I") else picture.convert("L")


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


class MergeMasksd(MapTransform):
    """Merge masks ``(N, *S)`` of one image, whatever value they mark it with, into one ``(1, *S)`` of 0 and 1.

    Args:
        keys: of the stacked masks, as ``LoadImaged`` gives them for a list of files.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        merged = {key: (data[key] > 0).any(dim=0, keepdim=True).to(data[key].dtype) for key in self.key_iterator(data)}
        return {**data, **merged}


class Spacingd(monai.transforms.Spacingd):
    """MONAI's ``Spacingd``, for dictionaries that hold other values whose key begins with that of an image.

    MONAI's (1.6.1) calls ``update`` on ``image_path``, the string that MONAI Label puts beside ``image``.
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        prefixes = tuple(f"{key}_" for key in self.keys)
        kept = {
            key: value
            for key, value in data.items()
            if isinstance(key, str) and key.startswith(prefixes) and not isinstance(value, Mapping)
        }
        resampled = super().__call__({key: value for key, value in data.items() if key not in kept}, lazy)
        return {**resampled, **kept}
