"""Functions for all data sets: they find files in a published layout and check pairs of image and label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.data.utils import correct_nifti_header_if_necessary
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from PIL import Image

from xattnres_monai.utils.errors import one_line

__all__ = ["Layout", "check_pairs", "find_images", "grid_fault", "read_grid", "stem"]

VOXEL_SIZES = 0.01, 100.0  # mm

Case = dict[str, Any]
Grid = tuple[tuple[int, ...], NDArray[np.float64]]


@dataclass(frozen=True)
class Layout:
    """The published folder layout of a data set, for the error when a folder has another layout.

    Args:
        name: name of the data set.
        expected: the files of the layout, in one line.
        source: where to get the data set.
    """

    name: str
    expected: str
    source: str

    def error(self, root: Path, difference: str) -> FileNotFoundError:
        """Return the error for ``datalist`` to raise. ``difference`` says what differs first in the folder ``root``."""
        return FileNotFoundError(
            f"{root.resolve()} is not in the {self.name} layout: {difference}; expected {self.expected}; "
            f"get the data set from {self.source} and give its folder as dataset_dir"
        )


def stem(path: str | Path) -> str:
    """Return the file name without ``.nii.gz``, ``.nii`` or ``.png``."""
    return Path(Path(path).name.removesuffix(".gz")).stem


def find_images(root: str | Path, *pattern: str) -> list[str]:
    """Return the files in ``root`` that match the pattern, sorted. Raise a ``FileNotFoundError`` if there are none."""
    found = Path(root).glob("/".join(pattern))
    images = sorted(str(path) for path in found if not path.name.startswith("."))  # macOS adds ._case.nii.gz
    if not images:
        raise FileNotFoundError(
            f"no file matches {Path(root, *pattern)}, expected images; set images to other paths, e.g. ['case.nii.gz']"
        )
    return images


def check_pairs(cases: Sequence[Case]) -> None:
    """Check that every image and label can be read and that their grids agree. Only the headers are read.

    The grids agree if their shapes are equal and no corner voxel of the label is more than half a voxel away from the
    same corner of the image.

    Args:
        cases: dictionaries with ``image`` (a path) and ``label`` (a path or a list of paths).

    Raises:
        ValueError: when files are missing or unreadable, or when grids differ. One message lists all faults.
    """
    faults = [fault for case in cases for fault in _pair_faults(case)]
    if faults:
        raise ValueError(
            f"{len(faults)} faults in {len(cases)} cases: {'; '.join(faults)}; repair the files or take the cases out"
        )


def read_grid(path: str | Path) -> Grid:
    """Read the shape in voxels and the affine (voxel → mm, identity for PNG) from the header of a NIfTI or PNG file."""
    if str(path).endswith(".png"):
        with Image.open(path) as picture:
            return picture.size, np.eye(4)
    image = nibabel.load(path)
    if not grid_fault(image.affine):
        image = correct_nifti_header_if_necessary(image)  # as MONAI's reader does
    return image.shape, image.affine


def grid_fault(affine: NDArray[np.float64]) -> str:
    """Say what is wrong with the affine of a grid (voxel → mm). The text is empty if nothing is."""
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine) < len(affine):
        return "has an affine that cannot be inverted"
    sizes = voxel_sizes(affine)
    if min(sizes) < VOXEL_SIZES[0] or max(sizes) > VOXEL_SIZES[1]:
        shown = " × ".join(f"{size:.3g}" for size in sizes)
        return f"has voxels of {shown} mm, expected {VOXEL_SIZES[0]:g} … {VOXEL_SIZES[1]:g} mm"
    return ""


def _pair_faults(case: Case) -> Iterable[str]:
    labels = case["label"] if isinstance(case["label"], list) else [case["label"]]
    grids = {}
    for path in (case["image"], *labels):
        if not Path(path).is_file():
            yield f"{path} is missing"
            continue
        try:
            grids[path] = read_grid(path)
        except Exception as error:  # readers raise many kinds of error on broken files
            yield f"{path} cannot be read ({one_line(error)})"
    for path, (_, affine) in grids.items():
        if fault := grid_fault(affine):
            yield f"{path} {fault}"
            return
    if case["image"] in grids:
        image = grids.pop(case["image"])
        for path, label in grids.items():
            if label[0] != image[0]:
                yield f"{path} has shape {label[0]}, its image {case['image']} has {image[0]}"
            elif _displacement(image, label) > 0.5:
                yield f"{path} lies elsewhere than its image: a corner is {_displacement(image, label):.1f} voxels off"


def _displacement(image: Grid, label: Grid) -> float:
    """Return the largest distance between the same corner voxels of two grids, in voxels of the image."""
    corners = np.array(list(product(*((0, size - 1) for size in image[0][:3]), (1,))))
    corners = np.insert(corners, -1, 0, axis=1) if corners.shape[1] == 3 else corners
    moved = np.linalg.solve(image[1], label[1] @ corners.T).T - corners
    return float(np.linalg.norm(moved, axis=1).max())
