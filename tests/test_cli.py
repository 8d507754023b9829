from __future__ import annotations

import subprocess
import sys

import pytest


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "xattnres_monai", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_prints_the_table_of_bundles():
    result = call("bundles", "list")
    assert result.returncode == 0
    assert "msd_hippocampus_mri_segmentation" in result.stdout


def test_counts_what_networks_ask_for():
    result = call("benchmark", "--device", "meta", "--cases", "unet_2d,unet_2d_wide", "--query=spatial")
    lines = result.stdout.splitlines()
    assert result.returncode == 0 and sum("| xattnres " in line for line in lines) == 2, result.stderr


@pytest.mark.parametrize(
    "arguments, words",
    [(("bundles", "check", "--zoo", "/nowhere"), "has no folder templates"), (("report", "/nowhere"), "/nowhere")],
)
def test_an_error_is_one_line_and_a_status(arguments, words):
    result = call(*arguments)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and words in result.stderr and result.stderr.count("\n") == 1
