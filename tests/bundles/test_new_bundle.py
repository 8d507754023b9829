"""The recipe of bundles/README.md for a ninth data set: what is written by hand for it, and that it runs."""

from __future__ import annotations

import shutil

import nibabel
import numpy as np
import torch
from monai.bundle import ConfigWorkflow

from tests.bundles.runs import ZOO
from tests.data.layouts import write_nifti
from xattnres_monai.bundles.command import Bundles

MODULE = '''"""Phantoms: scans/<case>.nii beside masks/<case>.nii."""

from pathlib import Path

from xattnres_monai.data.folds import assign_folds
from xattnres_monai.data.layout import Layout, check_pairs, stem

LAYOUT = Layout(name="Phantoms", expected="scans/a.nii, masks/a.nii", source="nowhere")


def datalist(dataset_dir, folds=3, seed=0):
    """The pairs of scan and mask."""
    root = Path(dataset_dir)
    cases = [
        {"image": str(scan), "label": str(root / "masks" / scan.name), "case_id": stem(scan), "patient_id": stem(scan)}
        for scan in (root / "scans").glob("*.nii")
    ]
    if not cases:
        raise LAYOUT.error(root, "it has no scans")
    check_pairs(cases)
    return assign_folds(cases, folds, seed)
'''
FACTS = """common:
  +imports: [$import phantoms as phantoms]
  network_name: unet
  labels: {"0": background, "1": left, "2": right}
  spacing: [1.0, 1.0, 1.5] # mm
  roi_size: [16, 16, 16] # voxels
  intensity: {_target_: NormalizeIntensityd, keys: image}
  dataset_dir: $@bundle_root + '/data'
network_unet:
  network_def#channels: [4, 8, 16]
  network_def#strides: [2, 2]
train:
  cases: $phantoms.datalist(@data_root)
  train#trainer#max_epochs: 2
inference:
  images: $layout.find_images(@data_root, 'scans', '*.nii')
metadata:
  title: Phantoms
  task: Segmentation of phantoms
  description: A throw-away bundle.
  modality: CT
  data_source: none
  image_classes: noise
  value_range: [-6, 12]
  eval_metrics: {}
"""


def test_a_ninth_data_set_takes_fewer_than_sixty_lines(tmp_path, monkeypatch):
    assert len((MODULE + FACTS).splitlines()) < 60
    (tmp_path / "phantoms.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copy(ZOO.parent / "LICENSE", tmp_path)
    shutil.copytree(ZOO / "templates", tmp_path / "bundles" / "templates")
    bundle = tmp_path / "bundles" / "phantoms_ct_segmentation"
    bundle.mkdir()
    (bundle / "bundle.yaml").write_text(FACTS)
    Bundles(tmp_path / "bundles").render()
    data = tmp_path / "data"
    for number in range(6):
        write_nifti(data / "scans" / f"{number}.nii", data / "masks" / f"{number}.nii", classes=2, seed=number)

    def run(workflow_type: str, *configs: str, **more) -> None:
        files = [str(bundle / "configs" / f"{config}.json") for config in configs]
        given = {"bundle_root": str(bundle), "dataset_dir": str(data), "num_workers": 0, **more}
        flow = ConfigWorkflow(config_file=files, workflow_type=workflow_type, **given)
        flow.initialize()
        flow.run()
        assert flow.check_properties() == []

    run("train", "train", "variant_no_skip")
    output = bundle / "output" / "unet_no_skip"
    run("train", "train", "variant_no_skip", "evaluate", checkpoint=str(output / "checkpoints" / "model.pt"))
    assert "2 validation cases" in (output / "evaluation" / "summary.md").read_text()
    run("inference", "inference", "variant_no_skip", checkpoint=str(output / "checkpoints" / "model.pt"))
    prediction = nibabel.load(output / "predictions" / "0_seg.nii.gz")
    np.testing.assert_allclose(prediction.affine, nibabel.load(data / "scans" / "0.nii").affine, atol=1e-4)
    assert torch.load(output / "checkpoints" / "last.pt", weights_only=True)["trainer"]["iteration"] == 4
