from __future__ import annotations

import itertools

import nibabel
import numpy as np
import pytest

from xattnres_monai.evaluation.threshold_baseline import fit_thresholds, threshold_dice


def write_case(folder, name, image, label):
    case = {key: str(folder / f"{name}_{key}.nii.gz") for key in ("image", "label")}
    nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), np.eye(4)), case["image"])
    nibabel.save(nibabel.Nifti1Image(label.astype(np.uint8), np.eye(4)), case["label"])
    return case


def random_cases(folder, overlap):
    """Two small cases whose intensities are 10, 20 and 30 by tissue, plus uniform noise of ± ``overlap``."""
    generator = np.random.default_rng(0)
    labels = [generator.integers(0, 3, (6, 5, 4)) for _ in range(2)]
    images = [10.0 * (label + 1) + generator.uniform(-overlap, overlap, label.shape) for label in labels]
    cases = [write_case(folder, f"case{i}", image, label) for i, (image, label) in enumerate(zip(images, labels))]
    return cases, images, labels


def dice(prediction, truth):
    return 2 * (prediction & truth).sum() / (prediction.sum() + truth.sum())


def test_separable_tissues_reach_one(tmp_path):
    cases, _, _ = random_cases(tmp_path, overlap=3)
    np.testing.assert_array_equal(threshold_dice(cases, fit_thresholds(cases)), np.ones((2, 2)))


def test_equals_a_search_over_all_partitions(tmp_path):
    cases, images, labels = random_cases(tmp_path, overlap=9)
    scores = [((image - image.mean()) / image.std()) for image in images]
    candidates = np.unique(np.concatenate([score.ravel() for score in scores]))[::2]
    best = max(
        np.mean(
            [
                (dice((score >= first) & (score < second), label == 1) + dice(score >= second, label == 2)) / 2
                for score, label in zip(scores, labels)
            ]
        )
        for first, second in itertools.combinations(candidates, 2)
    )
    # the search above leaves every other partition out, so it can only be worse, and not by much
    fitted = threshold_dice(cases, fit_thresholds(cases)).mean()
    assert best - 1e-6 <= fitted < best + 0.01


def test_dice_of_each_case_and_tissue(tmp_path):
    cases, images, labels = random_cases(tmp_path, overlap=9)
    thresholds = (-0.4, 0.6)
    measured = threshold_dice(cases, thresholds)
    for row, image, label in zip(measured, images, labels):
        score = (image - image.mean()) / image.std()
        white = score >= thresholds[1]
        grey = (score >= thresholds[0]) & ~white
        np.testing.assert_allclose(row, [dice(grey, label == 1), dice(white, label == 2)], rtol=1e-5)


def test_nothing_to_fit_on(tmp_path):
    with pytest.raises(ValueError, match="got no cases"):
        fit_thresholds([])
    flat = write_case(tmp_path, "flat", np.ones((4, 4, 4)), np.ones((4, 4, 4)))
    with pytest.raises(ValueError, match="all intensities are equal"):
        fit_thresholds([flat])


def test_thresholds_in_the_wrong_order(tmp_path):
    cases, _, _ = random_cases(tmp_path, overlap=3)
    with pytest.raises(ValueError, match="expected the first below the second"):
        threshold_dice(cases, (1.0, 0.0))
