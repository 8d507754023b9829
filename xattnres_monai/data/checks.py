"""MONAI transforms that refuse an image or label that a network cannot use, and name its file."""

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
    """MONAI's ``LoadImaged`` with errors that name the file, which those of MONAI do not.

    Raises:
        ValueError: when a file cannot be read. The message names the file and the reason.
    """

    def __call__(self, data: Mapping[Hashable, Any], reader: Any = None) -> dict[Hashable, Any]:
        try:
            return super().__call__(data, reader)
        except Exception:  # readers raise many kinds of error on broken files
            for key in self.key_iterator(data):  # load one file after the other to find the broken one
                self._load(data[key], reader)
            raise

    def _load(self, file: Any, reader: Any) -> None:
        try:
            self._loader(file, reader)
        except Exception as error:
            raise ValueError(
                f"{file} cannot be read ({one_line(error)}), expected an image file; restore the file or leave it out"
            ) from None


class CheckImaged(MapTransform):
    """Refuses images with several channels, other axes, a broken grid, or intensities that are not finite.

    One NaN voxel spoils the whole normalised image and its gradients. If a header says that voxels are a metre wide,
    the resampled image has more voxels than fit into memory.

    Args:
        keys: keys of the images to check, each ``(C, *S)``.
        spatial_axes: number of spatial axes that the images must have.

    Raises:
        ValueError: when an image is refused. The message names the file and the fault.
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
                    f"{_name(image, key)} has {channels} channels and {axes} axes, expected 1 channel and "
                    f"{self.spatial_axes} axes; give one frame of a series or one channel of a colour image"
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
    """Refuses labels that differ in shape from their image, or that hold values that are no class.

    Args:
        keys: keys of the labels to check, each ``(C, *S)``. Images without a label pass.
        classes: number of classes, background included.
        image: key of the image.

    Raises:
        ValueError: when a label is refused. The message names the file and the fault.
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
                    f"{tuple(data[self.image].shape[1:])}; resample the label to the image's grid"
                )
            values = torch.as_tensor(label)
            unknown = values[(values != values.round()) | (values < 0) | (values >= self.classes)]
            if unknown.numel():
                shown = ", ".join(f"{value:g}" for value in unknown.unique()[:5].tolist())
                raise ValueError(
                    f"{_name(label, key)} has the values {shown}, expected whole numbers 0 … {self.classes - 1}; "
                    "map them to the classes or correct the key labels"
                )
        return dict(data)


def _name(image: torch.Tensor, key: Hashable) -> str:
    return str(getattr(image, "meta", {}).get("filename_or_obj", key))
