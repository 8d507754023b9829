"""Simulated acquisitions of the MNI152 T1 template: a random generator makes the images from one averaged brain.

They show that the software runs, offline and within minutes. They are never evidence for a method or for clinical use,
because every case has the anatomy of the same template.

The template itself would be too easy: it is left-right symmetric, and two global thresholds segment it. Every simulated
case therefore has its own pose, smooth deformation and contrast, a strong bias field and Rician noise. In three cases
of ten, grey matter is brighter than white matter. Three cases of ten have a lower resolution.
:mod:`xattnres_monai.evaluation.threshold_baseline` measures how well thresholds still segment these cases.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import (
    AsDiscreted,
    Compose,
    CropForegroundd,
    Rand3DElasticd,
    RandAdjustContrastd,
    RandBiasFieldd,
    RandLambdad,
    RandRicianNoised,
    RandSimulateLowResolutiond,
    SaveImage,
    ScaleIntensityd,
)
from tqdm import tqdm

__all__ = ["simulate"]

# raise it whenever the simulated values change, so that a folder of another version is not taken for this one
VERSION = 1
SPACING = 2  # mm
GREY = 0.66  # median of grey matter in the template; cerebrospinal fluid has 0.40, white matter 0.84
DESCRIPTION = {
    "name": "MNI152Simulated",
    "description": "Simulated acquisitions of the MNI152 T1 template: deformed copies of one averaged brain with "
    "simulated contrast, bias field, noise and resolution. They show the machinery and are never evidence.",
    "reference": "MNI152 ICBM 2009a nonlinear symmetric, as in nilearn; Fonov et al. 2011, "
    "doi:10.1016/j.neuroimage.2010.07.033",
    "licence": "Template: Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological "
    "Institute, McGill University; use, copies, changes and distribution permitted for any purpose and without fee, "
    "provided that the copyright notice appears in all copies",
    "modality": {"0": "MRI (simulated T1)"},
    "labels": {"0": "background", "1": "grey matter", "2": "white matter"},
}


def simulate(dataset_dir: str | Path, labelled: int = 32, unlabelled: int = 1, seed: int = 0) -> Path:
    """Write a simulated data set in the layout of the Medical Segmentation Decathlon, unless it exists.

    A case depends only on the seed and its own number. The first cases stay the same if you ask for more.

    Args:
        dataset_dir: folder to create for the data set.
        labelled: number of cases with image and label, 1 or more.
        unlabelled: number of further cases without label, 0 or more.
        seed: seed of the simulation, 0 or more.

    Returns:
        ``dataset_dir``, with images (int16) and labels (uint8: 0 background, 1 grey matter, 2 white matter) of
        88 x 104 x 88 voxels of 2 mm, in RAS orientation.

    Raises:
        ValueError: when a number is out of range.
        FileExistsError: when ``dataset_dir`` holds anything but this simulation.
        ImportError: when nilearn is not installed. It contains the template.
    """
    if labelled < 1 or unlabelled < 0 or seed < 0:
        raise ValueError(f"got labelled={labelled}, unlabelled={unlabelled}, seed={seed}, expected at least 1, 0 and 0")
    target = Path(dataset_dir)
    simulation = {"version": VERSION, "seed": seed, "labelled": labelled, "unlabelled": unlabelled}
    if _holds(target, simulation):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # write beside the target, then rename, so that an interrupted simulation is never taken for the data set
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
        written = Path(folder) / target.name
        _write(written, simulation)
        try:
            written.rename(target)
        except OSError:
            # another process may have written the same simulation in the meantime; anything else there is an error
            if not _holds(target, simulation):
                raise
    return target


def _holds(target: Path, simulation: dict[str, int]) -> bool:
    """Tell whether the folder holds this simulation (true) or nothing (false). Raise ``FileExistsError`` otherwise."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    try:
        found = json.loads((target / "dataset.json").read_text())["simulation"]
    except (OSError, ValueError, KeyError, TypeError):
        found = "no simulation"
    if found != simulation:
        raise FileExistsError(f"{target} holds {found}, expected {simulation}; delete it or choose another dataset_dir")
    return True


def _write(root: Path, simulation: dict[str, int]) -> None:
    """Simulate all cases into the new folder ``root``, and write its description last."""
    template = _template()
    simulator = _simulator()
    save_image = SaveImage(output_ext=".nii.gz", output_dtype=np.int16, resample=False, print_log=False)
    save_label = SaveImage(output_ext=".nii.gz", output_dtype=np.uint8, resample=False, print_log=False)
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (root / folder).mkdir(parents=True)
    training, test = [], []
    cases = range(simulation["labelled"] + simulation["unlabelled"])
    for number in tqdm(cases, desc="simulating MNI152 acquisitions", unit="case", disable=None):
        case_seed = np.random.SeedSequence([simulation["seed"], number]).generate_state(1)
        case = simulator.set_random_state(seed=int(case_seed[0]))(template)
        name = f"mni152_{number:03d}"
        if number < simulation["labelled"]:
            save_image(case["image"], filename=root / "imagesTr" / name)
            save_label(case["label"], filename=root / "labelsTr" / name)
            training.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
        else:
            save_image(case["image"], filename=root / "imagesTs" / name)
            test.append(f"./imagesTs/{name}.nii.gz")
    contents = {"numTraining": len(training), "numTest": len(test), "training": training, "test": test}
    (root / "dataset.json").write_text(json.dumps({**DESCRIPTION, **contents, "simulation": simulation}, indent=2))


def _template() -> dict[str, Any]:
    """Return the template's brain (``image``, 0 … 1) and the probabilities of the three classes (``label``)."""
    try:
        from nilearn.datasets import (  # noqa: PLC0415 (an optional dependency)
            load_mni152_gm_template,
            load_mni152_template,
            load_mni152_wm_template,
        )
    except ImportError as error:
        raise ImportError("nilearn is needed for the embedded demo data: pip install nilearn") from error
    brain = load_mni152_template(resolution=SPACING)
    grey, white = (
        load(resolution=SPACING).get_fdata(dtype=np.float32)
        for load in (load_mni152_gm_template, load_mni152_wm_template)
    )
    template = {
        "image": MetaTensor(brain.get_fdata(dtype=np.float32)[None], affine=brain.affine),
        "label": MetaTensor(np.stack([1 - grey - white, grey, white]), affine=brain.affine),
    }
    # the margin leaves room for the deformation, also at the bottom, where the template cuts off the brain stem
    return CropForegroundd(
        keys=["image", "label"],
        source_key="image",
        select_fn=lambda intensity: intensity > 0.05,
        allow_smaller=False,
        margin=4,
        k_divisible=8,
    )(template)


def _grey_brightest(image: torch.Tensor) -> torch.Tensor:
    """Reverse the contrast of grey and white matter, as FLAIR does, and keep cerebrospinal fluid dark."""
    return (0.75 - 1.5 * (image - GREY).abs()).clamp(min=0)


def _simulator() -> Compose:
    """Build the transform that simulates one case: it turns the template into 12-bit intensities and a label."""
    return Compose(
        [
            # 2 to 4 mm of smooth displacement along each axis (standard deviation), on top of the head's pose
            Rand3DElasticd(
                keys=["image", "label"],
                prob=1.0,
                sigma_range=(6, 8),
                magnitude_range=(200, 350),
                rotate_range=(0.15, 0.15, 0.15),
                translate_range=(3, 3, 3),
                scale_range=(0.07, 0.07, 0.07),
                padding_mode="zeros",
            ),
            # deform probabilities and take their maximum here, because a deformed label would have jagged borders
            AsDiscreted(keys="label", argmax=True),
            RandLambdad(keys="image", func=_grey_brightest, prob=0.3),
            RandAdjustContrastd(keys="image", prob=1.0, gamma=(1.0, 2.2)),
            RandBiasFieldd(keys="image", prob=1.0, degree=3, coeff_range=(-0.35, 0.35)),
            RandSimulateLowResolutiond(keys="image", prob=0.3, downsample_mode="area", zoom_range=(0.65, 0.95)),
            RandRicianNoised(keys="image", prob=1.0, std=0.05, sample_std=False),
            # no voxel may be exactly 0, so that normalisation over non-zero voxels uses the same voxels in every case
            ScaleIntensityd(keys="image", minv=1, maxv=4095),
        ]
    )
