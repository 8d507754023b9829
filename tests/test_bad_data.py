"""Broken, odd and merely unusual data through training, evaluation, inference and ``datalist``: what they say."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from tests.bundle_runs import run, train, workflow
from tests.datasets.layouts import write_acdc, write_busi, write_msd
from xattnres_monai.datasets.overview import datalist
from xattnres_monai.errors import one_line

NAME = "msd_hippocampus_mri_segmentation"
CASE = "ellipsoids_001"
Change = Callable[[Path], None]


def voxels(change: Callable[[np.ndarray], np.ndarray], dtype: type = np.float32) -> Change:
    """Another array on the same grid."""

    def write(path: Path) -> None:
        stored = nibabel.load(path)
        array = change(np.asarray(stored.dataobj).astype(dtype))
        nibabel.save(nibabel.Nifti1Image(array, stored.affine), path)

    return write


def at(value: float, dtype: type = np.float32) -> Change:
    """One voxel of another value."""

    def change(array: np.ndarray) -> np.ndarray:
        array[3, 4, 5] = value
        return array

    return voxels(change, dtype)


def spacing(size: float, axis: int = 0) -> Change:
    def write(path: Path) -> None:
        stored = nibabel.load(path)
        affine = np.diag([1.0, 1.0, 1.0, 1.0])
        affine[axis, axis] = size
        nibabel.save(nibabel.Nifti1Image(np.asarray(stored.dataobj), affine), path)

    return write


def header(**fields: object) -> Change:
    """Fields of the header, as bytes that no library would write."""

    def write(path: Path) -> None:
        raw = bytearray(gzip.decompress(path.read_bytes()))
        found = nibabel.Nifti1Header(bytes(raw[:348]), check=False)
        for name, value in fields.items():
            found[name] = value
        path.write_bytes(gzip.compress(found.binaryblock + bytes(raw[348:])))

    return write


def picture(array: np.ndarray) -> Change:
    """A PNG under the name of a NIfTI."""
    return lambda path: Image.fromarray(array).save(path, format="PNG")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def moved(path: Path) -> None:
    stored = nibabel.load(path)
    shift = np.eye(4)
    shift[:3, 3] = 9
    nibabel.save(nibabel.Nifti1Image(np.asarray(stored.dataobj), shift @ stored.affine), path)


@dataclass(frozen=True)
class Fault:
    """What is done to a file, words that tell of it, and whether ``datalist`` sees it: it reads no voxels of images."""

    change: Change
    words: str
    listed: bool = False


IMAGES = {
    "no image": Fault(lambda path: path.write_text("patient,age\n"), "cannot be read", True),
    "zero bytes": Fault(lambda path: path.write_bytes(b""), "cannot be read", True),
    "absent": Fault(Path.unlink, "is missing", True),
    "a folder": Fault(folder, "is missing", True),
    "a symlink loop": Fault(loop, "is missing", True),
    "truncated gzip": Fault(lambda path: path.write_bytes(path.read_bytes()[:-2000]), "cannot be read"),
    "a PNG": Fault(picture(np.zeros((9, 9), np.uint8)), "cannot be read", True),
    "4D series": Fault(voxels(lambda array: np.stack([array] * 3, -1)), "(22, 26, 18, 3)", True),
    "2D": Fault(voxels(lambda array: array[..., 0]), "(22, 26)", True),
    "an axis of RGB": Fault(voxels(lambda array: array[..., :3]), "(22, 26, 3)", True),
    "NaN": Fault(at(float("nan")), "has 1 voxels that are NaN or infinite"),
    "infinite": Fault(at(float("inf")), "has 1 voxels that are NaN or infinite"),
    "singular affine": Fault(header(srow_x=[0, 0, 0, 0]), "has an affine that cannot be inverted", True),
    "affine of NaN": Fault(header(srow_y=[float("nan")] * 4), "has an affine that cannot be inverted", True),
    "voxels of a metre": Fault(spacing(1000), "has voxels of 1e+03 × 1 × 1 mm, expected 0.01 … 100 mm", True),
    "voxels of a micrometre": Fault(spacing(0.001), "has voxels of 0.001 × 1 × 1 mm", True),
}
# three slices, and headers whose fault MONAI mends by their voxel sizes, with a warning; in a pair they are refused
FINE_ALONE = ("an axis of RGB", "singular affine", "affine of NaN")
LABELS = {
    "truncated gzip": Fault(lambda path: path.write_bytes(path.read_bytes()[:-100]), "cannot be read", True),
    "absent": Fault(Path.unlink, "is missing", True),
    "another shape": Fault(voxels(lambda array: array[:-1]), "has shape (21, 26, 18), its image", True),
    "elsewhere": Fault(moved, "lies elsewhere than its image", True),
    "values outside the classes": Fault(at(7, np.int16), "has the values 7, expected whole numbers 0 … 2"),
    "negative values": Fault(at(-1, np.int16), "has the values -1, expected whole numbers 0 … 2"),
    "fractions": Fault(at(0.5), "0.5, expected whole numbers", True),
    "NaN": Fault(at(float("nan")), "nan, expected whole numbers", True),
}
UNUSUAL = {
    "constant image": ("images", voxels(np.zeros_like)),
    "constant, not zero": ("images", voxels(lambda array: np.full_like(array, 7))),
    "float labels": ("labels", voxels(np.asarray)),
    "uint16": ("images", voxels(np.asarray, np.uint16)),
    "huge intensities": ("images", voxels(lambda array: array * 1e30)),
    "smaller than the patch": ("both", voxels(lambda array: array[8:14, 8:14, 8:14], np.int16)),
    "an axis of one voxel": ("both", voxels(lambda array: array[..., 9:10], np.int16)),
    "anisotropic": ("both", spacing(8, axis=2)),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Four cases, and a network to evaluate and infer with."""
    root = write_msd(tmp_path_factory.mktemp("daten größer ö 你好") / "Task 99", cases=4)
    flow = workflow(NAME, "train", root, root / "output")
    checkpoint = root / "model.pt"
    torch.save(flow.parser.get_parsed_content("network_def").state_dict(), checkpoint)
    return root, str(checkpoint)


@pytest.fixture
def root(good, tmp_path):
    return shutil.copytree(good[0], tmp_path / good[0].parent.name / "Task 99")


def files(root: Path, part: str) -> list[Path]:
    parts = {"images": ["imagesTr"], "labels": ["labelsTr"], "both": ["imagesTr", "labelsTr"]}[part]
    return [root / folder / f"{CASE}.nii.gz" for folder in parts]


def trained(root: Path, _: str) -> None:
    train(NAME, root, root / "output", epochs=1, cases="$msd.datalist(@data_root, 2)", batch_size=2)


def evaluated(root: Path, checkpoint: str) -> None:
    fold = {"cases": f"$[{{**case, 'fold': int(case['case_id'] != '{CASE}')}} for case in msd.datalist(@data_root, 2)]"}
    run(NAME, "train evaluate", root, root / "output", checkpoint=checkpoint, **fold)


def listed(root: Path, _: str) -> None:
    datalist("msd", str(root), str(root / "datalist.json"), folds=2)


def said(command: Callable[[Path, str], None], root: Path, checkpoint: str) -> str:
    with pytest.raises(Exception) as caught:
        command(root, checkpoint)
    return one_line(caught.value)


@pytest.mark.parametrize("command", [trained, evaluated, listed])
@pytest.mark.parametrize(
    "part, fault",
    [
        pytest.param(part, fault, id=f"{part}-{name}")
        for part, faults in (("images", IMAGES), ("labels", LABELS))
        for name, fault in faults.items()
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(good, root, part, fault, command):
    (path,) = files(root, part)
    fault.change(path)
    if command is listed and not fault.listed:
        listed(root, "")
        assert len(json.loads((root / "datalist.json").read_text())["training"]) == 4
        return
    line = said(command, root, good[1])
    assert str(path) in line and fault.words in line
    assert any(word in line for word in ("repair", "restore", "correct", "leave it out", "take the cases out", "map"))
    assert not (root / "datalist.json").exists()


@pytest.mark.parametrize("part, change", UNUSUAL.values(), ids=UNUSUAL)
def test_what_is_unusual_works(good, root, part, change):
    for path in files(root, part):
        change(path)
    for command in (trained, evaluated, listed):
        command(root, good[1])
    assert (root / "output" / "checkpoints" / "model.pt").exists()
    assert CASE in (root / "output" / "evaluation" / "cases.csv").read_text()


def test_an_empty_label_trains_and_is_told_of(good, root):
    (path,) = files(root, "labels")
    voxels(np.zeros_like, np.uint8)(path)
    trained(root, "")
    evaluated(root, good[1])
    assert said(listed, root, "").startswith(f"1 faults: the label of {CASE} has no voxel above 0")


def test_a_broken_image_does_not_stop_the_inference_of_the_others(good, root, capfd):
    """Every kind in one run."""
    images = root / "images"
    broken = {name: fault for name, fault in IMAGES.items() if name not in FINE_ALONE}
    for name, fault in broken.items():
        path = images / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        shutil.copy(root / "imagesTr" / f"{CASE}.nii.gz", path)
        fault.change(path)
    for name, (part, change) in UNUSUAL.items():
        if part != "labels":
            path = images / f"usual {name}.nii.gz"
            shutil.copy(root / "imagesTr" / f"{CASE}.nii.gz", path)
            change(path)
    paths = [*(str(images / f"{name}.nii.gz") for name in broken), *map(str, sorted(images.glob("usual*")))]
    line = said(lambda *_: run(NAME, "inference", root, root / "output", checkpoint=good[1], images=paths), root, "")
    assert line.startswith(f"{len(broken)} of {len(paths)} images failed, the others are segmented: ")
    printed = capfd.readouterr().out
    for name, fault in broken.items():
        (told,) = [part for part in line.split("; ") if f"{images / name}.nii.gz " in part]
        assert told.rpartition(" segmented: ")[2] in printed
        assert ("cannot be read" if fault.words == "is missing" else "") in told
    written = {path.name for path in (root / "output" / "predictions").iterdir()}
    assert written == {f"{Path(path).name.split('.')[0]}_seg.nii.gz" for path in paths[len(broken) :]}


@pytest.mark.parametrize("workers", [0, 2])
def test_labels_that_cannot_be_written_are_an_error_for_each_image(good, root, workers):
    images = [str(path) for path in sorted((root / "imagesTr").iterdir())[:2]]
    predictions = root / "output" / "predictions"
    predictions.mkdir(parents=True)
    (predictions / f".{Path(images[0]).name.split('.')[0]}_seg.nii.gz").symlink_to("/dev/full")
    given = {"checkpoint": good[1], "images": images, "num_workers": workers}
    line = said(lambda *_: run(NAME, "inference", root, root / "output", **given), root, "")
    assert line.startswith(f"1 of 2 images failed, the others are segmented: {images[0]}: {predictions}")
    assert "No space left on device" in line and line.endswith("make room or give another output_dir")
    assert [path.name for path in predictions.iterdir()] == [f"{Path(images[1]).name.split('.')[0]}_seg.nii.gz"]


def test_an_output_folder_that_cannot_be_made(good, root):
    given = {"checkpoint": good[1], "images": [str(next((root / "imagesTr").iterdir()))], "output_dir": "/proc/none"}
    line = said(lambda *_: run(NAME, "inference", root, Path(), **given), root, "")
    assert "cannot be made" in line and line.endswith("give another output_dir")


def listed_twice(root: Path) -> str:
    description = json.loads((write_msd(root) / "dataset.json").read_text())
    description["training"].append(description["training"][3])
    (root / "dataset.json").write_text(json.dumps(description))
    return "msd"


def in_both_folders(root: Path) -> str:
    shutil.copytree(write_acdc(root) / "validation" / "patient005", root / "training" / "patient005")
    return "acdc"


def both_with_other_frames(root: Path) -> str:
    in_both_folders(root)
    for path in (root / "validation").rglob("*_frame*"):
        path.rename(str(path).replace("_frame0", "_frame1"))
    return "acdc"


@pytest.mark.parametrize(
    "write, words",
    [
        (listed_twice, "cases more than once: ellipsoids_003, expected"),
        (in_both_folders, "cases more than once: patient005_frame01, patient005_frame09"),
        (both_with_other_frames, "patients on both sides of the split: patient005"),
    ],
)
def test_a_case_or_patient_that_is_there_twice(tmp_path, write, words):
    dataset = write(tmp_path / "data")
    with pytest.raises(ValueError, match=words):
        datalist(dataset, str(tmp_path / "data"), str(tmp_path / "datalist.json"))


PICTURES = {
    "16 bits": (lambda image: Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), ""),
    "a palette": (lambda image: image.convert("P"), ""),
    "grey with opacity": (lambda image: image.convert("LA"), ""),
    "one pixel": (lambda image: image.crop((0, 0, 1, 1)), "(1, 1)"),
    "upright": (lambda image: image.transpose(Image.Transpose.ROTATE_90), "its image"),
}


@pytest.mark.parametrize("change, words", PICTURES.values(), ids=PICTURES)
def test_pictures(tmp_path, change, words):
    name, root = "busi_ultrasound_segmentation", write_busi(tmp_path / "BUSI")
    path = root / "benign" / "benign (1).png"
    with Image.open(path) as image:
        change(image.copy()).save(path)

    def trained(root: Path, _: str) -> None:
        train(name, root, root / "output", epochs=1, cases="$busi.datalist(@data_root, folds=2)")

    if words:
        assert words in said(trained, root, "")
        return
    trained(root, "")
    given = {"images": [str(path)], "checkpoint": str(root / "output" / "checkpoints" / "model.pt")}
    run(name, "inference", root, root / "output", **given)
    assert Image.open(root / "output" / "predictions" / "benign (1)_seg.png").size == Image.open(path).size
