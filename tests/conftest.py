from __future__ import annotations

import json
import os
from pathlib import Path

# one thread per test process: two workers with two threads each on two cores wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

import nibabel
import numpy as np
import pytest

# an oblique, anisotropic grid in mm: what scanners write and axis-aligned tests miss
AFFINE = np.array([[-0.9, 0.1, 0.2, 40.0], [0.1, 0.95, -0.3, -30.0], [0.15, 0.25, 1.4, 12.0], [0, 0, 0, 1]])


def write_case(folder: Path, name: str, seed: int, size: tuple[int, int, int] = (22, 26, 18)) -> None:
    """A noisy image of two nested ellipsoids and its label, as a decathlon case."""
    generator = np.random.default_rng(seed)
    centre = np.array(size) / 2 + generator.uniform(-1, 1, 3)
    distance = np.linalg.norm((np.indices(size).T - centre) / (np.array(size) / 2), axis=-1).T
    label = (distance < 0.75).astype(np.uint8) + (distance < 0.45)
    image = 100.0 * label + generator.normal(50, 8, size)
    nibabel.save(nibabel.Nifti1Image(image.astype(np.int16), AFFINE), folder / "imagesTr" / name)
    nibabel.save(nibabel.Nifti1Image(label, AFFINE), folder / "labelsTr" / name)


@pytest.fixture(scope="session")
def decathlon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task folder in the decathlon's layout: ten labelled cases and one without label."""
    root = tmp_path_factory.mktemp("with space") / "Task99_Ellipsoids"
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (root / folder).mkdir(parents=True)
    names = [f"ellipsoids_{number:03d}.nii.gz" for number in range(11)]
    for seed, name in enumerate(names):
        write_case(root, name, seed)
    (root / "imagesTr" / names[-1]).rename(root / "imagesTs" / names[-1])
    (root / "labelsTr" / names[-1]).unlink()
    training = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names[:-1]]
    labels = {"0": "background", "1": "outer", "2": "inner"}
    description = {"name": "Ellipsoids", "labels": labels, "training": training, "test": [f"./imagesTs/{names[-1]}"]}
    (root / "dataset.json").write_text(json.dumps(description))
    return root


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data sets, from ``XATTNRES_DATA_DIR`` or beside the clone; tests are skipped without it."""
    folder = Path(os.environ.get("XATTNRES_DATA_DIR", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}: set XATTNRES_DATA_DIR")
    return folder
