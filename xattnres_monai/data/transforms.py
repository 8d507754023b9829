"""Transforms for the bundles that MONAI lacks, or that have a fault in MONAI."""

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
    """Turn a PNG into one channel of 8 bits, as ``converter`` of MONAI's ``PILReader``. 16-bit files stay unchanged."""
    return picture if picture.mode.startswith("I") else picture.convert("L")


def plain_batch(*args: Any, **kwargs: Any) -> Any:
    """Return image and label of a batch as tensors without metadata, as ``prepare_batch`` of a ``SupervisedTrainer``.

    MONAI (1.6.1) cannot train a compiled network on tensors with metadata. The arguments are those of
    ``default_prepare_batch``.
    """
    return convert_to_tensor(default_prepare_batch(*args, **kwargs), track_meta=False)


class MergeMasksd(MapTransform):
    """Merges N masks ``(N, *S)`` of one image into one mask ``(1, *S)`` of 0 and 1. Any value above 0 becomes 1.

    Args:
        keys: keys of the stacked masks, as ``LoadImaged`` gives them for a list of files.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        merged = {key: (data[key] > 0).any(dim=0, keepdim=True).to(data[key].dtype) for key in self.key_iterator(data)}
        return {**data, **merged}


class Spacingd(monai.transforms.Spacingd):
    """MONAI's ``Spacingd`` for dictionaries with keys such as ``image_path``, which start like the key of an image.

    MONAI Label adds the string ``image_path`` to a case with ``image``. MONAI's ``Spacingd`` (1.6.1) fails on it,
    because it calls ``update`` on the string.
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
