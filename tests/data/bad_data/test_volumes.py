"""Broken, odd and merely unusual volumes through training, evaluation and ``datalist``, and what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.bundles.runs import run, train
from tests.data.bad_data.faults import CASE, IMAGES, LABELS, NAME, UNUSUAL, files, said, voxels
from xattnres_monai.data.datalist import datalist


def trained(root: Path, _: str) -> None:
    train(NAME, root, root / "output", epochs=1, cases="$msd.datalist(@data_root, 2)", batch_size=2)


def evaluated(root: Path, checkpoint: str) -> None:
    fold = {"cases": f"$[{{**case, 'fold': int(case['case_id'] != '{CASE}')}} for case in msd.datalist(@data_root, 2)]"}
    run(NAME, "train evaluate", root, root / "output", checkpoint=checkpoint, **fold)


def listed(root: Path, _: str) -> None:
    datalist("msd", str(root), str(root / "datalist.json"), folds=2)


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
    line = said(lambda: command(root, good[1]))
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
    assert said(lambda: listed(root, "")).startswith(f"1 faults: the label of {CASE} has no voxel above 0")
