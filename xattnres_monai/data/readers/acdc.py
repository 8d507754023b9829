"""ACDC, Automated Cardiac Diagnosis Challenge (https://www.creatis.insa-lyon.fr/Challenge/acdc): its folder layout.

database/
  training/patient001/            Info.cfg, patient001_4d.nii.gz
    patient001_frame01.nii.gz     end-diastole, and another frame for end-systole
    patient001_frame01_gt.nii.gz  0 background, 1 right ventricle, 2 myocardium, 3 left ventricle
  testing/patient101/             the same for 50 more patients

Some copies have a folder ``validation`` as well. Their split of 70 to 10 patients is that of papers on 2D networks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xattnres_monai.data.folds import assign_folds, official_fold
from xattnres_monai.data.layout import Layout, check_pairs, stem

__all__ = ["datalist"]

LAYOUT = Layout(
    name="ACDC",
    expected="training/patient001/patient001_frame01.nii.gz, training/patient001/patient001_frame01_gt.nii.gz, …",
    source="https://humanheart-project.creatis.insa-lyon.fr/database",
)


def datalist(
    dataset_dir: str | Path, folds: int | None = None, seed: int = 0, testing: bool = False
) -> list[dict[str, Any]]:
    """List the labelled end-diastolic and end-systolic frames of all patients outside ``testing``.

    Args:
        dataset_dir: folder with ``training``.
        folds: number of folds over all patients. By default, the folder ``validation`` is fold 0 and there is no other.
            Without such a folder there are five folds.
        seed: seed of the split into folds.
        testing: whether to list the patients of ``testing`` instead, for evaluation. They are all in fold 0.

    Returns:
        Dictionaries with ``image``, ``label`` (paths), ``case_id``, ``patient_id`` and ``fold``, sorted by case id.

    Raises:
        FileNotFoundError: when the folder has another layout.
        ValueError: when labels are missing or do not fit their frames. One message lists all faults.
    """
    root = Path(dataset_dir)
    parts = ("testing",) if testing else ("training", "validation")
    if not (root / parts[0]).is_dir():
        raise LAYOUT.error(root, f"it has no folder {parts[0]}")
    cases = []
    for part in parts:
        for image in root.glob(f"{part}/patient*/patient*_frame[0-9][0-9].nii.gz"):
            label = image.with_name(image.name.replace(".nii.gz", "_gt.nii.gz"))
            patient = {"case_id": stem(image), "patient_id": image.parent.name}
            cases.append({"image": str(image), "label": str(label), **patient})
    if not cases:
        raise LAYOUT.error(root, f"{parts[0]} has no patient with a frame")
    check_pairs(cases)
    if testing:
        return official_fold(cases, lambda case: True)
    if folds is None and (root / "validation").is_dir():
        return official_fold(cases, lambda case: Path(case["image"]).parts[-3] == "validation")
    return assign_folds(cases, 5 if folds is None else folds, seed)
