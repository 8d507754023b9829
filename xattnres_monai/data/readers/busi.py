"""BUSI, Breast Ultrasound Images (https://scholar.cu.edu.eg/?q=afahmy/pages/dataset, doi:10.1016/j.dib.2019.104863).

Dataset_BUSI_with_GT/
  benign/benign (1).png                                   437 images
  benign/benign (1)_mask.png, benign (1)_mask_1.png, …    one mask for every tumour
  malignant/…                                             210 images
  normal/…                                                133 images, whose masks are empty
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from xattnres_monai.data.folds import assign_folds
from xattnres_monai.data.layout import Layout, check_pairs

__all__ = ["datalist"]

LAYOUT = Layout(
    name="BUSI",
    expected="'benign/benign (1).png', 'benign/benign (1)_mask.png', 'benign/benign (1)_mask_1.png', malignant/…",
    source="https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
)


def datalist(dataset_dir: str | Path, folds: int = 5, seed: int = 0, with_normal: bool = False) -> list[dict[str, Any]]:
    """The images with tumours.

    Args:
        dataset_dir: folder with ``benign`` and ``malignant``.
        folds: number of folds; the data set names no patients, so an image is a patient.
        seed: of the split into folds.
        with_normal: whether to take the images without a tumour as well.

    Returns:
        Dictionaries with ``image`` (path), ``label`` (paths of its masks), ``case_id``, ``patient_id`` and ``fold``,
        by case id.

    Raises:
        FileNotFoundError: when the folder has another layout.
        ValueError: for images whose masks are missing or do not fit, all at once.
    """
    root = Path(dataset_dir)
    cases = []
    for part in ("benign", "malignant", *(["normal"] if with_normal else [])):
        if not (root / part).is_dir():
            raise LAYOUT.error(root, f"it has no folder {part}")
        for image in (root / part).glob("*.png"):
            if re.fullmatch(rf"{part} \(\d+\)", image.stem):
                # the first mask has no number; it is named even when it is missing, for the error
                masks = [image.with_name(f"{image.stem}_mask.png")]
                masks += sorted((root / part).glob(f"{image.stem}_mask_*.png"))
                patient = {"case_id": image.stem, "patient_id": image.stem}
                cases.append({"image": str(image), "label": [str(mask) for mask in masks], **patient})
    if not cases:
        raise LAYOUT.error(root, "benign and malignant have no image")
    check_pairs(cases)
    return assign_folds(cases, folds, seed)
