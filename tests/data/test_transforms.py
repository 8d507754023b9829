from __future__ import annotations

import monai.transforms
import numpy as np
import pytest
import torch
from monai.transforms import LoadImaged
from PIL import Image

from tests.data.layouts import write_nifti
from xattnres_monai.data.transforms import MergeMasksd, Spacingd, plain_batch, to_grey


@pytest.fixture
def as_in_monai_label(tmp_path):
    """An image as MONAI Label hands it on: beside it the path that it was loaded from."""
    path = tmp_path / "case.nii.gz"
    write_nifti(path, None, classes=1, seed=0)
    return LoadImaged("image", ensure_channel_first=True)({"image": str(path), "image_path": str(path)})


def test_spacing_survives_the_path_beside_an_image(as_in_monai_label):
    with pytest.raises(AttributeError, match="'str' object has no attribute 'update'"):
        monai.transforms.Spacingd("image", pixdim=(2, 2, 2))(dict(as_in_monai_label))
    path = as_in_monai_label.pop("image_path")
    expected = monai.transforms.Spacingd("image", pixdim=(2, 2, 2))(dict(as_in_monai_label))
    spacing = Spacingd("image", pixdim=(2, 2, 2))
    got = spacing({**as_in_monai_label, "image_path": path})
    assert got["image_path"] == path and torch.equal(got["image"], expected["image"])
    assert spacing.inverse(got)["image"].shape == as_in_monai_label["image"].shape


def test_masks_of_one_image_are_merged():
    first, second = torch.zeros(2, 1, 4, 4)
    first[0, 0], second[0, 3] = 255, 1
    merged = MergeMasksd("label")({"label": torch.cat([first, second])})["label"]
    assert merged.shape == (1, 4, 4) and merged.unique().tolist() == [0, 1] and merged.sum() == 8
    assert MergeMasksd("label", allow_missing_keys=True)({"image": first}) == {"image": first}


@pytest.mark.parametrize(
    "mode, expected", [("RGB", "L"), ("RGBA", "L"), ("1", "L"), ("P", "L"), ("L", "L"), ("I;16", "I;16")]
)
def test_pictures_become_grey(mode, expected):
    picture = Image.fromarray(np.full((4, 5), 7, np.uint16 if mode == "I;16" else np.uint8))
    assert to_grey(picture if mode == "I;16" else picture.convert(mode)).mode == expected


def test_a_batch_without_metadata(as_in_monai_label):
    batch = {"image": as_in_monai_label["image"][None], "label": as_in_monai_label["image"][None] > 0}
    tensors = plain_batch(batch, torch.device("cpu"), non_blocking=True)
    assert [type(tensor) for tensor in tensors] == [torch.Tensor, torch.Tensor]
    assert torch.equal(tensors[0], batch["image"].as_tensor())
