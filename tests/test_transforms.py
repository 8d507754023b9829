from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from xattnres_monai.transforms import CheckFinited


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_refuses_broken_voxels_and_names_the_file(value):
    image = MetaTensor(torch.zeros(1, 4, 4), meta={"filename_or_obj": "case_7.nii.gz"})
    image[0, 1, 1:3] = value
    with pytest.raises(
        ValueError, match=r"^case_7.nii.gz has 2 voxels that are NaN or infinite, expected finite.*repair"
    ):
        CheckFinited("image")({"image": image})


def test_hands_good_images_on_untouched():
    data = {"image": MetaTensor(torch.rand(1, 4, 4)), "label": 3}
    checked = CheckFinited("image")(data)
    assert checked["image"] is data["image"] and checked["label"] == 3
