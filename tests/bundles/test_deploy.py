"""An exported network in MONAI Deploy's MonaiBundleInferenceOperator, by the steps that its code takes (SDK 4.0.0).

The SDK itself needs holoscan with CUDA 13. The operator reads metadata and inference config from the archive, removes
loading and saving, hands the image over as an array without channels, and inverts what the config inverts.
"""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ckpt_export
from monai.data import MetaTensor

from tests.bundles.runs import ZOO
from tests.data.layouts import write_acdc, write_nifti
from xattnres_monai.bundles.workflows import workflow


def exported(name, tmp_path):
    """The archive, as ``ckpt_export`` writes it."""
    root = ZOO / name
    checkpoint = root / "models" / "model.pt"
    if not checkpoint.exists():
        checkpoint = tmp_path / "model.pt"
        torch.save(workflow(root, ["inference"]).parser.get_parsed_content("network_def").state_dict(), checkpoint)
    ckpt_export(
        "network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(checkpoint),
        meta_file=str(root / "configs" / "metadata.json"),
        config_file=str(root / "configs" / "inference.json"),
        bundle_root=str(root),
    )
    return tmp_path / "model.ts", checkpoint


def operator(archive, image):
    """What the operator makes of an image that another operator has read."""
    extra = {"metadata.json": "", "inference.json": ""}
    network = torch.jit.load(archive, map_location="cpu", _extra_files=extra).eval()
    parser = ConfigParser(json.loads(extra["inference.json"]))
    parser.read_meta(json.loads(extra["metadata.json"]))
    parser.parse()
    assert next(iter(parser["_meta_"]["network_data_format"]["inputs"])) == "image"
    assert next(iter(parser["_meta_"]["network_data_format"]["outputs"])) == "pred"
    before, after = (parser.get_parsed_content(f"{part}processing") for part in ("pre", "post"))
    for compose in (before, after):
        kept = [step for step in compose.transforms if type(step).__name__ not in ("LoadImaged", "SaveImaged")]
        compose.transforms = tuple(kept)
    affine = torch.as_tensor(image.affine)
    meta = {"affine": affine, "original_affine": affine, "original_channel_dim": "no_channel"}
    array = torch.as_tensor(image.get_fdata(), dtype=torch.float32)
    data = before({"image": MetaTensor.ensure_torch_and_prune_meta(array, meta)})
    with torch.no_grad():
        prediction = parser.get_parsed_content("inferer")(inputs=data["image"][None], network=network)
    return after({"pred": prediction[0], **data})["pred"]


@pytest.mark.parametrize("name", ["mni152_mri_segmentation", "acdc_mri_segmentation"])
def test_it_gives_the_labels_of_the_bundles_own_inference(name, tmp_path):
    path = tmp_path / "image.nii.gz"
    if name == "acdc_mri_segmentation":  # anisotropic and turned
        path = next(write_acdc(tmp_path / "data").glob("training/*/*_frame01.nii.gz"))
    else:
        write_nifti(path, None, 2, 0)
    archive, checkpoint = exported(name, tmp_path)
    labels = operator(archive, nibabel.load(path))
    given = {"images": [str(path)], "output_dir": str(tmp_path), "num_workers": 0, "checkpoint": str(checkpoint)}
    flow = workflow(ZOO / name, ["inference"], **given)
    flow.initialize()
    flow.run()
    (saved,) = (tmp_path / "predictions").glob("*.nii.gz")
    expected = np.asarray(nibabel.load(saved).dataobj)
    assert labels.shape == (1, *expected.shape)
    assert (labels[0].numpy() == expected).mean() > 0.999 and len(np.unique(expected)) > 1
