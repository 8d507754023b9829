"""Every bundle trains, evaluates and infers on a small data set in its real layout."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel
import numpy as np
import onnxruntime
import pytest
import torch
from monai.bundle import ckpt_export, onnx_export
from PIL import Image

from tests.bundles.runs import NAMES, SMALL, ZOO, run, state, train, weights, workflow
from xattnres_monai.evaluation.report import read_metric


@pytest.fixture(scope="module", params=NAMES)
def trained(request, tmp_path_factory):
    """Name of a bundle, its data set, and the output folder of one epoch, run from another working directory."""
    folder = tmp_path_factory.mktemp(request.param)
    data = SMALL[request.param].write(folder / "data of mine")
    before = Path.cwd()
    os.chdir(folder)
    try:
        train(request.param, data, folder / "output", epochs=1)
    finally:
        os.chdir(before)
    return request.param, data, folder / "output"


def test_one_epoch_leaves_both_checkpoints(trained):
    _, _, output = trained
    assert sorted(path.name for path in (output / "checkpoints").iterdir()) == ["last.pt", "model.pt"]
    assert state(output)["trainer"]["iteration"] > 0


def test_evaluation_measures_whole_cases_on_their_own_grid(trained, capsys):
    name, data, output = trained
    flow = run(name, "train evaluate", data, output, checkpoint=weights(output))
    labels = flow.parser.get_parsed_content("labels")
    printed = capsys.readouterr().out
    cases, dice = read_metric(output / "evaluation", "val_mean_dice")
    assert dice.shape == (len(cases), len(labels) - 1) and f"{len(cases)} validation cases" in printed
    assert f"{np.nanmean(dice[:, 0]):.3f} ±" in printed
    unit = "pixels" if "ultrasound" in name else "mm"
    assert f"HD95 ({unit})" in printed and f"average surface distance ({unit})" in printed
    assert ("simulated" in printed) == (name == "mni152_mri_segmentation")
    assert len((output / "evaluation" / "cases.csv").read_text().splitlines()) == dice.size + 1
    assert {path.stem for path in (output / "evaluation" / "overlays").iterdir()} == set(cases)
    # the label that was compared is the file's own, not a resampled one
    last = flow.parser.get_parsed_content("validate#evaluator").state.output[0]
    stored = flow.parser.get_parsed_content("validate#dataset").data[-1]["label"]
    first = stored[0] if isinstance(stored, list) else stored
    shape = Image.open(first).size if first.endswith(".png") else nibabel.load(first).shape
    assert last["label"].shape[1:] == last["pred"].shape[1:] == shape


def test_inference_writes_labels_on_the_grid_of_the_image(trained):
    name, data, output = trained
    flow = run(name, "inference", data, output, checkpoint=weights(output))
    images = flow.parser.get_parsed_content("images")
    written = sorted((output / "predictions").iterdir())
    assert len(written) == len(images) > 0
    for path in images:
        stem = Path(path).name.split(".")[0]
        (prediction,) = [file for file in written if file.name.startswith(f"{stem}_seg.")]
        if prediction.suffix == ".png":
            picture = Image.open(prediction)
            assert picture.size == Image.open(path).size and set(np.unique(picture)) <= {0, 255}
        else:
            image, label = nibabel.load(path), nibabel.load(prediction)
            assert label.shape == image.shape and label.get_data_dtype() == np.uint8
            np.testing.assert_allclose(label.affine, image.affine, atol=1e-4)
            assert int(np.max(label.dataobj)) < len(flow.parser.get_parsed_content("labels"))


def test_acdc_is_evaluated_on_its_testing_patients_when_told_to(tmp_path):
    name = "acdc_mri_segmentation"
    data = SMALL[name].write(tmp_path / "data")
    network = workflow(name, "inference", data, tmp_path).parser.get_parsed_content("network_def")
    torch.save(network.state_dict(), tmp_path / "model.pt")
    cases = "$acdc.datalist(@data_root, testing=True)"
    run(name, "train evaluate", data, tmp_path, cases=cases, checkpoint=str(tmp_path / "model.pt"))
    assert read_metric(tmp_path / "evaluation", "val_mean_dice")[0] == ["patient101_frame01", "patient101_frame09"]


@pytest.mark.parametrize("config", ["train", "inference"])
def test_has_the_properties_that_monai_requires(trained, config):
    name, data, output = trained
    flow = workflow(name, config, data, output, dataset_dir=str(data))
    flow.initialize()
    assert flow.check_properties() == []


def test_a_key_that_changes_nothing_is_an_error(trained):
    name, data, output = trained
    for config, key, words in (
        ("train", "learning_rat", "did you mean learning_rate?"),
        ("train", "train#bach", "the key train#bach changes nothing"),
        ("inference", "imagess", "did you mean images?"),
    ):
        flow = workflow(name, config, data, output, **{key: 1})
        with pytest.raises(RuntimeError) as caught:
            flow.initialize()
        assert words in str(caught.value.__cause__) and "\n" not in str(caught.value.__cause__)


def test_a_key_of_ones_own_that_something_refers_to_is_none(trained):
    name, data, output = trained
    flow = workflow(name, "train", data, output, my_rate=0.1, learning_rate="$@my_rate / 2")
    flow.initialize()
    assert flow.parser.get_parsed_content("optimizer").defaults["lr"] == 0.05


def test_the_segmentation_has_learnt_something(tmp_path):
    """The ellipsoid is brighter than what lies around it, and so is what is segmented."""
    data, name = SMALL["msd_spleen_ct_segmentation"].write(tmp_path / "data"), "msd_spleen_ct_segmentation"
    train(name, data, tmp_path / "output", epochs=6)
    run(name, "inference", data, tmp_path / "output", checkpoint=weights(tmp_path / "output"))
    image = nibabel.load(next((data / "imagesTs").iterdir()))
    values = np.asarray(nibabel.load(next((tmp_path / "output" / "predictions").iterdir())).dataobj)
    grey = np.asarray(image.dataobj)
    assert grey[values > 0].mean() > grey[values == 0].mean() + 50


@pytest.mark.slow
def test_a_compiled_network_trains_alike(tmp_path):
    """The same weights under the same names, so that either resumes what the other left."""
    data, name = SMALL["acdc_mri_segmentation"].write(tmp_path / "data"), "acdc_mri_segmentation"
    losses = {}
    for compiled in (False, True):
        output = tmp_path / str(compiled)
        flow = train(name, data, output, epochs=2, compile=compiled)
        losses[compiled] = flow.parser.get_parsed_content("train#trainer").state.output[0]["loss"]
    assert losses[True] == pytest.approx(losses[False], abs=1e-2)
    assert list(state(tmp_path / "True")["network"]) == list(state(tmp_path / "False")["network"])


@pytest.mark.parametrize(
    "name",
    [
        "acdc_mri_segmentation",
        "msd_hippocampus_mri_segmentation",
        pytest.param("btcv_ct_segmentation", marks=pytest.mark.slow),
    ],
)
def test_the_exported_networks_agree_with_eager(name, tmp_path):
    small, root = SMALL[name].overrides, ZOO / name
    flow = workflow(name, "inference", root, tmp_path, device="cpu")
    network = flow.parser.get_parsed_content("network_def").eval()
    checkpoint = tmp_path / "model.pt"
    torch.save(network.state_dict(), checkpoint)
    files = {
        "config_file": str(root / "configs" / "inference.json"),
        "meta_file": str(root / "configs" / "metadata.json"),
        "ckpt_file": str(checkpoint),
    }
    shape = [1, 1, *small["roi_size"]]
    exported = {"bundle_root": str(root), **small, "input_shape": shape}
    ckpt_export("network_def", str(tmp_path / "model.ts"), use_trace="btcv" in name, **files, **exported)
    converter = {"verify": True, "use_ort": True, "atol": 1e-4}
    onnx_export("network_def", str(tmp_path / "model.onnx"), converter_kwargs=converter, **files, **exported)
    image = torch.rand(shape)
    expected = network(image)
    torch.testing.assert_close(torch.jit.load(tmp_path / "model.ts")(image), expected, atol=1e-4, rtol=1e-4)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (got,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "name, folder", [("acdc_mri_segmentation", "ACDC"), ("msd_hippocampus_mri_segmentation", "Task04_Hippocampus")]
)
def test_a_short_epoch_on_real_data(name, folder, real_data, tmp_path):
    data = real_data / folder
    cases = {"acdc_mri_segmentation": "$acdc.datalist(@data_root)[:24]"}.get(
        name, "$msd.datalist(@data_root, folds=5)[:16]"
    )
    real = {"cases": cases, "spacing": [2, 2, 0] if "acdc" in name else [2, 2, 2]}
    train(name, data, tmp_path, epochs=1, **real)
    run(name, "train evaluate", data, tmp_path, checkpoint=weights(tmp_path), **real)
    names, dice = read_metric(tmp_path / "evaluation", "val_mean_dice")
    assert len(names) > 0 and np.isfinite(dice).all()
