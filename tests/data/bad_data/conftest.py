from __future__ import annotations

import shutil

import pytest
import torch

from tests.bundles.runs import workflow
from tests.data.bad_data.faults import NAME
from tests.data.layouts import write_msd


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Four cases, and a network to evaluate and infer with."""
    root = write_msd(tmp_path_factory.mktemp("daten größer ö 你好") / "Task 99", cases=4)
    flow = workflow(NAME, "train", root, root / "output")
    checkpoint = root / "model.pt"
    torch.save(flow.parser.get_parsed_content("network_def").state_dict(), checkpoint)
    return root, str(checkpoint)


@pytest.fixture
def root(good, tmp_path):
    return shutil.copytree(good[0], tmp_path / good[0].parent.name / "Task 99")
