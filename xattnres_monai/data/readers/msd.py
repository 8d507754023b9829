"""Medical Segmentation Decathlon (http://medicaldecathlon.com): its folder layout and its download.

TaskXX_Name/
  dataset.json                 names of images, labels and classes
  imagesTr/  labelsTr/         cases with labels
  imagesTs/                    cases without labels
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

from monai.apps import DecathlonDataset, download_and_extract
from monai.data import load_decathlon_datalist

from xattnres_monai.data.folds import assign_folds
from xattnres_monai.data.layout import Layout, check_pairs, stem

__all__ = ["datalist", "download"]

LAYOUT = Layout(
    name="Medical Segmentation Decathlon",
    expected="dataset.json, imagesTr, labelsTr",
    source="http://medicaldecathlon.com",
)
logger = logging.getLogger(__name__)


def datalist(dataset_dir: str | Path, folds: int = 5, seed: int = 0) -> list[dict[str, Any]]:
    """List the labelled cases of a task folder.

    Args:
        dataset_dir: folder with ``dataset.json``.
        folds: number of folds. The decathlon names no patients, so each case counts as a patient.
        seed: seed of the split into folds.

    Returns:
        Dictionaries with ``image``, ``label`` (paths), ``case_id``, ``patient_id`` and ``fold``, sorted by case id.

    Raises:
        FileNotFoundError: when the folder has no ``dataset.json``.
        ValueError: when files are missing, or when labels do not fit their images. One message lists all faults.
    """
    root = Path(dataset_dir)
    description = root / "dataset.json"
    if not description.is_file():
        raise LAYOUT.error(root, "it has no dataset.json")
    cases = []
    for entry in load_decathlon_datalist(description, data_list_key="training"):
        cases.append({**entry, "case_id": stem(entry["image"]), "patient_id": stem(entry["image"])})
    check_pairs(cases)
    return assign_folds(cases, folds, seed)


def download(dataset_dir: str | Path, task: str) -> Path:
    """Download a task with a progress bar, check its MD5 sum and unpack it, unless ``dataset_dir`` exists.

    Args:
        dataset_dir: folder to create for the task.
        task: name of the task, as in the archive's name, e.g. ``Task04_Hippocampus``.

    Returns:
        ``dataset_dir``.

    Raises:
        RuntimeError: when the download fails or its MD5 sum is wrong. No part of the download remains.
    """
    target = Path(dataset_dir)
    if target.exists():
        return target
    url = DecathlonDataset.resource[task]
    logger.info(f"{target} does not exist: downloading {task} from {url}")
    target.parent.mkdir(parents=True, exist_ok=True)
    # unpack beside the target, then rename, so that a broken download is never taken for the data set
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{task}-") as folder:
        try:
            download_and_extract(url, output_dir=folder, hash_val=DecathlonDataset.md5[task], hash_type="md5")
        except Exception as error:
            raise RuntimeError(
                f"{target} does not exist and {task} could not be downloaded from {url} ({error}); "
                "download it by other means, unpack it and give its folder as dataset_dir"
            ) from error
        try:
            (Path(folder) / task).rename(target)
        except OSError:  # another process may have downloaded it in the meantime
            if not target.exists():
                raise
    return target
