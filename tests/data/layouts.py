"""Small data sets in the published layouts of the real ones: their names, types, and the grids that scanners write."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image

# an oblique, anisotropic grid in mm: what scanners write and axis-aligned tests miss
AFFINE = np.array([[-0.9, 0.1, 0.2, 40.0], [0.1, 0.95, -0.3, -30.0], [0.15, 0.25, 1.4, 12.0], [0, 0, 0, 1]])
SIZE = (22, 26, 18)


def phantom(size: tuple[int, ...], classes: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """An ellipsoid divided into cells, one per class and a brightness each, in noise."""
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in size), indexing="ij"), axis=-1)
    centre = generator.uniform(-0.08, 0.08, len(size))
    directions = np.random.default_rng(classes).normal(size=(classes, len(size)))
    nearest = np.argmax((grid - centre) @ (directions / np.linalg.norm(directions, axis=1, keepdims=True)).T, axis=-1)
    inside = np.linalg.norm(grid - centre, axis=-1) < 0.75
    label = (inside * (nearest + 1)).astype(np.uint8)
    return 100.0 * label / classes + generator.normal(0, 5, size), label


def write_nifti(image: Path, label: Path | None, classes: int, seed: int, size=SIZE, affine=AFFINE) -> None:
    grey, values = phantom(size, classes, seed)
    for path, array in ((image, grey.astype(np.int16)), (label, values)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, affine), path)


def write_msd(root: Path, classes: int = 2, cases: int = 10) -> Path:
    """Labelled cases and one without label."""
    names = [f"ellipsoids_{number:03d}.nii.gz" for number in range(cases + 1)]
    for seed, name in enumerate(names[:-1]):
        write_nifti(root / "imagesTr" / name, root / "labelsTr" / name, classes, seed)
    write_nifti(root / "imagesTs" / names[-1], None, classes, cases)
    training = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names[:-1]]
    labels = {"0": "background", **{str(value): f"class {value}" for value in range(1, classes + 1)}}
    description = {"name": "Ellipsoids", "labels": labels, "training": training, "test": [f"./imagesTs/{names[-1]}"]}
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def write_acdc(root: Path, patients: int = 5) -> Path:
    """End-diastole and end-systole of patients, one validation patient, and one of the testing patients."""
    affine = np.diag([-1.4, -1.4, 10.0, 1.0]) @ np.array(
        [[1, 0.02, 0, 3], [-0.02, 1, 0, 5], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    folders = [("training", number) for number in range(1, patients)] + [("validation", patients), ("testing", 101)]
    for part, number in folders:
        patient = root / part / f"patient{number:03d}"
        for frame in (1, 9):
            stem = patient / f"{patient.name}_frame{frame:02d}"
            write_nifti(
                stem.with_name(f"{stem.name}.nii.gz"), stem.with_name(f"{stem.name}_gt.nii.gz"), 3, 2 * number + frame,
                (36, 40, 6), affine,
            )  # fmt: skip
        write_nifti(patient / f"{patient.name}_4d.nii.gz", None, 3, number)
        (patient / "Info.cfg").write_text("ED: 1\nES: 9\nGroup: NOR\n")
    return root


def write_btcv(root: Path, numbers: tuple[int, ...] = (1, 2, 3, 21, 35, 40)) -> Path:
    for number in numbers:
        image = root / "Training" / "img" / f"img{number:04d}.nii.gz"
        write_nifti(image, root / "Training" / "label" / f"label{number:04d}.nii.gz", 13, number)
    write_nifti(root / "Testing" / "img" / "img0061.nii.gz", None, 13, 61)
    return root


def write_amos(root: Path) -> Path:
    """Three training cases and one validation case of CT and of MRI, and a test case of each."""
    for part, numbers in (("Tr", (1, 4, 5, 507, 508, 510)), ("Va", (8, 517)), ("Ts", (3, 541))):
        for number in numbers:
            name = f"amos_{number:04d}.nii.gz"
            label = None if part == "Ts" else root / f"labels{part}" / name
            write_nifti(root / f"images{part}" / name, label, 15, number)
    return root


def write_busi(root: Path) -> Path:
    """Pictures of several modes and sizes; the second of each class has two masks, normal ones an empty mask."""
    for part in ("benign", "malignant", "normal"):
        (root / part).mkdir(parents=True)
        for number in range(1, 4):
            size = (58 + 6 * number, 52)
            grey, label = phantom(size, 1, number)
            picture = Image.fromarray(np.clip(grey + 30, 0, 255).astype(np.uint8).T)
            picture.convert(("RGB", "L", "RGBA")[number - 1]).save(root / part / f"{part} ({number}).png")
            mask = np.zeros_like(label) if part == "normal" else label
            left = (np.arange(size[0]) < size[0] // 2)[:, None]
            for index, tumour in enumerate([mask * left, mask * ~left] if number == 2 else [mask]):
                suffix = f"_{index}" if index else ""
                picture = Image.fromarray((255 * tumour).T).convert("1" if number == 1 else "L")
                picture.save(root / part / f"{part} ({number})_mask{suffix}.png")
    return root
