"""The weights that the zoo publishes: whole, of the bundle's network, and good for what its metadata say."""

from __future__ import annotations

import json
from hashlib import sha256

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from tests.bundle_runs import SMALL, ZOO
from xattnres_monai.datasets.folds import validation_cases
from xattnres_monai.workflows import workflow

PUBLISHED = sorted(path.parents[1].name for path in ZOO.glob("*/models/model.pt"))
DATA = ZOO.parents[1] / "shared" / "data"
REAL = {"acdc_mri_segmentation": "ACDC", "msd_hippocampus_mri_segmentation": "Task04_Hippocampus"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_file_is_the_one_that_the_metadata_name(name):
    path = ZOO / name / "models" / "model.pt"
    metadata = json.loads((ZOO / name / "configs" / "metadata.json").read_text())
    assert metadata["weights"] == {"file": "models/model.pt", "sha256": sha256(path.read_bytes()).hexdigest()}
    assert path.stat().st_size < 25e6
    assert 0.8 < metadata["eval_metrics"]["mean_dice"] < 1


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_fits_the_network_of_the_bundle(name):
    parser = ConfigParser(ConfigParser.load_config_file(ZOO / name / "configs" / "inference.json"))
    state = torch.load(ZOO / name / "models" / "model.pt", weights_only=True)
    parser.get_parsed_content("network_def").load_state_dict(state, strict=True)
    assert all(torch.isfinite(tensor).all() for tensor in state.values())


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_segments_a_validation_case(name, tmp_path):
    """Of the data set itself where it is at hand, else of a small one in its layout that has bright shapes."""
    real = name in REAL and (DATA / REAL[name]).is_dir()
    data = DATA / REAL[name] if real else SMALL[name].write(tmp_path / "data")
    given = {SMALL[name].key: str(data), "output_dir": str(tmp_path), "num_workers": 0}
    case = validation_cases(workflow(ZOO / name, ["train"], **given).parser.get_parsed_content("cases"), fold=0)[0]
    flow = workflow(ZOO / name, ["inference"], images=[case["image"]], **given)
    flow.initialize()
    flow.run()
    (path,) = (tmp_path / "predictions").glob("*.nii.gz")
    segmentation = np.asarray(nibabel.load(path).dataobj)
    assert len(np.unique(segmentation)) > 1
    if real:
        label = np.asarray(nibabel.load(case["label"]).dataobj)
        overlap = 2 * np.count_nonzero((segmentation == label) & (label > 0))
        assert overlap / (np.count_nonzero(segmentation) + np.count_nonzero(label)) > 0.7
