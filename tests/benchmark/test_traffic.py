from __future__ import annotations

import pytest
import torch

from xattnres_monai.benchmark.cases import CASES
from xattnres_monai.benchmark.command import benchmark
from xattnres_monai.benchmark.traffic import Traffic, traffic


def test_operators_and_bytes_counted_by_hand():
    image, row = torch.zeros(8, 8, device="meta"), torch.zeros(8, device="meta")
    with Traffic() as count:
        (image.view(64).reshape(8, 8).t() + row.expand(8, 8)).relu_()
    # the sum reads 64 and 8 numbers of 4 bytes and writes 64; relu_ reads and writes 64
    assert count.operators == 2 and count.bytes == 4 * (64 + 8 + 64 + 64 + 64)


@pytest.mark.parametrize(
    "case, inference, training",
    [
        ("swin_unetr_f48", 1.16, 1.22),
        ("swin_unetr_f24", 1.10, 1.15),
        ("unetr_f16", 1.41, 1.41),
        ("unet_3d", 2.05, 2.6),
        ("unet_2d_wide", 3.0, 4.0),
        ("unet_2d", 2.7, 3.6),
    ],
)
def test_what_a_gpu_is_asked_for(case, inference, training):
    """Less traffic than the straightforward form, and no more than it was."""
    counts = traffic(CASES[case])
    for mode, most in (("inference", inference), ("training", training)):
        ours, straightforward = (
            counts[form][mode].bytes / counts["plain"][mode].bytes for form in ("xattnres", "straightforward")
        )
        assert 1 < ours <= most and ours < straightforward
        assert counts["plain"][mode].operators < counts["xattnres"][mode].operators


def test_the_command_counts_without_a_gpu():
    lines = benchmark("unet_2d", device="meta", sources="fine").splitlines()
    assert lines[0].split(" | ")[1:3] == ["form           ", "inference: operators"]
    plain, ours, straightforward = ([cell.strip() for cell in line.split("|")[2:-1]] for line in lines[2:])
    assert [plain[0], ours[0], straightforward[0]] == ["plain", "xattnres", "straightforward"]
    assert plain[2] == "1.00" and 1 < float(ours[2]) < float(straightforward[2])
