"""Every data set's published layout is read, and what is wrong with a folder is said."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from monai.transforms import LoadImage
from PIL import Image

from tests.data.layouts import write_acdc, write_amos, write_btcv, write_busi, write_msd
from xattnres_monai.data.layout import find_images, read_grid
from xattnres_monai.data.readers import acdc, amos, btcv, busi, msd


@dataclass(frozen=True)
class Dataset:
    """How to write and to read it, its cases by fold, and words of the errors that another and an empty folder get."""

    write: Callable[[Path], Path]
    read: Callable[..., list[dict[str, Any]]]
    validating: set[str] | None
    training: int
    differs: str
    source: str
    empty: str


def read_ct(root: Path, **options: int) -> list[dict[str, Any]]:
    return amos.datalist(root, "CT", **options)


def read_mri(root: Path, **options: int) -> list[dict[str, Any]]:
    return amos.datalist(root, "MRI", **options)


DATASETS = {
    "acdc": Dataset(
        write_acdc,
        acdc.datalist,
        {"patient005_frame01", "patient005_frame09"},
        8,
        "no folder training",
        "creatis",
        "training has no patient with a frame",
    ),
    "amos ct": Dataset(write_amos, read_ct, {"amos_0008"}, 3, "imagesTr", "zenodo", "no CT volume"),
    "amos mri": Dataset(write_amos, read_mri, {"amos_0517"}, 3, "imagesTr", "zenodo", "no MRI volume"),
    "btcv": Dataset(
        write_btcv,
        btcv.datalist,
        {"img0035", "img0040"},
        4,
        "neither Training/img",
        "synapse",
        "no file img0001.nii.gz or the like",
    ),
    "busi": Dataset(
        write_busi,
        busi.datalist,
        None,
        4,
        "no folder benign",
        "scholar.cu.edu.eg",
        "benign and malignant have no image",
    ),
    "msd": Dataset(write_msd, msd.datalist, None, 8, "no dataset.json", "medicaldecathlon", "nii.gz is missing"),
}


@pytest.fixture(params=DATASETS.values(), ids=DATASETS.keys())
def dataset(request) -> Dataset:
    return request.param


@pytest.fixture
def root(dataset, tmp_path) -> Path:
    return dataset.write(tmp_path / "data of mine")


def test_reads_the_published_layout_with_its_own_split(dataset, root):
    cases = dataset.read(root)
    assert [case["case_id"] for case in cases] == sorted({case["case_id"] for case in cases})
    validating = {case["case_id"] for case in cases if case["fold"] == 0}
    assert dataset.validating in (None, validating)
    assert len(cases) - len(validating) == dataset.training + (
        dataset.validating is None and "busi" in str(dataset.read)
    )
    for case in cases:
        labels = case["label"] if isinstance(case["label"], list) else [case["label"]]
        assert all(Path(path).is_file() for path in (case["image"], *labels))


def test_folds_are_by_patient_and_by_seed(dataset, root):
    cases = dataset.read(root, folds=2, seed=3)
    assert {case["fold"] for case in cases} == {0, 1}
    folds = {(case["patient_id"], case["fold"]) for case in cases}
    assert len(folds) == len({case["patient_id"] for case in cases})
    assert cases == dataset.read(root, folds=2, seed=3)
    assert any(dataset.read(root, folds=2, seed=seed) != cases for seed in range(4, 8))


def test_another_folder_gets_the_layout_and_the_source(dataset, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        dataset.read(tmp_path)
    message = str(caught.value)
    assert dataset.differs in message and dataset.source in message and "; expected " in message
    assert str(tmp_path) in message and "dataset_dir" in message and "\n" not in message


def test_a_layout_without_files_is_no_data_set(dataset, root):
    for path in [*root.rglob("*.nii.gz"), *root.rglob("*.png")]:
        path.unlink()
    with pytest.raises((FileNotFoundError, ValueError), match=dataset.empty):
        dataset.read(root)


def test_all_broken_pairs_are_named_at_once(dataset, root):
    cases = dataset.read(root)[:4]
    labels = [Path(case["label"][0] if isinstance(case["label"], list) else case["label"]) for case in cases]
    labels[0].unlink()
    labels[1].write_bytes(b"not an image")
    if labels[2].suffix == ".png":
        Image.new("L", (9, 8)).save(labels[2])
        expected = 3
    else:
        stored = nibabel.load(labels[2])
        nibabel.save(nibabel.Nifti1Image(np.asarray(stored.dataobj)[:-1], stored.affine), labels[2])
        moved = nibabel.load(labels[3])
        shift = np.eye(4)
        shift[0, 3] = 5
        nibabel.save(nibabel.Nifti1Image(np.asarray(moved.dataobj), shift @ moved.affine), labels[3])
        expected = 4
    with pytest.raises(ValueError, match=rf"^{expected} faults in ") as caught:
        dataset.read(root)
    message = str(caught.value)
    assert "\n" not in message
    for label, words in zip(labels, ("is missing", "cannot be read", "has shape", "lies elsewhere")[:expected]):
        assert f"{label} {words}" in message


def test_acdc_without_a_validation_folder_has_five_folds(tmp_path):
    root = write_acdc(tmp_path, patients=7)
    (root / "validation").rename(root / "other")
    assert {case["fold"] for case in acdc.datalist(root)} == set(range(5))


@pytest.mark.parametrize("folds", [None, 2])
@pytest.mark.parametrize(
    "write, read, copied",
    [
        (write_acdc, acdc.datalist, ("training/patient001", "validation/patient001")),
        (write_amos, read_ct, ("imagesTr/amos_0001.nii.gz", "imagesVa/amos_0001.nii.gz")),
    ],
    ids=["acdc", "amos"],
)
def test_copies_in_both_parts_of_the_split_are_refused(write, read, copied, folds, tmp_path):
    root = write(tmp_path)
    for name in (copied, tuple(part.replace("images", "labels") for part in copied)):
        source, target = (root / part for part in name)
        shutil.copytree(source, target, dirs_exist_ok=True) if source.is_dir() else shutil.copy(source, target)
    with pytest.raises(ValueError, match=r"^got cases more than once: (patient001_frame01, .*|amos_0001), expected"):
        read(root, folds=folds)


def test_busi_takes_normal_images_when_told_to(tmp_path):
    root = write_busi(tmp_path)
    assert len(busi.datalist(root)) == 6
    cases = busi.datalist(root, with_normal=True)
    assert len(cases) == 9
    assert [len(case["label"]) for case in cases if case["case_id"].startswith("benign")] == [1, 2, 1]


def test_btcv_in_the_folders_of_the_tutorials(tmp_path):
    published = write_btcv(tmp_path / "RawData")
    (published / "Training" / "img").rename(published / "imagesTr")
    (published / "Training" / "label").rename(published / "labelsTr")
    assert len(btcv.datalist(published)) == 6


def test_amos_of_an_unknown_modality(tmp_path):
    with pytest.raises(ValueError, match="got modality='PET', expected one of CT, MRI"):
        amos.datalist(write_amos(tmp_path), "PET")


def test_images_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file matches .*imagesTs/\*.png, expected images; set images to"):
        find_images(str(tmp_path), "imagesTs", "*.png")


def test_images_in_a_folder_whose_name_looks_like_a_pattern(tmp_path):
    path = tmp_path / "scans [1]" / "imagesTs" / "a.png"
    path.parent.mkdir(parents=True)
    path.touch()
    assert find_images(tmp_path / "scans [1]", "imagesTs", "*.png") == [str(path)]


def test_real_acdc(real_data):
    cases = acdc.datalist(real_data / "ACDC")
    assert len(cases) == 160 and sum(case["fold"] == 0 for case in cases) == 20


def test_hidden_files_are_no_images(tmp_path):
    for name in ("a.nii.gz", "._a.nii.gz"):
        (tmp_path / name).touch()
    assert find_images(tmp_path, "*.nii.gz") == [str(tmp_path / "a.nii.gz")]


def test_voxel_sizes_are_those_that_monai_reads(tmp_path):
    """Of a file whose sform says 1 mm and its qform and header what is true, as some of ACDC are said to be."""
    image = nibabel.Nifti1Image(np.zeros((6, 5, 4), np.int16), np.diag([1.3, 1.3, 10, 1]))
    image.header.set_sform(np.eye(4), code=2)
    path = tmp_path / "a.nii.gz"
    image.to_filename(path)
    _, affine = read_grid(path)
    expected = LoadImage()(path).affine
    np.testing.assert_allclose(affine, expected)
    np.testing.assert_allclose(np.abs(np.diag(affine)), [1.3, 1.3, 10, 1], rtol=1e-5)
