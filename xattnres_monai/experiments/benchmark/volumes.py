"""Generate data sets with the sizes and folders of real ones. They serve to measure time and memory, not to learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

__all__ = ["volume", "write_acdc", "write_btcv"]


def write_acdc(root: Path, patients: Mapping[str, int], size: Sequence[int]) -> Path:
    """Write short-axis stacks in ACDC's layout, unless the folder exists.

    Args:
        root: folder of the data set.
        patients: number of patients in ``training`` and ``validation``; each has two frames.
        size: number of voxels along each axis; a voxel is 1.4 × 1.4 × 10 mm.

    Returns:
        ``root``.
    """
    pairs = {}
    numbers = iter(range(1, sum(patients.values()) + 1))
    for part, count in patients.items():
        for name in [f"patient{next(numbers):03d}" for _ in range(count)]:
            for frame in (1, 12):
                stem = f"{part}/{name}/{name}_frame{frame:02d}"
                pairs[f"{stem}.nii.gz"] = f"{stem}_gt.nii.gz"
    return _written(root, pairs, classes=3, size=size, spacing=(1.4, 1.4, 10))


def write_btcv(root: Path, numbers: Sequence[int], size: Sequence[int]) -> Path:
    """Write CT volumes in BTCV's layout, unless the folder exists.

    Args:
        root: folder of the data set.
        numbers: numbers of the volumes; 35 to 40 are validation cases.
        size: number of voxels along each axis; a voxel is 0.8 × 0.8 × 3 mm.

    Returns:
        ``root``.
    """
    pairs = {f"Training/img/img{n:04d}.nii.gz": f"Training/label/label{n:04d}.nii.gz" for n in numbers}
    return _written(root, pairs, classes=13, size=size, spacing=(0.8, 0.8, 3))


def volume(size: Sequence[int], classes: int, seed: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return noise with an ellipsoid of each class, and its label."""
    generator = np.random.default_rng(seed)
    label = np.zeros(size, np.uint8)
    for value in range(1, classes + 1):
        centre, radii = generator.uniform(0.3, 0.7, 3) * size, generator.uniform(0.05, 0.2, 3) * size + 1
        box = tuple(
            slice(max(0, int(middle - r)), min(side, int(middle + r) + 1))
            for middle, r, side in zip(centre, radii, size)
        )
        distance = sum(((axis - middle) / r) ** 2 for axis, middle, r in zip(np.ogrid[box], centre, radii))
        label[box][distance <= 1] = value
    return generator.integers(-50, 50, size, np.int16) + np.int16(15) * label, label


def _written(
    root: Path, pairs: Mapping[str, str], classes: int, size: Sequence[int], spacing: tuple[float, float, float]
) -> Path:
    """Write a data set and return its folder, which gets its name only when complete; a partial one is rewritten."""
    if root.exists():
        return root
    part = root.with_name(f"{root.name}.part")

    def write(seed: int, names: tuple[str, str]) -> None:
        for name, array in zip(names, volume(size, classes, seed)):
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.diag([*spacing, 1])), path)

    with ThreadPoolExecutor(max_workers=4) as threads:  # a volume of the real size takes 0.5 GB while it is made
        list(threads.map(write, range(len(pairs)), pairs.items()))
    return part.rename(root)
