"""The weights that the zoo publishes: good for what its metadata say. That they fit is checked by ``verify``."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from tests.bundles.runs import SMALL, ZOO
from tests.conftest import data_folder
from xattnres_monai.bundles.workflows import workflow
from xattnres_monai.data.folds import validation_cases
from xattnres_monai.evaluation.report import DICE, read_metric

PUBLISHED = sorted(path.parents[1].name for path in ZOO.glob("*/models/model.pt"))
REAL = {"acdc_mri_segmentation": "ACDC", "msd_hippocampus_mri_segmentation": "Task04_Hippocampus"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_they_segment_a_validation_case(name, tmp_path):
    """Of the data set itself where it is at hand, else of a small one in its layout that has bright shapes."""
    real = name in REAL and (data_folder() / REAL[name]).is_dir()
    data = data_folder() / REAL[name] if real else SMALL[name].write(tmp_path / "data")
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


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_evaluation_gives_the_dice_that_the_metadata_state(name, tmp_path):
    given = {"output_dir": str(tmp_path), "num_workers": 0}
    if name in REAL:
        given["dataset_dir"] = str(data_folder() / REAL[name])
        if not (data_folder() / REAL[name]).is_dir():
            pytest.skip(f"no {given['dataset_dir']}")
    flow = workflow(ZOO / name, ["train", "evaluate"], **given)
    flow.initialize()
    flow.run()
    _, dice = read_metric(tmp_path / "evaluation", DICE)
    metadata = json.loads((ZOO / name / "configs" / "metadata.json").read_text())
    assert np.nanmean(dice) == pytest.approx(metadata["eval_metrics"]["mean_dice"], abs=1e-3)
