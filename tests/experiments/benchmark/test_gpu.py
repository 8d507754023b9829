"""The command ``gpu`` on a CPU, with tiny sizes: each piece runs for real, and writes what it should."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from xattnres_monai.experiments.benchmark.gpu import gpu, run_piece
from xattnres_monai.experiments.benchmark.job import ACDC, BTCV, TINY, Job
from xattnres_monai.experiments.benchmark.trainings import recipe_hours

EPOCHS = {"seconds to start", "seconds a step, epoch 1", "seconds a step", "of it waiting for data", "MB in training",
          "seconds a validation case", "MB in validation", "hours of the recipe"}  # fmt: skip
INFERENCE = {"seconds of sliding windows", "seconds with all after", "MB"}


def run(folder: Path, piece: str) -> dict:
    """Figures of a piece."""
    assert gpu(piece, str(folder), device="cpu", tiny=True) == f"written to {folder}: gpu.md"
    return json.loads((folder / f"{piece}.json").read_text())


def assert_rows(figures: dict, **columns: set[str]) -> None:
    """Rows with columns that are all positive numbers."""
    for row, names in columns.items():
        assert figures[row].keys() == names
        assert all(value > 0 and math.isfinite(value) for value in figures[row].values())


def test_a_piece_writes_its_figures_and_is_not_run_again(tmp_path):
    figures = run(tmp_path, "acdc_epoch")
    assert_rows(figures, baseline=EPOCHS, xattnres=EPOCHS)
    text = (tmp_path / "gpu.md").read_text()
    assert re.search(r"\| acdc_epoch +\| finished ", text)
    assert "## Training of ACDC's bundle" in text and "| hours of the " in text
    log = (tmp_path / "acdc_epoch.log").read_text()
    assert run(tmp_path, "acdc_epoch") == figures and (tmp_path / "acdc_epoch.log").read_text() == log
    words = "pieces.json belongs to another machine, device or size; give another --output"
    with pytest.raises(ValueError, match=words):
        gpu("acdc_epoch", str(tmp_path), device="cpu")


def test_a_piece_that_fails_is_told_in_one_line(tmp_path):
    (tmp_path / "data" / "acdc").mkdir(parents=True)  # without its files
    with pytest.raises(RuntimeError, match="1 of 1 pieces did not finish: acdc_epoch failed: baseline: ") as caught:
        gpu("acdc_epoch", str(tmp_path), device="cpu", tiny=True)
    assert "it has no folder training" in str(caught.value) and "\n" not in str(caught.value)
    assert re.search(r"\| acdc_epoch +\| failed: baseline: ", (tmp_path / "gpu.md").read_text())
    assert "Traceback" in (tmp_path / "acdc_epoch.log").read_text()


def test_a_piece_is_cut_off(tmp_path):
    outcome = run_piece(Job("resume", tmp_path, "cpu", tiny=True), limit=0.5)
    assert outcome["outcome"] == "cut off after 0 seconds" and not (tmp_path / "resume.json").exists()


@pytest.mark.parametrize(
    "given, words",
    [
        ({"pieces": "speed"}, "got the pieces speed, expected some of eager_fp32, "),
        ({"device": "tpu"}, "got device=tpu"),
    ],
)
def test_what_there_is_not(tmp_path, given, words):
    with pytest.raises(ValueError, match=words):
        gpu(output=str(tmp_path / "gpu"), **given)
    assert not (tmp_path / "gpu").exists()


def test_hours_of_a_recipe_counted_by_hand():
    # 140 cases in batches of 2 and 20 that validate, 150 epochs, validated after each
    assert recipe_hours(ACDC, 0.5, 0.1) == pytest.approx(150 * (70 * 0.5 + 20 * 0.1) / 3600)
    # 24 cases one by one and 6 that validate, 1500 epochs, validated after every 25th
    assert recipe_hours(BTCV, 0.5, 4) == pytest.approx((1500 * 24 * 0.5 + 60 * 6 * 4) / 3600)


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["eager_fp32", "eager_bf16", "compiled_fp32", "compiled_bf16"])
def test_costs(tmp_path, piece):
    figures = run(tmp_path, piece)
    (case,) = map(str, TINY.cases)
    assert figures["compiled"] == piece.startswith("compiled")
    assert figures["dtype"] == {"fp32": "float32", "bf16": "bfloat16"}[piece.split("_")[1]]
    assert figures["results"][case]["xattnres"]["training"][1] > 0
    text = (tmp_path / "gpu.md").read_text()
    assert text.count(f"| {case} | xattnres ") == (3 if figures["compiled"] else 2)


@pytest.mark.slow
def test_a_swin_unetr(tmp_path):
    rows = {"baseline": EPOCHS, "xattnres": EPOCHS, "inference, stitching on cpu": INFERENCE}
    assert_rows(run(tmp_path, "swin_epoch"), **rows)
    assert len(list((tmp_path / "runs" / "swin_epoch").glob("inference*/predictions/*.nii.gz"))) == 2


@pytest.mark.slow
def test_compiled_bundles(tmp_path):
    assert_rows(run(tmp_path, "compile_key"), **{f"{ACDC}, compile {value}": EPOCHS for value in (False, True)})


@pytest.mark.slow
def test_one_process_by_torchrun(tmp_path):
    assert run(tmp_path, "ddp")["gloo"]["steps"] == 4  # two epochs of four cases in batches of two


@pytest.mark.slow
def test_a_training_that_is_resumed(tmp_path):
    expected = {"steps": 6, "largest difference of a weight": 0.0, "bit for bit": True}
    assert run(tmp_path, "resume") == {"resumed": expected, "whole again": expected}
    assert "SIGTERM: ended after step 3" in (tmp_path / "resume.log").read_text()


def processes(*words: str) -> list[str]:
    """Command lines of running processes with all of the words."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it may have ended since
            lines.append(path.read_text(errors="replace"))
    return [line for line in lines if all(word in line for word in words)]


@pytest.mark.slow
def test_a_sigterm_ends_the_piece_and_what_torchrun_started_and_leaves_a_summary(tmp_path):
    options = ["--pieces", "ddp", "--device", "cpu", "--tiny", "--output", str(tmp_path)]
    with subprocess.Popen([sys.executable, "-m", "xattnres_monai", "gpu", *options]) as command:
        while not processes("monai.bundle", str(tmp_path)):
            assert command.poll() is None
            time.sleep(0.1)
        children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
        command.send_signal(signal.SIGTERM)
        assert command.wait(120) == 128 + signal.SIGTERM
    assert not processes("monai.bundle", str(tmp_path)) and not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert (tmp_path / "gpu.md").exists() and not (tmp_path / "ddp.json").exists()
