from __future__ import annotations

import json
import random
import sys

import nibabel
import numpy as np
import pytest
import torch
from nilearn.datasets import load_mni152_template

from xattnres_monai.data.readers.mni152 import simulate


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("with space") / "simulated", labelled=2, unlabelled=1)


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def correlation(first, second):
    return np.corrcoef(first.ravel(), second.ravel())[0, 1]


def test_layout_of_the_decathlon(simulated):
    description = json.loads((simulated / "dataset.json").read_text())
    assert description["labels"] == {"0": "background", "1": "grey matter", "2": "white matter"}
    assert "simulated" in description["description"].lower()
    assert (
        (description["numTraining"], description["numTest"])
        == (2, 1)
        == (
            len(description["training"]),
            len(description["test"]),
        )
    )
    named = [path for case in description["training"] for path in case.values()] + description["test"]
    assert {path.removeprefix("./") for path in named} | {"dataset.json"} == set(files(simulated))


def test_images_and_labels_share_a_grid_in_ras(simulated):
    for case in json.loads((simulated / "dataset.json").read_text())["training"]:
        image, label = (nibabel.load(simulated / case[key]) for key in ("image", "label"))
        assert image.shape == label.shape
        np.testing.assert_array_equal(image.affine, label.affine)
        assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
        np.testing.assert_allclose(nibabel.affines.voxel_sizes(image.affine), 2)
        assert set(np.unique(np.asarray(label.dataobj))) == {0, 1, 2}
        assert label.get_data_dtype() == np.uint8
        assert np.isfinite(image.get_fdata()).all()


def test_a_case_depends_on_seed_and_number_alone(simulated, tmp_path):
    for seed_all in (np.random.seed, torch.manual_seed, random.seed):
        seed_all(7)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    more = simulate(tmp_path / "more", labelled=3, unlabelled=0)
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    fewer, more_files = files(simulated), files(more)
    for name in ("imagesTr/mni152_000.nii.gz", "labelsTr/mni152_001.nii.gz", "imagesTr/mni152_001.nii.gz"):
        assert fewer[name] == more_files[name]
    assert fewer["imagesTs/mni152_002.nii.gz"] == more_files["imagesTr/mni152_002.nii.gz"]


def test_cases_and_seeds_differ(simulated, tmp_path):
    other = simulate(tmp_path / "other", labelled=1, unlabelled=0, seed=1)
    labels = [simulated / "labelsTr" / f"mni152_00{number}.nii.gz" for number in (0, 1)]
    labels.append(other / "labelsTr" / "mni152_000.nii.gz")
    first, second, third = (nibabel.load(path).get_fdata() for path in labels)
    assert (first != second).any()
    assert (first != third).any()


def test_is_not_symmetric_as_the_template_is(simulated):
    template = load_mni152_template(resolution=1).get_fdata()
    assert correlation(template, template[::-1]) > 0.9999
    for number in (0, 1):
        tissue = nibabel.load(simulated / "labelsTr" / f"mni152_00{number}.nii.gz").get_fdata()
        assert correlation(tissue, tissue[::-1]) < 0.95


def test_a_second_call_touches_nothing(simulated):
    before = {path: path.stat().st_mtime_ns for path in simulated.rglob("*")}
    assert simulate(simulated, labelled=2, unlabelled=1) == simulated
    assert before == {path: path.stat().st_mtime_ns for path in simulated.rglob("*")}


def test_another_simulation_in_the_folder(simulated):
    with pytest.raises(FileExistsError, match=r"'seed': 0.*expected.*'seed': 5.*another dataset_dir") as caught:
        simulate(simulated, labelled=2, unlabelled=1, seed=5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["notes", '{"name": "Hippocampus"}', "[]"])
def test_other_files_in_the_folder(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(FileExistsError, match="another dataset_dir"):
        simulate(tmp_path)
    assert files(tmp_path) == {"dataset.json": content.encode()}


def test_an_empty_folder_is_filled(tmp_path):
    target = tmp_path / "empty"
    target.mkdir()
    assert "dataset.json" in files(simulate(target, labelled=1, unlabelled=0))


@pytest.mark.parametrize("numbers", [{"labelled": 0}, {"unlabelled": -1}, {"seed": -1}])
def test_numbers_out_of_range(tmp_path, numbers):
    with pytest.raises(ValueError, match="expected at least"):
        simulate(tmp_path / "simulated", **numbers)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch, interruption):
    save = nibabel.save

    def interrupted(image, path):
        if "labelsTr" in str(path):
            raise interruption
        save(image, path)

    monkeypatch.setattr(nibabel, "save", interrupted)
    with pytest.raises((interruption, RuntimeError)):  # MONAI's SaveImage wraps the errors of its writers
        simulate(tmp_path / "simulated", labelled=1, unlabelled=0)
    assert not any(tmp_path.iterdir())


def test_a_process_that_was_faster_wins(simulated, tmp_path, monkeypatch):
    target = tmp_path / "simulated"
    save = nibabel.save

    def overtaken(image, path):
        if not target.exists():
            target.symlink_to(simulated)
        save(image, path)

    monkeypatch.setattr(nibabel, "save", overtaken)
    assert simulate(target, labelled=2, unlabelled=1) == target
    assert list(tmp_path.iterdir()) == [target]


def test_nilearn_is_missing(tmp_path, monkeypatch):
    for name in ("nilearn", "nilearn.datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"nilearn.*pip install nilearn"):
        simulate(tmp_path / "simulated")
    assert not any(tmp_path.iterdir())
