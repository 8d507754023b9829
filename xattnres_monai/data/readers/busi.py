"""BUSI, Breast Ultrasound Images (https://scholar.cu.edu.eg/?q=afahmy/pages/dataset, doi:10.1016/j.dib.2019.104863).

Dataset_BUSI_with_GT/
  benign/benign (1).png                                   437 images
  benign/benign (1)_mask.png, benign (1)_mask_1.png, …    one mask for each tumour
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
    """List the images with tumours.

    Args:
        dataset_dir: folder with ``benign`` and ``malignant``.
        folds: number of folds. The data set names no patients, so each image counts as a patient.
        seed: seed of the split into folds.
        with_normal: whether to list the images without a tumour as well.

    Returns:
        Dictionaries with ``image`` (path), ``label`` (paths of its masks), ``case_id``, ``patient_id`` and ``fold``,
        sorted by case id.

    Raises:
        FileNotFoundError: when the folder has another layout.
        ValueError: when masks are missing or do not fit their images. One message lists all faults.
    """
    root = Path(dataset_dir)
    cases = []
    for part in ("benign", "malignant", *(["normal"] if with_normal else [])):
        if not (root / part).is_dir():
            raise LAYOUT.error(root, f"it has no folder {part}")
        for image in (root / part).glob("*.png"):
            if re.fullmatch(rf"{part} \(\d+\)", image.stem):
                # the first mask has no number; it is listed even if it is missing, so that the error names it
                masks = [image.with_name(f"{image.stem}_mask.png")]
                masks += sorted((root / part).glob(f"{image.stem}_mask_*.png"))
                patient = {"case_id": image.stem, "patient_id": image.stem}
                cases.append({"image": str(image), "label": [str(mask) for mask in masks], **patient})
    if not cases:
        raise LAYOUT.error(root, "benign and malignant have no image")
    check_pairs(cases)
    return assign_folds(cases, folds, seed)
