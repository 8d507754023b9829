from __future__ import annotations

import numpy as np
import pytest

from xattnres_monai.report import read_dice, report, summary

LABELS = {"0": "background", "1": "outer", "2": "inner"}


@pytest.fixture
def evaluation(tmp_path):
    """As MONAI's MetricsSaver writes it; the second case lacks the second class."""
    folder = tmp_path / "evaluation"
    folder.mkdir()
    rows = ["filename,class0,class1,mean", "/data/a.nii.gz,0.8000,0.6000,0.7000", "/data/b.nii.gz,0.9000,nan,0.9000"]
    (folder / "val_mean_dice_raw.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_reads_cases_and_classes(evaluation):
    cases, dice = read_dice(evaluation)
    assert cases == ["a.nii.gz", "b.nii.gz"]
    np.testing.assert_array_equal(dice, [[0.8, 0.6], [0.9, np.nan]])


def test_the_table_gives_mean_and_deviation_and_leaves_absent_classes_out(evaluation):
    others = {"thresholds": np.array([[0.5, 0.5], [0.7, 0.3]])}
    text = summary(evaluation, LABELS, "simulated", others)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert text.startswith("2 validation cases, simulated\n")
    assert lines[0][1:] == ["outer", "inner", "mean"]
    assert lines[2] == ["network", "0.850 ± 0.050", "0.600 ± 0.000", "0.800 ± 0.100"]
    assert lines[3] == ["thresholds", "0.600 ± 0.100", "0.400 ± 0.100", "0.500 ± 0.000"]
    assert (evaluation / "summary.md").read_text() == text


def test_the_report_says_where_things_lie(evaluation):
    summary(evaluation, LABELS)
    root = evaluation.parent
    for name in ("predictions/c_seg.nii.gz", "evaluation/overlays/a.png", "evaluation/overlays/b.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    text = report(root)
    assert f"segmentation  {root}/predictions/c_seg.nii.gz\n" in text
    assert f"picture       {root}/evaluation/overlays/a.png and 1 more beside it" in text
    assert "checkpoint    none yet" in text


def test_a_folder_without_evaluation(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no val_mean_dice_raw.csv in .*, expected the folder of an evaluation"
    ):
        read_dice(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"summary.md"):
        report(tmp_path)
