"""What all data sets share: finding files in a published layout, and checking pairs of image and label."""

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
    """A published folder layout, for the error that a folder of another layout gets.

    Args:
        name: of the data set.
        expected: its files, in one line.
        source: where it is obtained.
    """

    name: str
    expected: str
    source: str

    def error(self, root: Path, difference: str) -> FileNotFoundError:
        """What ``datalist`` raises; ``difference`` is the first thing that differs."""
        return FileNotFoundError(
            f"{root.resolve()} is no {self.name} folder: {difference}; expected {self.expected}; "
            f"get it from {self.source} and give its folder as dataset_dir"
        )


def stem(path: str | Path) -> str:
    """File name without ``.nii.gz``, ``.nii`` or ``.png``."""
    return Path(Path(path).name.removesuffix(".gz")).stem


def find_images(root: str | Path, *pattern: str) -> list[str]:
    """Files in ``root`` that match the joined parts of a pattern, in order; a ``FileNotFoundError`` when none does."""
    found = Path(root).glob("/".join(pattern))
    images = sorted(str(path) for path in found if not path.name.startswith("."))  # macOS leaves ._case.nii.gz
    if not images:
        raise FileNotFoundError(
            f"no file matches {Path(root, *pattern)}, expected images; give others as images, e.g. ['case.nii.gz']"
        )
    return images


def check_pairs(cases: Sequence[Case]) -> None:
    """Read the header of every image and label.

    Raises:
        ValueError: names all files at once that are missing or unreadable, and all pairs whose grids differ: another
            shape, or a corner voxel that lies more than half a voxel from where it is in the image.
    """
    faults = [fault for case in cases for fault in _pair_faults(case)]
    if faults:
        raise ValueError(
            f"{len(faults)} faults in {len(cases)} cases: {'; '.join(faults)}; repair the files or take the cases out"
        )


def read_grid(path: str | Path) -> Grid:
    """Shape in voxels and affine (voxel → mm; the identity for PNG) from the header of a NIfTI or PNG file."""
    if str(path).endswith(".png"):
        with Image.open(path) as picture:
            return picture.size, np.eye(4)
    image = nibabel.load(path)
    if not grid_fault(image.affine):
        image = correct_nifti_header_if_necessary(image)  # as MONAI's reader does
    return image.shape, image.affine


def grid_fault(affine: NDArray[np.float64]) -> str:
    """What is wrong with the affine of a grid (voxel → mm); empty when nothing is."""
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
                yield f"{path} has shape {label[0]}, its image {case['image']} {image[0]}"
            elif _displacement(image, label) > 0.5:
                yield f"{path} lies elsewhere than its image ({_displacement(image, label):.1f} voxels at a corner)"


def _displacement(image: Grid, label: Grid) -> float:
    """The largest distance between the same corner voxel of both grids, in voxels of the image."""
    corners = np.array(list(product(*((0, size - 1) for size in image[0][:3]), (1,))))
    corners = np.insert(corners, -1, 0, axis=1) if corners.shape[1] == 3 else corners
    moved = np.linalg.solve(image[1], label[1] @ corners.T).T - corners
    return float(np.linalg.norm(moved, axis=1).max())
