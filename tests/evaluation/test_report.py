from __future__ import annotations

import numpy as np
import pytest

from xattnres_monai.evaluation.report import read_metric, report, summary, table

LABELS = {"0": "background", "1": "outer", "2": "inner"}


@pytest.fixture
def evaluation(tmp_path):
    """As MONAI's MetricsSaver writes it; the second case lacks the second class, the network misses the third's."""
    folder = tmp_path / "evaluation"
    folder.mkdir()
    files = {
        "val_mean_dice": ("0.8000,0.6000,0.7000", "0.9000,nan,0.9000", "0.7000,0.0000,0.3500"),
        "hd95": ("2.0,4.0,3.0", "4.0,nan,4.0", "3.0,nan,3.0"),
        "asd": ("1.0,2.0,1.5", "2.0,inf,inf", "1.5,inf,inf"),
    }
    for metric, values in files.items():
        rows = [f"/data/{case}.nii.gz,{row}" for case, row in zip("abc", values)]
        (folder / f"{metric}_raw.csv").write_text("\n".join(["filename,class0,class1,mean", *rows]) + "\n")
    return folder


def test_reads_cases_and_classes(evaluation):
    cases, dice = read_metric(evaluation, "val_mean_dice")
    assert cases == ["a", "b", "c"]
    np.testing.assert_array_equal(dice, [[0.8, 0.6], [0.9, np.nan], [0.7, 0.0]])
    np.testing.assert_array_equal(read_metric(evaluation, "asd")[1], [[1, 2], [2, np.nan], [1.5, np.nan]])


def test_the_table_gives_mean_and_deviation_and_leaves_absent_classes_out(evaluation):
    others = {"thresholds": np.array([[0.5, 0.5], [0.7, 0.3], [0.6, 0.4]])}
    text = summary(evaluation, LABELS, caption="simulated", others=others)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert text.startswith("3 validation cases, simulated\n")
    assert lines[0][1:] == ["outer", "inner", "mean"]
    assert lines[2] == ["Dice", "0.800 ± 0.082", "0.300 ± 0.300", "0.650 ± 0.227"]
    assert lines[3] == ["Dice, thresholds", "0.600 ± 0.082", "0.400 ± 0.082", "0.500 ± 0.000"]
    assert lines[4] == ["HD95 (mm)", "3.00 ± 0.82", "4.00 ± 0.00", "3.33 ± 0.47"]
    assert lines[5] == ["average surface distance (mm)", "1.50 ± 0.41", "2.00 ± 0.00", "1.67 ± 0.24"]
    assert "leave out 1 structures that the network missed" in text
    assert (evaluation / "summary.md").read_text() == text
    rows = (evaluation / "cases.csv").read_text().splitlines()
    assert rows[0] == "case,class,dice,hd95_mm,asd_mm" and rows[1] == "a,outer,0.8000,2.0000,1.0000" and len(rows) == 7


def test_a_class_that_no_case_has_is_a_dash():
    lines = table({"Dice": np.array([[0.5, np.nan], [0.7, np.nan]])}, ["outer", "inner"]).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["Dice", "0.600 ± 0.100", "–", "0.600 ± 0.100"]


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
    with pytest.raises(FileNotFoundError, match=r"no val_mean_dice_raw.csv in .*, expected an evaluation's folder"):
        read_metric(tmp_path, "val_mean_dice")
    with pytest.raises(FileNotFoundError, match=r"^got no folder .*absent, expected the output_dir of a run"):
        report(tmp_path / "absent")


def test_commas_in_a_path_are_part_of_it(evaluation):
    path = evaluation / "asd_raw.csv"
    path.write_text(path.read_text().replace("/data/a", '/data/Doe, "John"/a'))
    cases, values = read_metric(evaluation, "asd")
    assert cases == ["a", "b", "c"] and values[0].tolist() == [1, 2]


def test_a_run_without_evaluation_is_reported_too(tmp_path):
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "a_seg.nii.gz").touch()
    lines = report(tmp_path).splitlines()
    assert lines[0].split() == ["evaluation", "none", "yet"] and lines[1].endswith("a_seg.nii.gz")
