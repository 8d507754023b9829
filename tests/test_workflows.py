"""Every bundle's workflows on a small task in the decathlon's layout, by MONAI's own entry points."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, onnx_export, verify_net_in_out

from tests.test_bundles import NAMES, ZOO
from xattnres_monai.report import read_dice

SMALL = {
    "spacing": [1.5, 1.5, 1.5],
    "roi_size": [16, 16, 16],
    "network_def#channels": [4, 8, 8, 16],
    "num_workers": 0,
    "val_interval": 1,
    "batch_size": 4,
    "learning_rate": 0.02,
}


def workflow(name: str, config: str | list[str], data: Path, output: Path, **overrides) -> ConfigWorkflow:
    root = ZOO / name
    files = [str(root / "configs" / f"{part}.json") for part in ([config] if isinstance(config, str) else config)]
    small = {
        key: value
        for key, value in SMALL.items()
        if config != "inference" or key not in ("val_interval", "batch_size", "learning_rate")
    }
    given = {"bundle_root": str(root), "data_root": str(data), "output_dir": str(output), **small, **overrides}
    return ConfigWorkflow(
        config_file=files,
        workflow_type="inference" if config == "inference" else "train",
        logging_file=str(root / "configs" / "logging.conf"),
        **given,
    )


def run(*arguments, **overrides) -> ConfigWorkflow:
    flow = workflow(*arguments, **overrides)
    flow.initialize()
    flow.run()
    return flow


def train(name: str, data: Path, output: Path, epochs: int, **overrides) -> ConfigWorkflow:
    return run(name, "train", data, output, **{"train#trainer#max_epochs": epochs, **overrides})


def state(output: Path) -> dict:
    return torch.load(output / "checkpoints" / "last.pt", weights_only=True)


@pytest.fixture(scope="module", params=NAMES)
def trained(request, decathlon, tmp_path_factory):
    """Name of a bundle and the output folder of a short training of it."""
    output = tmp_path_factory.mktemp("output")
    train(request.param, decathlon, output, epochs=4)
    return request.param, output


def test_training_learns_and_leaves_both_checkpoints(trained):
    _, output = trained
    assert sorted(path.name for path in (output / "checkpoints").iterdir()) == ["last.pt", "model.pt"]
    assert state(output)["trainer"]["epoch_length"] == 2
    assert state(output)["best_metric"] > 0.3
    weights = torch.load(output / "checkpoints" / "model.pt", weights_only=True)
    assert all(isinstance(tensor, torch.Tensor) for tensor in weights.values())
    assert any(key.startswith("xattnres.") for key in weights)


def test_evaluation_reports_the_best_dice_again_and_draws_every_case(trained, decathlon, capsys):
    name, output = trained
    run(name, ["train", "evaluate"], decathlon, output, checkpoint=str(output / "checkpoints" / "model.pt"))
    cases, dice = read_dice(output / "evaluation")
    assert dice.shape == (len(cases), 2)
    assert np.nanmean(dice) == pytest.approx(state(output)["best_metric"], abs=1e-4)
    pictures = {path.name for path in (output / "evaluation" / "overlays").iterdir()}
    assert pictures == {case.replace(".nii.gz", ".png") for case in cases}
    printed = capsys.readouterr().out
    assert f"{len(cases)} validation cases" in printed and f"{np.nanmean(dice[:, 0]):.3f} ±" in printed
    assert ("simulated" in printed) == (name == "mni152_mri_segmentation")


def test_inference_writes_the_label_on_the_grid_of_the_image(trained, decathlon):
    name, output = trained
    run(name, "inference", decathlon, output, checkpoint=str(output / "checkpoints" / "model.pt"))
    image = nibabel.load(next((decathlon / "imagesTs").iterdir()))
    label = nibabel.load(output / "predictions" / "ellipsoids_010_seg.nii.gz")
    assert label.shape == image.shape and label.get_data_dtype() == np.uint8
    np.testing.assert_allclose(label.affine, image.affine, atol=1e-5)
    values = np.asarray(label.dataobj)
    assert set(np.unique(values)) <= {0, 1, 2} and values.any()
    # the ellipsoid is brighter than what lies around it
    grey = np.asarray(image.dataobj)
    assert grey[values > 0].mean() > grey[values == 0].mean() + 30


def test_training_resumes_where_it_was(trained, decathlon, tmp_path, capsys):
    name, _ = trained
    train(name, decathlon, tmp_path, epochs=1)
    train(name, decathlon, tmp_path, epochs=2)
    assert "resumed after epoch 1 of 2" in capsys.readouterr().out
    assert state(tmp_path)["trainer"]["iteration"] == 4
    assert state(tmp_path)["optimizer"]["state"][0]["step"] == 4


def test_the_best_network_survives_a_resumed_run_that_only_gets_worse(trained, decathlon, tmp_path):
    name, _ = trained
    train(name, decathlon, tmp_path, epochs=3)
    best = state(tmp_path)["best_metric"], (tmp_path / "checkpoints" / "model.pt").read_bytes()
    # a wild learning rate from here on: no later epoch can be the best
    spoiled = state(tmp_path)
    for group in spoiled["optimizer"]["param_groups"]:
        group["lr"] = group["initial_lr"] = 1e6
    spoiled["lr_scheduler"]["base_lrs"] = [1e6]
    torch.save(spoiled, tmp_path / "checkpoints" / "last.pt")
    train(name, decathlon, tmp_path, epochs=5)
    assert (state(tmp_path)["best_metric"], (tmp_path / "checkpoints" / "model.pt").read_bytes()) == best


def test_a_finished_training_is_not_trained_again(trained, decathlon):
    name, output = trained
    before = (output / "checkpoints" / "model.pt").read_bytes()
    train(name, decathlon, output, epochs=4)
    assert (output / "checkpoints" / "model.pt").read_bytes() == before
    assert state(output)["trainer"]["iteration"] == 8


@pytest.mark.parametrize("change", [{}, {"network_def#xattnres": {"stages": "none"}}])
def test_a_checkpoint_of_another_run_is_kept_and_the_run_starts_anew(trained, decathlon, tmp_path, capsys, change):
    name, output = trained
    shutil.copytree(output / "checkpoints", tmp_path / "checkpoints")
    kept = sorted(path.read_bytes() for path in (output / "checkpoints").iterdir())
    train(name, decathlon, tmp_path, epochs=1, **change)
    assert "kept as last-" in capsys.readouterr().out
    files = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert len(files) == 4 and {"last.pt", "model.pt"} < files
    aside = [tmp_path / "checkpoints" / file for file in files - {"last.pt", "model.pt"}]
    assert sorted(path.read_bytes() for path in aside) == kept
    assert state(tmp_path)["trainer"]["iteration"] == 2


def test_an_image_with_nan_is_named(trained, decathlon, tmp_path):
    name, output = trained
    image = nibabel.load(next((decathlon / "imagesTs").iterdir()))
    grey = np.asarray(image.dataobj, dtype=np.float32)
    grey[3, 3, 3] = np.nan
    broken = tmp_path / "broken.nii.gz"
    nibabel.save(nibabel.Nifti1Image(grey, image.affine), broken)
    with pytest.raises(RuntimeError) as caught:
        run(
            name,
            "inference",
            decathlon,
            tmp_path,
            images=[str(broken)],
            checkpoint=str(output / "checkpoints" / "model.pt"),
        )
    error: BaseException | None = caught.value
    messages = []
    while error:
        messages.append(str(error))
        error = error.__cause__
    assert any(message.startswith(f"{broken} has 1 voxels that are NaN") for message in messages)
    assert not (tmp_path / "predictions").exists()


def test_the_exported_networks_agree_with_eager(trained, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    name, output = trained
    checkpoint, root = str(output / "checkpoints" / "model.pt"), ZOO / name
    files = {
        "config_file": str(root / "configs" / "inference.json"),
        "meta_file": str(root / "configs" / "metadata.json"),
    }
    overrides = {"bundle_root": str(root), "network_def#channels": SMALL["network_def#channels"]}
    ckpt_export("network_def", str(tmp_path / "model.ts"), ckpt_file=checkpoint, **files, **overrides)
    onnx_export(
        "network_def", str(tmp_path / "model.onnx"), ckpt_file=checkpoint, input_shape=[1, 1, 32, 32, 32],
        converter_kwargs={"verify": True, "use_ort": True, "atol": 1e-4}, **files, **overrides,
    )  # fmt: skip
    flow = workflow(name, "inference", root, tmp_path, device="cpu")
    network = flow.parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    image = torch.rand(1, 1, 32, 32, 32)
    expected = network(image)
    torch.testing.assert_close(torch.jit.load(tmp_path / "model.ts")(image), expected, atol=1e-4, rtol=1e-4)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (got,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_metadata_describes_what_the_network_takes_and_gives(name):
    root = ZOO / name / "configs"
    verify_net_in_out("network_def", meta_file=str(root / "metadata.json"), config_file=str(root / "inference.json"))


@pytest.mark.parametrize("config", ["train", "inference"])
@pytest.mark.parametrize("name", NAMES)
def test_has_the_properties_that_monai_requires(name, config, decathlon, tmp_path):
    flow = workflow(name, config, decathlon, tmp_path, dataset_dir=str(decathlon))
    flow.initialize()
    assert flow.check_properties() == []


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_from_another_folder(name, decathlon, tmp_path):
    configs = ZOO / name / "configs"
    options = {
        "--bundle_root": ZOO / name,
        "--data_root": decathlon,
        "--output_dir": tmp_path,
        **{f"--{k}": v for k, v in SMALL.items()},
    }
    options["--network_def#xattnres"] = {"stages": "none"}

    def call(config_file, **more):
        given = {**options, **more, "--config_file": config_file}
        arguments = [str(part) for option in given.items() for part in option]
        command = [sys.executable, "-m", "monai.bundle", "run", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    call(configs / "train.json", **{"--train#trainer#max_epochs": 1})
    checkpoint = tmp_path / "checkpoints" / "model.pt"
    assert not any(key.startswith("xattnres.") for key in torch.load(checkpoint, weights_only=True))
    printed = call([str(configs / "train.json"), str(configs / "evaluate.json")], **{"--checkpoint": checkpoint})
    assert "| network" in printed
