"""MONAI transforms of the bundles that MONAI does not have, or has with a fault."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import monai.transforms
from monai.transforms import MapTransform
from PIL.Image import Image

__all__ = ["MergeMasksd", "Spacingd", "to_grey"]


def to_grey(picture: Image) -> Image:
    """One channel of 8 bits from any PNG, for the ``converter`` of MONAI's ``PILReader``; 16 bits stay as they are."""
    return picture if picture.mode.startswith("I") else picture.convert("L")


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
