"""Folders of every data set's layout with contents that nobody chose: whom a case validates, and for whom it trains."""

from __future__ import annotations

import gzip
import io
import json
import random
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.properties.strategies import SEEDS, fewer
from xattnres_monai.data.folds import assign_folds, training_cases, validation_cases
from xattnres_monai.data.readers import acdc, amos, btcv, busi, msd

Cases = list[dict[str, Any]]


def nifti() -> bytes:
    return gzip.compress(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)).to_bytes())


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (2, 2)).save(stream, format="png")
    return stream.getvalue()


CONTENT = {".gz": nifti(), ".png": png(), ".cfg": b"ED: 1\n"}


@dataclass(frozen=True)
class Folder:
    """Files of a data set, the labelled images among them by case id, and those that validate in its own split."""

    files: list[str]
    cases: dict[str, str]
    validating: set[str] | None
    read: Callable[..., Cases]
    texts: dict[str, str] = field(default_factory=dict)

    def write(self, root: Path) -> Path:
        for name in self.files:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(CONTENT[path.suffix])
        for name, text in self.texts.items():
            (root / name).write_text(text)
        return root


def numbers(largest: int, least: int = 2) -> st.SearchStrategy[list[int]]:
    """Of cases, in the order in which they were copied."""
    return st.lists(st.integers(1, largest), min_size=least, max_size=12, unique=True)


def stems(names: Iterable[str]) -> dict[str, str]:
    return {Path(name).name.removesuffix(".gz").rpartition(".")[0]: name for name in names}


@st.composite
def acdc_folders(draw: st.DrawFn) -> Folder:
    patients = draw(numbers(150))
    parts = [draw(st.sampled_from(["training", "training", "validation", "testing"])) for _ in patients]
    parts[0] = "training"
    files, images = [], []
    for part, number in zip(parts, patients):
        patient = f"{part}/patient{number:03d}"
        files += [f"{patient}/Info.cfg", f"{patient}/patient{number:03d}_4d.nii.gz"]
        for frame in draw(st.lists(st.integers(1, 30), min_size=1, max_size=2, unique=True)):
            stem = f"{patient}/patient{number:03d}_frame{frame:02d}"
            files += [f"{stem}.nii.gz", f"{stem}_gt.nii.gz"]
            images += [f"{stem}.nii.gz"] if part != "testing" else []
    cases = stems(images)
    own = {case for case, name in cases.items() if "validation" in name} if "validation" in parts else None
    return Folder(files, cases, own, acdc.datalist)


@st.composite
def amos_folders(draw: st.DrawFn) -> Folder:
    modality = draw(st.sampled_from(["CT", "MRI"]))
    volumes = draw(numbers(600))
    volumes[:2] = [7, 8] if modality == "CT" else [507, 508]
    volumes = list(dict.fromkeys(volumes))
    parts = [draw(st.sampled_from(["Tr", "Tr", "Va", "Ts"])) for _ in volumes]
    parts[0] = "Tr"
    names = [f"images{part}/amos_{number:04d}.nii.gz" for part, number in zip(parts, volumes)]
    labels = [name.replace("images", "labels") for name in names if "Ts" not in name]
    labelled = [
        name
        for name, part, number in zip(names, parts, volumes)
        if part != "Ts" and (number < 500) == (modality == "CT")
    ]
    cases = stems(labelled)
    own = {case for case, name in cases.items() if "Va" in name} if "Va" in parts else None
    return Folder([*names, *labels], cases, own, lambda root, **given: amos.datalist(root, modality, **given))


@st.composite
def btcv_folders(draw: st.DrawFn) -> Folder:
    volumes = draw(numbers(60))
    images, labels, others = draw(
        st.sampled_from([("Training/img", "Training/label", "Testing/img"), ("imagesTr", "labelsTr", "imagesTs")])
    )
    names = [f"{images}/img{number:04d}.nii.gz" for number in volumes]
    files = [*names, *(f"{labels}/label{number:04d}.nii.gz" for number in volumes), f"{others}/img0061.nii.gz"]
    own = {f"img{number:04d}" for number in volumes if 35 <= number <= 40}
    return Folder(files, stems(names), own, btcv.datalist)


@st.composite
def busi_folders(draw: st.DrawFn) -> Folder:
    files, images = [], []
    for part in ("benign", "malignant", "normal"):
        for number in draw(numbers(40)):
            image = f"{part}/{part} ({number})"
            masks = draw(st.integers(1, 3))
            files += [f"{image}.png", f"{image}_mask.png", *(f"{image}_mask_{k}.png" for k in range(1, masks))]
            images += [f"{image}.png"] if part != "normal" else []
    return Folder(files, stems(images), None, busi.datalist)


@st.composite
def msd_folders(draw: st.DrawFn) -> Folder:
    names = [f"case_{number:03d}.nii.gz" for number in draw(numbers(400))]
    files = [f"{part}/{name}" for part in ("imagesTr", "labelsTr") for name in names]
    entries = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names]
    description = {"dataset.json": json.dumps({"training": entries, "test": []})}
    return Folder(files, stems(f"imagesTr/{name}" for name in names), None, msd.datalist, description)


LAYOUTS = {
    "acdc": acdc_folders(),
    "amos": amos_folders(),
    "btcv": btcv_folders(),
    "busi": busi_folders(),
    "msd": msd_folders(),
}


def assert_no_leak(cases: Cases) -> set[str]:
    """No patient both trains and validates; returns the cases that validate, each in one fold."""
    validated: list[str] = []
    for fold in sorted({case["fold"] for case in cases} - {-1}):
        training, validation = training_cases(cases, fold), validation_cases(cases, fold)
        assert not {case["patient_id"] for case in training} & {case["patient_id"] for case in validation}
        assert len(training) + len(validation) == len(cases)
        validated += [case["case_id"] for case in validation]
    assert len(set(validated)) == len(validated)
    return set(validated)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@fewer(3)
@given(data=st.data(), seed=SEEDS)
def test_every_case_validates_once_and_no_patient_is_on_both_sides(layout, data, seed):
    folder = data.draw(layout)
    folds = data.draw(st.none() | st.integers(0, 6))
    with tempfile.TemporaryDirectory() as name:
        root = folder.write(Path(name))
        patients = len({case.partition("_frame")[0] for case in folder.cases})
        if folds is None and folder.validating is None:
            folds = 5
        if folds is not None and not 2 <= folds <= patients:
            with pytest.raises(ValueError, match=rf"^got folds={folds}, expected 2 … {patients}, "):
                folder.read(root, folds=folds, seed=seed)
            return
        cases = folder.read(root, folds=folds, seed=seed)
        assert {case["case_id"]: case["image"] for case in cases} == {
            case: str(root / image) for case, image in folder.cases.items()
        }
        assert len(cases) == len(folder.cases)
        validated = assert_no_leak(cases)
        if folds is None:
            assert validated == folder.validating
        else:
            assert validated == set(folder.cases) and {case["fold"] for case in cases} == set(range(folds))
        assert folder.read(root, folds=folds, seed=seed) == cases
        assert read_in_another_order(folder, root, folds, seed) == cases


def read_in_another_order(folder: Folder, root: Path, folds: int | None, seed: int) -> Cases:
    """As on a file system that lists its files otherwise, which is the one thing that cannot be had by writing them."""
    listed = Path.glob

    def shuffled(self: Path, pattern: str) -> list[Path]:
        found = sorted(listed(self, pattern))
        return random.Random(seed).sample(found, len(found))

    with patch.object(Path, "glob", shuffled):
        return folder.read(root, folds=folds, seed=seed)


@given(
    patients=st.dictionaries(st.text(min_size=1), st.integers(1, 4), min_size=2, max_size=30),
    data=st.data(),
    seed=SEEDS,
)
def test_folds_of_patients_of_any_name_and_number_of_cases(patients, data, seed):
    cases = [
        {"case_id": f"{patient}_{number}", "patient_id": patient}
        for patient, count in patients.items()
        for number in range(count)
    ]
    folds = data.draw(st.integers(2, len(patients)))
    assigned = assign_folds(data.draw(st.permutations(cases)), folds, seed)
    assert assigned == assign_folds(cases, folds, seed)
    assert assert_no_leak(assigned) == {case["case_id"] for case in cases}
    sizes = [len({case["patient_id"] for case in validation_cases(assigned, fold)}) for fold in range(folds)]
    assert max(sizes) - min(sizes) <= 1
