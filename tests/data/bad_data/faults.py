"""What can be wrong with the files of a case, or unusual and still right."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from xattnres_monai.utils.errors import one_line

NAME = "msd_hippocampus_mri_segmentation"
CASE = "ellipsoids_001"
Change = Callable[[Path], None]


def voxels(change: Callable[[np.ndarray], np.ndarray], dtype: type = np.float32) -> Change:
    """Another array on the same grid."""

    def write(path: Path) -> None:
        stored = nibabel.load(path)
        array = change(np.asarray(stored.dataobj).astype(dtype))
        nibabel.save(nibabel.Nifti1Image(array, stored.affine), path)

    return write


def at(value: float, dtype: type = np.float32) -> Change:
    """One voxel of another value."""

    def change(array: np.ndarray) -> np.ndarray:
        array[3, 4, 5] = value
        return array

    return voxels(change, dtype)


def spacing(size: float, axis: int = 0) -> Change:
    def write(path: Path) -> None:
        stored = nibabel.load(path)
        affine = np.diag([1.0, 1.0, 1.0, 1.0])
        affine[axis, axis] = size
        nibabel.save(nibabel.Nifti1Image(np.asarray(stored.dataobj), affine), path)

    return write


def header(**fields: object) -> Change:
    """Fields of the header, as bytes that no library would write."""

    def write(path: Path) -> None:
        raw = bytearray(gzip.decompress(path.read_bytes()))
        found = nibabel.Nifti1Header(bytes(raw[:348]), check=False)
        for name, value in fields.items():
            found[name] = value
        path.write_bytes(gzip.compress(found.binaryblock + bytes(raw[348:])))

    return write


def picture(array: np.ndarray) -> Change:
    """A PNG under the name of a NIfTI."""
    return lambda path: Image.fromarray(array).save(path, format="PNG")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def moved(path: Path) -> None:
    stored = nibabel.load(path)
    shift = np.eye(4)
    shift[:3, 3] = 9
    nibabel.save(nibabel.Nifti1Image(np.asarray(stored.dataobj), shift @ stored.affine), path)


@dataclass(frozen=True)
class Fault:
    """What is done to a file, words that tell of it, and whether ``datalist`` sees it: it reads no voxels of images."""

    change: Change
    words: str
    listed: bool = False


IMAGES = {
    "no image": Fault(lambda path: path.write_text("patient,age\n"), "cannot be read", True),
    "zero bytes": Fault(lambda path: path.write_bytes(b""), "cannot be read", True),
    "absent": Fault(Path.unlink, "is missing", True),
    "a folder": Fault(folder, "is missing", True),
    "a symlink loop": Fault(loop, "is missing", True),
    "truncated gzip": Fault(lambda path: path.write_bytes(path.read_bytes()[:-2000]), "cannot be read"),
    "a PNG": Fault(picture(np.zeros((9, 9), np.uint8)), "cannot be read", True),
    "4D series": Fault(voxels(lambda array: np.stack([array] * 3, -1)), "(22, 26, 18, 3)", True),
    "2D": Fault(voxels(lambda array: array[..., 0]), "(22, 26)", True),
    "an axis of RGB": Fault(voxels(lambda array: array[..., :3]), "(22, 26, 3)", True),
    "NaN": Fault(at(float("nan")), "has 1 voxels that are NaN or infinite"),
    "infinite": Fault(at(float("inf")), "has 1 voxels that are NaN or infinite"),
    "singular affine": Fault(header(srow_x=[0, 0, 0, 0]), "has an affine that cannot be inverted", True),
    "affine of NaN": Fault(header(srow_y=[float("nan")] * 4), "has an affine that cannot be inverted", True),
    "voxels of a metre": Fault(spacing(1000), "has voxels of 1e+03 × 1 × 1 mm, expected 0.01 … 100 mm", True),
    "voxels of a micrometre": Fault(spacing(0.001), "has voxels of 0.001 × 1 × 1 mm", True),
}
# three slices, and headers whose fault MONAI mends by their voxel sizes, with a warning; in a pair they are refused
FINE_ALONE = ("an axis of RGB", "singular affine", "affine of NaN")
LABELS = {
    "truncated gzip": Fault(lambda path: path.write_bytes(path.read_bytes()[:-100]), "cannot be read", True),
    "absent": Fault(Path.unlink, "is missing", True),
    "another shape": Fault(voxels(lambda array: array[:-1]), "has shape (21, 26, 18), its image", True),
    "elsewhere": Fault(moved, "lies elsewhere than its image", True),
    "values outside the classes": Fault(at(7, np.int16), "has the values 7, expected whole numbers 0 … 2"),
    "negative values": Fault(at(-1, np.int16), "has the values -1, expected whole numbers 0 … 2"),
    "fractions": Fault(at(0.5), "0.5, expected whole numbers", True),
    "NaN": Fault(at(float("nan")), "nan, expected whole numbers", True),
}
UNUSUAL = {
    "constant image": ("images", voxels(np.zeros_like)),
    "constant, not zero": ("images", voxels(lambda array: np.full_like(array, 7))),
    "float labels": ("labels", voxels(np.asarray)),
    "uint16": ("images", voxels(np.asarray, np.uint16)),
    "huge intensities": ("images", voxels(lambda array: array * 1e30)),
    "smaller than the patch": ("both", voxels(lambda array: array[8:14, 8:14, 8:14], np.int16)),
    "an axis of one voxel": ("both", voxels(lambda array: array[..., 9:10], np.int16)),
    "anisotropic": ("both", spacing(8, axis=2)),
}


def files(root: Path, part: str) -> list[Path]:
    """The files of the case that is changed."""
    parts = {"images": ["imagesTr"], "labels": ["labelsTr"], "both": ["imagesTr", "labelsTr"]}[part]
    return [root / folder / f"{CASE}.nii.gz" for folder in parts]


def said(call: Callable[[], object]) -> str:
    """The line that it ends with."""
    with pytest.raises(Exception) as caught:
        call()
    return one_line(caught.value)
