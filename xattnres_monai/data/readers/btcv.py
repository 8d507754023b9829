"""BTCV, Multi-Atlas Labeling Beyond the Cranial Vault, abdomen (https://www.synapse.org/Synapse:syn3193805).

RawData/
  Training/img/img0001.nii.gz       30 CT volumes: 0001 … 0010 and 0021 … 0040
  Training/label/label0001.nii.gz   13 organs
  Testing/img/img0061.nii.gz        20 CT volumes without labels

MONAI's tutorials name these folders ``imagesTr``, ``labelsTr`` and ``imagesTs``. The reader takes these names as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xattnres_monai.data.folds import assign_folds, official_fold
from xattnres_monai.data.layout import Layout, check_pairs, stem

__all__ = ["datalist"]

LAYOUT = Layout(
    name="BTCV",
    expected="Training/img/img0001.nii.gz and Training/label/label0001.nii.gz, or imagesTr/img0001.nii.gz and "
    "labelsTr/label0001.nii.gz, …",
    source="https://www.synapse.org/Synapse:syn3193805 (Abdomen/RawData.zip, after registration)",
)
FOLDERS = (("Training/img", "Training/label"), ("imagesTr", "labelsTr"))
VALIDATION = {f"img00{number}" for number in range(35, 41)}


def datalist(dataset_dir: str | Path, folds: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """List the labelled volumes.

    Args:
        dataset_dir: folder with ``Training`` or ``imagesTr``.
        folds: number of folds. By default there is one, with the split of SwinUNETR's authors: the validation cases are
            img0035 … img0040, and the other 24 are for training.
        seed: seed of the split into folds.

    Returns:
        Dictionaries with ``image``, ``label`` (paths), ``case_id``, ``patient_id`` and ``fold``, sorted by case id.

    Raises:
        FileNotFoundError: when the folder has another layout.
        ValueError: when labels are missing or do not fit their volumes. One message lists all faults.
    """
    root = Path(dataset_dir)
    present = [(images, labels) for images, labels in FOLDERS if (root / images).is_dir()]
    if not present:
        raise LAYOUT.error(root, "it has neither Training/img nor imagesTr")
    images, labels = present[0]
    cases = []
    for image in (root / images).glob("img[0-9][0-9][0-9][0-9].nii.gz"):
        label = root / labels / image.name.replace("img", "label")
        cases.append({"image": str(image), "label": str(label), "case_id": stem(image), "patient_id": stem(image)})
    if not cases:
        raise LAYOUT.error(root, f"{images} has no file img0001.nii.gz or the like")
    check_pairs(cases)
    if folds is None:
        return official_fold(cases, lambda case: case["case_id"] in VALIDATION)
    return assign_folds(cases, folds, seed)
