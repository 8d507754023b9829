"""The command ``datalist``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from monai.data import load_decathlon_datalist
from PIL import Image

from tests.data.layouts import write_acdc, write_busi
from xattnres_monai.data.readers import acdc


def command(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "xattnres_monai", "datalist", *map(str, arguments)]
    return subprocess.run(call, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_command_prints_a_table_and_writes_what_monai_reads(tmp_path):
    root = write_acdc(tmp_path / "ACDC")
    result = command("acdc", root, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split("  ")[0] == "case" and len(lines) == 12
    assert lines[1].split() == ["patient001_frame01", "patient001", "-1", "36×40×6", "1.4×1.4×10", "0", "1", "2", "3"]
    assert lines[-1] == "10 cases of 5 patients, written to datalist.json"
    cases = load_decathlon_datalist(str(tmp_path / "datalist.json"), data_list_key="training", base_dir=str(root))
    assert [case["image"] for case in cases] == [case["image"] for case in acdc.datalist(root)]
    assert json.loads((tmp_path / "datalist.json").read_text())["training"][0]["patient_id"] == "patient001"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("acdcc", "."), "got the data set 'acdcc', expected one of acdc, amos, btcv, busi, msd"),
        (("amos", "."), "modality"),
        (("acdc", "."), "no folder training"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(arguments, words, tmp_path):
    result = command(*arguments, cwd=tmp_path)
    assert result.returncode == 1 and words in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "datalist.json").exists()


def test_the_command_names_empty_and_broken_labels(tmp_path):
    root = write_busi(tmp_path / "BUSI")
    mask = root / "benign" / "benign (1)_mask.png"
    Image.new("L", Image.open(mask).size).save(mask)
    assert command("busi", root, "--with_normal", cwd=tmp_path).returncode == 0
    broken = root / "malignant" / "malignant (3)_mask.png"
    broken.write_bytes(broken.read_bytes()[:90])  # the header is whole
    result = command("busi", root, cwd=tmp_path)
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert f"2 faults: the label of benign (1) has no voxel above 0; {broken} cannot be read" in result.stderr
