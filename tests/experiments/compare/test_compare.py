from __future__ import annotations

import csv
import json
import math
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.bundles.runs import ZOO, overrides
from tests.data.layouts import write_acdc
from xattnres_monai.experiments.compare.cells import Cell, _device
from xattnres_monai.experiments.compare.command import compare
from xattnres_monai.experiments.compare.results import Results

NAME = "acdc_mri_segmentation"


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Arguments of a small comparison, whose cells stay for all tests of this file."""
    root = tmp_path_factory.mktemp("compare")
    data = write_acdc(root / "data")
    keys = overrides(NAME, data, root, training=True)
    del keys["output_dir"]
    return {"bundle": str(ZOO / NAME), "variants": ("baseline", "no_skip"), "epochs": 1, "output": str(root / "table"),
            **keys}  # fmt: skip


def weights(folder: Path, cell: str) -> dict[str, torch.Tensor]:
    return torch.load(folder / cell / "checkpoints" / "model.pt", weights_only=True)


@pytest.fixture(scope="module")
def table(given):
    return compare(**given, jobs=2)


def test_it_prints_and_writes_what_the_cells_came_to(given, table):
    folder = Path(given["output"])
    assert "Differences to baseline, paired by patient" in table and "| no_skip " in table
    assert (folder / "comparison.md").read_text() in table
    assert (folder / "differences.png").stat().st_size > 10_000
    with (folder / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["variant"] for row in rows} == {"baseline", "no_skip"}
    assert all(row["case"].startswith(row["patient"]) for row in rows)
    keys = [set(weights(folder, cell)) for cell in ("baseline_seed0", "no_skip_seed0")]
    assert any(key.startswith("xattnres.") for key in keys[1] - keys[0])


def test_the_command_line_gives_the_same(given, table):
    options = [f"--{key}={value}" for key, value in given.items() if key != "bundle"]
    command = [sys.executable, "-m", "xattnres_monai", "compare", given["bundle"], *options]
    printed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert printed.stdout.strip().endswith(table.strip()), printed.stderr[-2000:]


def test_finished_cells_are_not_run_again_and_broken_ones_go_on(given, table):
    folder = Path(given["output"])
    last = [folder / cell / "checkpoints" / "last.pt" for cell in ("baseline_seed0", "no_skip_seed0")]
    before = [path.stat().st_mtime_ns for path in last]
    shutil.rmtree(folder / "no_skip_seed0" / "evaluation")  # as if it had been broken off after its training
    assert compare(**given) == table
    assert [path.stat().st_mtime_ns for path in last] == before
    assert "resumed after epoch 1 of 1" in (folder / "no_skip_seed0" / "log.txt").read_text()


def test_a_sigterm_ends_the_cells_that_run(given, tmp_path):
    options = {**given, "epochs": 1000, "output": str(tmp_path)}
    arguments = [f"--{key}={value}" for key, value in options.items() if key != "bundle"]
    log = tmp_path / "baseline_seed0" / "log.txt"
    with subprocess.Popen([sys.executable, "-m", "xattnres_monai", "compare", given["bundle"], *arguments]) as command:
        while not (log.exists() and "Epoch[1] Complete" in log.read_text()):
            assert command.poll() is None
            time.sleep(0.1)
        children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
        command.terminate()
        assert command.wait(60) == 128 + signal.SIGTERM
    assert children
    for _ in range(600):
        if not any(Path(f"/proc/{child}").exists() for child in children):
            return
        time.sleep(0.1)
    raise AssertionError("cells went on without the command")


@pytest.mark.slow
def test_more_seeds_extend_a_table_that_mlflow_gets_too(given, table, tmp_path, monkeypatch):
    folder = Path(given["output"])
    before = (folder / "baseline_seed0" / "log.txt").read_text()
    monkeypatch.chdir(tmp_path)  # where MLflow puts the files
    text = compare(**{**given, "seeds": (0, 1)}, tracking=f"sqlite:///{tmp_path}/mlflow.db")
    assert "seed 1" in text and (folder / "baseline_seed0" / "log.txt").read_text() == before
    first, second = (weights(folder, f"baseline_seed{seed}") for seed in (0, 1))
    assert not any(torch.equal(first[key], second[key]) for key in first if key.endswith("conv.weight"))
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        names = {name for (name,) in database.execute("select name from runs")}
        metrics = dict(database.execute("select key, value from metrics"))
    assert names == {"baseline_seed0", "baseline_seed1", "no_skip_seed0", "no_skip_seed1", "comparison"}
    assert 0 <= metrics["val_mean_dice_left_ventricle"] <= 1
    assert {path.name for path in tmp_path.glob("mlruns/**/artifacts/*")} == {path.name for path in folder.glob("*.*")}


def test_cells_of_other_settings_are_refused(given, table):
    with pytest.raises(ValueError, match=r"cell.json belongs to a cell with other settings .*; give another --output"):
        compare(**{**given, "epochs": 2})


def test_an_unknown_variant_is_refused(given, tmp_path):
    with pytest.raises(ValueError, match=r"got the variant no_skips, expected one of baseline, .*no_skip"):
        compare(**{**given, "variants": ("baseline", "no_skips"), "output": str(tmp_path)})


def test_cells_of_another_network_are_refused(given, table):
    with pytest.raises(ValueError, match=r"cell.json belongs to a cell with other settings than .*network_unetr"):
        compare(**given, network="unetr")


def test_settings_that_json_cannot_tell_apart_are_the_same(tmp_path):
    cell = Cell(ZOO / NAME, (), "xattnres", 0, tmp_path, 1, {"roi_size": (32, 32)})
    cell.claim()
    (cell.folder / "checkpoints").mkdir()
    cell.claim()
    assert json.loads((cell.folder / "cell.json").read_text())["overrides"] == {"roi_size": [32, 32]}


def test_no_job_trains_nothing(given):
    with pytest.raises(ValueError, match="got jobs=0, expected at least 1; give the number of cells to run at once"):
        compare(**given, jobs=0)


def test_one_variant_is_no_comparison(given):
    with pytest.raises(ValueError, match="got the variants no_skip, expected two or more to compare"):
        compare(**{**given, "variants": "no_skip"})


def test_a_cell_that_fails_names_its_log(given, tmp_path):
    with pytest.raises(
        RuntimeError, match=r"2 of 2 cells failed; the reason is at the end of .*baseline_seed0.log.txt, .*; mend it"
    ):
        compare(**{**given, "output": str(tmp_path), "learning_rat": 1}, jobs=2)
    log = (tmp_path / "baseline_seed0" / "log.txt").read_text()
    assert "the key learning_rat changes nothing; did you mean learning_rate?" in log
    assert json.loads((tmp_path / "baseline_seed0" / "cell.json").read_text())["overrides"]["learning_rat"] == 1


def test_differences_are_paired_by_structure_and_averaged_by_patient(tmp_path):
    """Of two patients, one with two cases; a distance that one variant lacks counts for neither."""
    cells = [Cell(ZOO / NAME, (), variant, 0, tmp_path, 1, {"val_interval": 1}) for variant in ("baseline", "xattnres")]
    figures = {
        "baseline": {"val_mean_dice": [[0.8, 0.6], [0.7, 0.7], [0.5, 0.9]], "hd95": [[9, 9], [9, 9], [9, 90]]},
        "xattnres": {"val_mean_dice": [[0.9, 0.6], [0.7, 0.8], [0.5, 0.0]], "hd95": [[8, 9], [9, 8], [9, math.nan]]},
    }
    for cell in cells:
        (cell.folder / "evaluation").mkdir(parents=True)
        for metric, rows in {**figures[cell.variant], "asd": figures[cell.variant]["hd95"]}.items():
            lines = ["filename,a,b,mean", *(f"c{n}.nii.gz,{a},{b},0" for n, (a, b) in enumerate(rows))]
            (cell.folder / "evaluation" / f"{metric}_raw.csv").write_text("\n".join(lines))
    results = Results(cells, {"c0": "p", "c1": "p", "c2": "q"}, ["a", "b"], "mm")
    assert results.difference("val_mean_dice", "xattnres").values == pytest.approx([0.05, -0.45])
    assert results.difference("hd95", "xattnres").values == pytest.approx([-0.5, 0])
    assert re.search(r"\| xattnres +\| 0\.5833 +\| 1 ", results.text())


def test_cells_take_the_gpus_in_turn_and_are_the_same_on_each(tmp_path, monkeypatch):
    cell = Cell(ZOO / NAME, (), "xattnres", 0, tmp_path, 1, {})
    assert _device(cell, 1) == {}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [_device(cell, place)["device"] for place in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    for device in ("cuda:0", "cuda:1"):
        cell = Cell(ZOO / NAME, (), "xattnres", 0, tmp_path, 1, {"device": device, "num_workers": 4})
        assert _device(cell, 1) == {}
        cell.claim()
        (cell.folder / "checkpoints").mkdir(exist_ok=True)


def test_images_of_one_name_cannot_be_told_apart(tmp_path):
    cases = [{"image": f"{patient}/ct.nii.gz", "patient_id": patient} for patient in "ab"]
    with pytest.raises(ValueError, match=r"^got 2 images with 1 names, expected a different name for each, .*; rename"):
        compare(str(ZOO / NAME), output=str(tmp_path), cases=cases)
    assert not list(tmp_path.iterdir())
