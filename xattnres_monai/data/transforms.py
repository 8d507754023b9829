"""MONAI transforms of the bundles that MONAI does not have, or has with a fault."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import monai.transforms
from monai.engines import default_prepare_batch
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor
from PIL.Image import Image

__all__ = ["MergeMasksd", "Spacingd", "plain_batch", "to_grey"]


def to_grey(picture: Image) -> Image:
    """One channel of 8 bits from any PNG, for the ``converter`` of MONAI's ``PILReader``; 16 bits stay as they are."""
    return picture if picture.mode.startswith("I") else picture.convert("L")


def plain_batch(*args: Any, **kwargs: Any) -> Any:
    """Image and label of a batch as tensors without metadata, for the ``prepare_batch`` of a ``SupervisedTrainer``.

    With metadata MONAI (1.6.1) cannot train a compiled network.
    Arguments are those of ``default_prepare_batch``.
    """
    return convert_to_tensor(default_prepare_batch(*args, **kwargs), track_meta=False)


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
