"""The command ``datalist``: it lists the cases of a data set as a table and as a file that MONAI reads."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from xattnres_monai.data.layout import read_grid
from xattnres_monai.data.readers import acdc, amos, btcv, busi, msd
from xattnres_monai.utils.atomic_write import replace_text
from xattnres_monai.utils.errors import one_line
from xattnres_monai.utils.tables import columns

__all__ = ["datalist"]

DATASETS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "acdc": acdc.datalist,
    "amos": amos.datalist,
    "btcv": btcv.datalist,
    "busi": busi.datalist,
    "msd": msd.datalist,
}


def datalist(dataset: str, root: str, output: str = "datalist.json", **options: Any) -> str:
    """Read a data set in its published folder layout, check it, and write its cases and folds as JSON.

    The check reads the header of every image and the voxels of every label.

    Args:
        dataset: acdc, amos, btcv, busi or msd.
        root: folder of the data set.
        output: file to write, in the format of MONAI's ``load_decathlon_datalist``: ``training`` holds dictionaries
            with ``image`` and ``label`` (paths relative to ``root``), ``case_id``, ``patient_id`` and ``fold``.
        **options: options of the data set: ``--folds``, ``--seed``, ``--modality`` (amos), ``--with_normal`` (busi).

    Returns:
        A table of the cases with the fold, the shape, the spacing in mm and the labels found.

    Raises:
        ValueError: when the data set or an option is unknown, when files are missing, broken or do not fit together, or
            when labels are empty. One message lists all faults of the images and labels.
        FileNotFoundError: when the folder has another layout.
    """
    if dataset not in DATASETS:
        raise ValueError(f"got the data set {dataset!r}, expected one of {', '.join(DATASETS)}")
    try:
        cases = DATASETS[dataset](root, **options)
    except TypeError as error:
        raise ValueError(f"{error}; see python -m xattnres_monai datalist --help") from error
    rows = [("case", "patient", "fold", "shape", "spacing (mm)", "labels")]
    faults = []
    for case in tqdm(cases, desc="reading labels", unit="case", disable=None):
        try:
            values = _values(_paths(case["label"]))
        except ValueError as error:
            faults.append(str(error))
            continue
        if values == [0] and not options.get("with_normal"):
            faults.append(f"the label of {case['case_id']} has no voxel above 0")
        shape, affine = read_grid(case["image"])
        sizes = voxel_sizes(affine)[: len(shape)]
        grid = "×".join(map(str, shape)), "×".join(f"{size:.3g}" for size in sizes)
        rows.append(
            (case["case_id"], case["patient_id"], str(case["fold"]), *grid, " ".join(f"{value:g}" for value in values))
        )
    if faults:
        raise ValueError(f"{len(faults)} faults: {'; '.join(faults)}; repair the labels or take the cases out")
    _write(cases, Path(root), Path(output))
    patients = len({case["patient_id"] for case in cases})
    return "\n".join(
        [
            columns(rows),
            f"{len(cases)} cases of {patients} patients, written to {output}",
        ]
    )


def _paths(label: str | list[str]) -> list[str]:
    return label if isinstance(label, list) else [label]


def _values(labels: list[str]) -> list[float]:
    found = np.unique(np.concatenate([_values_of(path) for path in labels]))
    fractions = found[found != np.round(found)]
    if fractions.size:
        shown = ", ".join(f"{value:g}" for value in fractions[:5])
        raise ValueError(f"{' and '.join(labels)} has the values {shown}, expected whole numbers")
    return found.tolist()


def _values_of(path: str) -> NDArray[np.float64]:
    try:
        if path.endswith(".png"):
            with Image.open(path) as picture:
                return np.unique(np.asarray(picture.convert("L"))).astype(float)
        return np.unique(np.asarray(nibabel.load(path).dataobj)).astype(float)
    except Exception as error:  # readers raise many kinds of error on broken files
        raise ValueError(f"{path} cannot be read ({one_line(error)})") from error


def _write(cases: list[dict[str, Any]], root: Path, output: Path) -> None:
    def relative(label: str | list[str]) -> str | list[str]:
        return (
            os.path.relpath(label, root) if isinstance(label, str) else [os.path.relpath(path, root) for path in label]
        )

    training = [{**case, "image": relative(case["image"]), "label": relative(case["label"])} for case in cases]
    replace_text(output, json.dumps({"training": training}, indent=2) + "\n")
