from __future__ import annotations

import nibabel
import numpy as np

from xattnres_monai.data.readers import acdc, btcv
from xattnres_monai.experiments.benchmark.volumes import volume, write_acdc, write_btcv


def test_a_volume_has_its_classes_in_noise():
    image, label = volume((40, 30, 20), classes=3, seed=0)
    assert image.shape == label.shape == (40, 30, 20) and image.dtype == np.int16
    assert set(np.unique(label)) == {0, 1, 2, 3}
    assert image[label == 3].mean() > image[label == 1].mean() > image[label == 0].mean()


def test_acdc_is_found_with_its_split(tmp_path):
    cases = acdc.datalist(write_acdc(tmp_path / "acdc", {"training": 2, "validation": 1}, (12, 14, 3)))
    assert [case["fold"] for case in cases].count(0) == 2 and len(cases) == 6
    image = nibabel.load(cases[0]["image"])
    assert image.shape == (12, 14, 3) and np.allclose(image.header.get_zooms(), (1.4, 1.4, 10))


def test_btcv_is_found_with_its_split(tmp_path):
    cases = btcv.datalist(write_btcv(tmp_path / "btcv", (1, 35), (12, 14, 6)))
    assert [case["fold"] for case in cases if case["case_id"] == "img0035"] == [0] and len(cases) == 2


def test_a_data_set_that_is_there_is_left_and_one_that_was_broken_off_is_made(tmp_path):
    (tmp_path / "acdc").mkdir()
    assert not list(write_acdc(tmp_path / "acdc", {"training": 1}, (8, 8, 2)).iterdir())
    (tmp_path / "btcv.part").mkdir()
    assert (write_btcv(tmp_path / "btcv", (1,), (8, 8, 2)) / "Training" / "img" / "img0001.nii.gz").exists()
    assert not (tmp_path / "btcv.part").exists()
