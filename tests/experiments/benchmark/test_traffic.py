from __future__ import annotations

import pytest
import torch

from xattnres_monai.experiments.benchmark.command import benchmark
from xattnres_monai.experiments.benchmark.compiled_traffic import LOG, compiler_counts, fresh_compiler
from xattnres_monai.experiments.benchmark.traffic import Traffic


def test_operators_and_bytes_counted_by_hand():
    image, row = torch.zeros(8, 8, device="meta"), torch.zeros(8, device="meta")
    with Traffic() as count:
        (image.view(64).reshape(8, 8).t() + row.expand(8, 8)).relu_()
    # the sum reads 64 and 8 numbers of 4 bytes and writes 64; relu_ reads and writes 64
    assert count.operators == 2 and count.bytes == 4 * (64 + 8 + 64 + 64 + 64)


def test_the_command_counts_without_a_gpu():
    lines = benchmark("unet_2d", device="meta", sources="unskipped").splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[2:4]] == ["form", "inference: operators"]
    plain, ours, literal = ([cell.strip() for cell in line.split("|")[2:-1]] for line in lines[2:])
    assert [plain[0], ours[0], literal[0]] == ["plain", "xattnres", "literal"]
    assert plain[2] == "1.00" and 1 < float(ours[2]) < float(literal[2])


@pytest.mark.parametrize("wrong", [{"plot": True}, {"compiled": True}])
def test_what_is_counted_is_neither_drawn_nor_compiled(wrong):
    with pytest.raises(ValueError, match="got device=meta with plot or compiled, expected neither"):
        benchmark("unet_2d", device="meta", **wrong)


@pytest.mark.slow
def test_the_compiler_counts_its_kernels_and_bytes(capfd):
    image, level = torch.rand(64, 64), LOG.level
    with fresh_compiler():
        function = torch.compile(lambda values: (values.sin() + 1).relu())
        with compiler_counts() as first:
            function(image)
        with compiler_counts() as again:
            function(image)
    assert first == {"kernels": 1, "bytes": 2 * 4 * 64 * 64}  # all is done while it is read and written once
    assert again == {"kernels": 0, "bytes": 0}
    assert LOG.level == level and "Graph Metrics" not in capfd.readouterr().err
