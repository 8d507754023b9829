"""Cases and patients that are there twice, and pictures of every kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bundles.runs import run, train
from tests.data.bad_data.faults import said
from tests.data.layouts import write_acdc, write_busi, write_msd
from xattnres_monai.data.datalist import datalist


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

    def trained() -> None:
        train(name, root, root / "output", epochs=1, cases="$busi.datalist(@data_root, folds=2)")

    if words:
        assert words in said(trained)
        return
    trained()
    given = {"images": [str(path)], "checkpoint": str(root / "output" / "checkpoints" / "model.pt")}
    run(name, "inference", root, root / "output", **given)
    assert Image.open(root / "output" / "predictions" / "benign (1)_seg.png").size == Image.open(path).size
