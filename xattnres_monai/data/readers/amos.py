"""AMOS22, multi-modality abdominal organs (https://amos22.grand-challenge.org, arXiv 2206.08023): its folder layout.

amos22/
  imagesTr/amos_0001.nii.gz   labelsTr/amos_0001.nii.gz    200 CT and 40 MRI volumes, 15 organs
  imagesVa/amos_0008.nii.gz   labelsVa/amos_0008.nii.gz    100 CT and 20 MRI volumes
  imagesTs/amos_0003.nii.gz                                120 volumes without labels

Numbers below 500 are CT, the others MRI.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xattnres_monai.data.folds import assign_folds, official_fold
from xattnres_monai.data.layout import Layout, check_pairs, stem

__all__ = ["datalist"]

LAYOUT = Layout(
    name="AMOS22",
    expected="imagesTr/amos_0001.nii.gz, labelsTr/amos_0001.nii.gz, imagesVa/…, labelsVa/…",
    source="https://zenodo.org/records/7262581",
)
NAMES = {"CT": "amos_0[0-4][0-9][0-9].nii.gz", "MRI": "amos_0[5-9][0-9][0-9].nii.gz"}


def datalist(dataset_dir: str | Path, modality: str, folds: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """List the labelled volumes of one modality.

    Args:
        dataset_dir: folder with ``imagesTr``.
        modality: ``CT`` or ``MRI``.
        folds: number of folds over all labelled volumes. By default there is one, whose validation cases are those of
            ``imagesVa``. If there is no folder ``labelsVa``, there are five.
        seed: seed of the split into folds.

    Returns:
        Dictionaries with ``image``, ``label`` (paths), ``case_id``, ``patient_id`` and ``fold``, sorted by case id.

    Raises:
        FileNotFoundError: when the folder has another layout.
        ValueError: when the modality is unknown, or when labels are missing or do not fit their volumes. One message
            lists all faults.
    """
    root = Path(dataset_dir)
    if modality not in NAMES:
        raise ValueError(f"got modality={modality!r}, expected one of {', '.join(NAMES)}")
    if not (root / "imagesTr").is_dir():
        raise LAYOUT.error(root, "it has no folder imagesTr")
    validation = (root / "labelsVa").is_dir()
    cases = []
    for part in ("Tr", "Va") if validation else ("Tr",):
        for image in (root / f"images{part}").glob(NAMES[modality]):
            label = root / f"labels{part}" / image.name
            cases.append({"image": str(image), "label": str(label), "case_id": stem(image), "patient_id": stem(image)})
    if not cases:
        raise LAYOUT.error(root, f"it has no {modality} volume")
    check_pairs(cases)
    if folds is None and validation:
        return official_fold(cases, lambda case: Path(case["image"]).parent.name == "imagesVa")
    return assign_folds(cases, 5 if folds is None else folds, seed)
