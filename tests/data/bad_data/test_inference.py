"""Inference of images some of which are broken, and where labels cannot be written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.bundles.runs import run
from tests.data.bad_data.faults import CASE, FINE_ALONE, IMAGES, NAME, UNUSUAL, said


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
    line = said(lambda: run(NAME, "inference", root, root / "output", checkpoint=good[1], images=paths))
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
    line = said(lambda: run(NAME, "inference", root, root / "output", **given))
    assert line.startswith(f"1 of 2 images failed, the others are segmented: {images[0]}: {predictions}")
    assert "No space left on device" in line and line.endswith("make room or give another output_dir")
    assert [path.name for path in predictions.iterdir()] == [f"{Path(images[1]).name.split('.')[0]}_seg.nii.gz"]


def test_an_output_folder_that_cannot_be_made(good, root):
    given = {"checkpoint": good[1], "images": [str(next((root / "imagesTr").iterdir()))], "output_dir": "/proc/none"}
    line = said(lambda: run(NAME, "inference", root, Path(), **given))
    assert "cannot be made" in line and line.endswith("give another output_dir")
