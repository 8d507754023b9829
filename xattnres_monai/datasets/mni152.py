"""Simulated acquisitions of the MNI152 T1 template: the embedded data set of the demo, made offline.

The images are simulated from one template. They show that the machinery works and are evidence of nothing. The template
itself would not even do that: it is left-right symmetric, and two intensity thresholds segment it. So every case is
deformed, its tissue contrast is drawn anew and partly inverted in some, and it gets a strong bias field, a lower
resolution and Rician noise. The tissue maps are deformed along and give the labels: 1 grey matter, 2 white matter.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.transforms import (
    Compose,
    RandAffine,
    RandBiasField,
    Randomizable,
    RandRicianNoise,
    RandSimulateLowResolution,
    RandSmoothDeform,
    ResizeWithPadOrCrop,
    Transform,
)
from numpy.typing import NDArray
from torch import Tensor
from tqdm import trange

__all__ = ["simulate"]

VERSION = 1  # of the simulator; a change that alters images raises it, and a cached data set is made again
SPACING = 2.0  # mm
SIZE = (96, 112, 96)  # voxels: the brain with a margin
BRAIN = 0.1  # intensity of the template above which a voxel is brain
TEMPLATE_CONTRAST = (0.35, 0.65, 0.86)  # intensities of cerebrospinal fluid, grey and white matter in the template


def simulate(dataset_dir: str | Path, labelled: int = 32, unlabelled: int = 1, seed: int = 0) -> Path:
    """Simulate a data set once, in the layout of the Medical Segmentation Decathlon.

    A case depends on the seed and its number alone. The folder appears whole or not at all.

    Args:
        dataset_dir: folder to be made; one that holds this very simulation is left as it is.
        labelled: number of cases with a label.
        unlabelled: number of cases without one, for inference.
        seed: of the whole data set.

    Returns:
        ``dataset_dir``, with ``dataset.json``, ``imagesTr``, ``labelsTr`` and ``imagesTs``; 96×112×96 voxels of 2 mm.

    Raises:
        FileExistsError: when the folder holds anything else.
        ImportError: when nilearn, whose package carries the template, is not installed.
    """
    target = Path(dataset_dir)
    simulation = {"version": VERSION, "labelled": labelled, "unlabelled": unlabelled, "seed": seed}
    if target.exists():
        _check_same(target, simulation)
        return target
    template = _load_template()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
        root = Path(folder) / "data"
        _write(root, template, simulation)
        try:
            root.rename(target)
        except OSError:  # another process was faster
            _check_same(target, simulation)
    return target


def _check_same(target: Path, simulation: dict[str, int]) -> None:
    description = target / "dataset.json"
    found = json.loads(description.read_text()).get("simulation") if description.is_file() else "no simulated data set"
    if found != simulation:
        raise FileExistsError(
            f"{target} holds {found}, expected {simulation}; delete that folder or give another dataset_dir"
        )


def _load_template() -> Tensor:
    """The template and its maps of grey and white matter, ``(3, *S)``, at 2 mm."""
    try:
        from nilearn import datasets  # noqa: PLC0415  an extra of this package
    except ImportError as error:
        raise ImportError(
            "nilearn is not installed, expected for the MNI152 template that its package carries; "
            "pip install 'xattnres-monai[demo]'"
        ) from error
    loaders = (datasets.load_mni152_template, datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    volumes = [load(resolution=int(SPACING)).get_fdata(dtype=np.float32) for load in loaders]
    return torch.as_tensor(ResizeWithPadOrCrop(SIZE)(np.stack(volumes)))


def _write(root: Path, template: Tensor, simulation: dict[str, int]) -> None:
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (root / folder).mkdir(parents=True)
    labelled, count = simulation["labelled"], simulation["labelled"] + simulation["unlabelled"]
    names = [f"mni152_{number:03d}.nii.gz" for number in range(count)]
    for number in trange(count, desc="simulating MNI152 acquisitions", disable=None):
        image, label = _acquire(template, np.random.SeedSequence([simulation["seed"], number]))
        _save(image, root / ("imagesTr" if number < labelled else "imagesTs") / names[number])
        if number < labelled:
            _save(label, root / "labelsTr" / names[number])
    description = {
        "name": "MNI152 simulated",
        "description": "Simulated acquisitions of the MNI152 T1 template: not patients, and evidence of nothing",
        "reference": "ICBM 152 nonlinear 2009a template and tissue maps, Fonov et al. 2011, as in the package nilearn",
        "licence": "terms of the ICBM 152 template: https://www.bic.mni.mcgill.ca/ServicesAtlases/ICBM152NLin2009",
        "tensorImageSize": "3D",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "grey matter", "2": "white matter"},
        "numTraining": labelled,
        "numTest": count - labelled,
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names[:labelled]],
        "test": [f"./imagesTs/{name}" for name in names[labelled:]],
        "simulation": simulation,
    }
    (root / "dataset.json").write_text(json.dumps(description, indent=2))


def _save(volume: NDArray[Any], path: Path) -> None:
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] = -SPACING * (np.array(SIZE) - 1) / 2  # origin in the middle of the volume
    nibabel.save(nibabel.Nifti1Image(volume, affine), path)


def _acquire(template: Tensor, seeds: np.random.SeedSequence) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """One simulated acquisition: intensities, and the class of every voxel."""
    anatomy_seed, acquisition_seed = (int(seed) for seed in seeds.generate_state(2))
    anatomy = Compose(
        [
            RandAffine(
                prob=1, rotate_range=[0.2] * 3, shear_range=[0.08] * 3, translate_range=[3] * 3, scale_range=[0.08] * 3,
                padding_mode="zeros",
            ),
            RandSmoothDeform(
                SIZE, rand_size=(7, 8, 7), pad=1, field_mode="trilinear", align_corners=True, prob=1, def_range=0.1,
                grid_mode="bilinear", grid_padding_mode="zeros",
            ),
        ]
    )  # fmt: skip
    acquisition = Compose(
        [
            RandTissueContrast(),
            RandBiasField(prob=1, degree=3, coeff_range=(-0.3, 0.3)),
            RandSimulateLowResolution(prob=1, zoom_range=(0.65, 1.0)),
            RandRicianNoise(prob=1, std=0.08, relative=False),
        ]
    )
    deformed = anatomy.set_random_state(seed=anatomy_seed)(template).as_tensor()
    brain = deformed[:1] > BRAIN
    image = acquisition.set_random_state(seed=acquisition_seed)(deformed[:1]) * brain
    grey, white = deformed[1:]
    label = torch.stack([1 - grey - white, grey, white]).argmax(0) * brain[0]
    return np.round(1000 * image[0].numpy()).astype(np.int16), label.numpy().astype(np.uint8)


class RandTissueContrast(Randomizable, Transform):
    """Draw intensities of fluid, grey and white matter anew; in two of five cases grey and white change their order."""

    def __call__(self, image: Tensor) -> Tensor:
        fluid, dark = self.R.uniform(0.15, 0.4), self.R.uniform(0.45, 0.6)
        bright = dark + self.R.uniform(0.2, 0.35)
        grey, white = (bright, dark) if self.R.uniform() < 0.4 else (dark, bright)
        levels = [0.0, *TEMPLATE_CONTRAST, 1.0]
        return torch.as_tensor(np.interp(image.numpy(), levels, [0.0, fluid, grey, white, white])).float()
