"""MONAI transforms that refuse an image or label which a network cannot be trained or asked on, and name its file."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import monai.transforms
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from xattnres_monai.data.layout import grid_fault
from xattnres_monai.utils.errors import one_line

__all__ = ["CheckImaged", "CheckLabeld", "LoadImaged"]


class LoadImaged(monai.transforms.LoadImaged):
    """MONAI's ``LoadImaged``, whose errors do not tell which file it was.

    Raises:
        ValueError: names the file and says why it cannot be read.
    """

    def __call__(self, data: Mapping[Hashable, Any], reader: Any = None) -> dict[Hashable, Any]:
        try:
            return super().__call__(data, reader)
        except Exception:  # readers raise many kinds of error on broken files
            for key in self.key_iterator(data):  # again, one by one, to know which it was
                self._load(data[key], reader)
            raise

    def _load(self, file: Any, reader: Any) -> None:
        try:
            self._loader(file, reader)
        except Exception as error:
            raise ValueError(
                f"{file} cannot be read ({one_line(error)}), expected an image file; restore or leave it out"
            ) from None


class CheckImaged(MapTransform):
    """Refuse images that are no single-channel grid of finite intensities in space.

    One voxel that is NaN spoils a whole normalised image and its gradients; voxels of a metre make more of them than
    memory holds, once they are resampled.

    Args:
        keys: of the images to check, ``(C, *S)``.
        spatial_axes: number of axes that the files have.

    Raises:
        ValueError: names the file and what is wrong with it.
    """

    def __init__(self, keys: KeysCollection, spatial_axes: int = 3) -> None:
        super().__init__(keys)
        self.spatial_axes = spatial_axes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(data):
            image = data[key]
            channels, axes = image.shape[0], image.ndim - 1
            if channels != 1 or axes != self.spatial_axes:
                raise ValueError(
                    f"{_name(image, key)} has {channels} channels of {axes} axes, expected 1 of {self.spatial_axes}; "
                    "give one frame of a series, one channel of a colour image"
                )
            if isinstance(image, MetaTensor) and (fault := grid_fault(np.asarray(image.affine))):
                raise ValueError(f"{_name(image, key)} {fault}; correct its header or leave it out")
            broken = int((~torch.isfinite(torch.as_tensor(image))).sum())
            if broken:
                raise ValueError(
                    f"{_name(image, key)} has {broken} voxels that are NaN or infinite, expected finite intensities; "
                    "repair the image or leave it out"
                )
        return dict(data)


class CheckLabeld(MapTransform):
    """Refuse labels that do not lie on the grid of their image, or that hold other values than its classes.

    Args:
        keys: of the labels to check, ``(C, *S)``; images without label pass.
        classes: number of classes, with background.
        image: key of the image.

    Raises:
        ValueError: names the file and what is wrong with it.
    """

    def __init__(self, keys: KeysCollection, classes: int, image: str = "image") -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.classes = classes
        self.image = image

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(data):
            label = data[key]
            if label.shape != data[self.image].shape:
                raise ValueError(
                    f"{_name(label, key)} has shape {tuple(label.shape[1:])}, expected that of its image, "
                    f"{tuple(data[self.image].shape[1:])}; resample it to the image's grid"
                )
            values = torch.as_tensor(label)
            unknown = values[(values != values.round()) | (values < 0) | (values >= self.classes)]
            if unknown.numel():
                shown = ", ".join(f"{value:g}" for value in unknown.unique()[:5].tolist())
                raise ValueError(
                    f"{_name(label, key)} has the values {shown}, expected whole numbers 0 … {self.classes - 1}; "
                    "map them to the classes or set labels"
                )
        return dict(data)


def _name(image: torch.Tensor, key: Hashable) -> str:
    return str(getattr(image, "meta", {}).get("filename_or_obj", key))
