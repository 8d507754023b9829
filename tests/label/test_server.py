"""The real MONAI Label server on 127.0.0.1, with the zoo's pretrained bundles and a transformer (`make test-label`)."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import requests
import torch
from scipy.spatial.transform import Rotation

from tests.bundles.runs import SWIN_UNETR, ZOO
from tests.data.layouts import write_nifti
from xattnres_monai.bundles import published_weights
from xattnres_monai.bundles.packing import pack
from xattnres_monai.bundles.workflows import workflow

pytestmark = pytest.mark.label

LABEL = Path(os.environ.get("XATTNRES_LABEL_VENV", ZOO.parent / ".venv-label"))
PRETRAINED = sorted(path.parents[1].name for path in ZOO.glob("*/models/model.pt"))
TRANSFORMER = "btcv_ct_segmentation"
BUNDLES = [*PRETRAINED, TRANSFORMER]
# not the program monailabel, a shell script that loses blanks in its arguments
MONAILABEL = [LABEL / "bin" / "python", "-m", "monailabel.main"]
# 1.2 × 1 × 2.5 mm, turned by 0.3 about the third axis and by 0.2 about the first
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("ZX", (0.3, 0.2)).as_matrix() @ np.diag([-1.2, 1.0, 2.5])
OBLIQUE[:3, 3] = (30, -20, 10)


def small_transformer(root: Path) -> None:
    """The bundle with a SwinUNETR of a size that a CPU runs in seconds, and with random weights."""
    for name in ("inference", "train"):
        path = root / "configs" / f"{name}.json"
        config = json.loads(path.read_text())
        config["roi_size"] = SWIN_UNETR["roi_size"]
        config["network_def"].update({key.split("#")[1]: value for key, value in SWIN_UNETR.items() if "#" in key})
        path.write_text(json.dumps(config))
    flow = workflow(root, ["inference"])
    torch.manual_seed(0)
    (root / "models").mkdir(exist_ok=True)
    torch.save(flow.parser.get_parsed_content("network_def").state_dict(), root / "models" / "model.pt")


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """The monaibundle app with copies of the bundles as local models."""
    assert LABEL.is_dir(), f"no {LABEL}, expected MONAI Label in a venv of its own; run make test-label"
    folder = tmp_path_factory.mktemp("apps")
    subprocess.run([*MONAILABEL, "apps", "--download", "--name", "monaibundle", "--output", folder], check=True)
    for name in BUNDLES:
        shutil.unpack_archive(pack(ZOO / name, folder), folder / "monaibundle" / "model")
    small_transformer(folder / "monaibundle" / "model" / TRANSFORMER)
    return folder / "monaibundle"


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Three images with bright ellipsoids, anisotropic and oblique; two of them have a label."""
    folder = tmp_path_factory.mktemp("studies of mine")
    for number in range(3):
        label = folder / "labels" / "final" / f"case{number}.nii.gz" if number else None
        write_nifti(folder / f"case{number}.nii.gz", label, 2, number, (44, 52, 20), OBLIQUE)
    return folder


@pytest.fixture(scope="module")
def server(app, studies, tmp_path_factory):
    """Address of the running server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    conf = {"models": ",".join(BUNDLES), "zoo_source": "local", "sam2": "false", "epistemic_model": PRETRAINED[0]}
    given = [part for key, value in conf.items() for part in ("--conf", key, value)]
    command = [*MONAILABEL, "start_server", "--app", app, "--studies", studies, "--host", "127.0.0.1"]
    log = tmp_path_factory.mktemp("log") / "server.log"
    with log.open("w") as file:
        process = subprocess.Popen([*command, "--port", str(port), *given], stdout=file, stderr=file, cwd=log.parent)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert process.poll() is None, log.read_text()[-3000:]
            try:
                requests.get(f"{address}/info/", timeout=30)
                break
            except requests.ConnectionError:
                time.sleep(0.5)
        else:
            raise TimeoutError(log.read_text()[-3000:])
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)
        print(log.read_text()[-6000:])


def infer(server: str, name: str, image: str, folder: Path) -> nibabel.Nifti1Image:
    params = json.dumps({"result_dtype": "uint8", "device": "cpu"})
    answer = requests.post(
        f"{server}/infer/{name}?image={image}&output=image", files={"params": (None, params)}, timeout=300
    )
    assert answer.ok, answer.text
    path = folder / f"{name}_{image}.nii.gz"
    path.write_bytes(answer.content)
    return nibabel.load(path)


def wait(server: str, task: str) -> None:
    """Until the last background task of a kind is done."""
    status, end = "SUBMITTED", time.monotonic() + 300
    while status in ("RUNNING", "SUBMITTED"):
        assert time.monotonic() < end, status
        time.sleep(1)
        last = requests.get(f"{server}/{task}/", timeout=30).json()
        status = last["status"]
    print(task, *last["details"], sep="\n")
    assert status == "DONE"


def test_the_server_knows_the_bundles(server):
    info = requests.get(f"{server}/info/", timeout=30).json()
    print(json.dumps({name: info["models"][name] for name in BUNDLES}, indent=1)[:3000])
    assert set(info["models"]) == set(info["trainers"]) == set(BUNDLES)
    assert info["models"]["mni152_mri_segmentation"]["labels"] == {"grey matter": 1, "white matter": 2}
    assert {model["type"] for model in info["models"].values()} == {"segmentation"}


@pytest.mark.parametrize("name", BUNDLES)
def test_a_label_is_that_of_the_bundles_own_inference(server, app, studies, tmp_path, name):
    image = nibabel.load(studies / "case0.nii.gz")
    label = infer(server, name, "case0", tmp_path)
    assert label.shape == image.shape
    np.testing.assert_allclose(label.affine, image.affine, atol=1e-3)
    given = {"images": [str(studies / "case0.nii.gz")], "output_dir": str(tmp_path), "num_workers": 0, "device": "cpu"}
    flow = workflow(app / "model" / name, ["inference"], **given)
    flow.initialize()
    flow.run()
    (path,) = (tmp_path / "predictions").glob("*.nii.gz")
    got, expected = (np.asarray(volume.dataobj) for volume in (label, nibabel.load(path)))
    print(name, "voxels of each label:", dict(zip(*np.unique(got, return_counts=True))))
    for value in np.unique(expected):
        one, other = got == value, expected == value
        assert 2 * (one & other).sum() > 0.99 * (one.sum() + other.sum())
    assert len(np.unique(expected)) > 1


def test_training_changes_the_labels(server, app, tmp_path):
    name = PRETRAINED[0]
    weights = app / "model" / name / "models" / "model.pt"
    before, label = weights.read_bytes(), np.asarray(infer(server, name, "case0", tmp_path).dataobj)
    params = {"device": "cpu", "max_epochs": 1, "val_split": 0.5, "multi_gpu": False, "tracking": "None"}
    for _ in range(2):  # again: a new training, not the old one resumed
        assert requests.post(f"{server}/train/{name}", json=params, timeout=60).ok
        wait(server, "train")
        after = weights.read_bytes()
        assert after != before
        assert published_weights.checked(app / "model" / name) == str(weights)  # the sum in the metadata followed
        before = after
    assert not np.array_equal(np.asarray(infer(server, name, "case0", tmp_path).dataobj), label)


def test_batch_inference_and_epistemic_scores(server, studies):
    name = PRETRAINED[0]
    params = {"device": "cpu", "multi_gpu": False, "label_tag": "original"}
    answer = requests.post(f"{server}/batch/infer/{name}?images=unlabeled&run_sync=true", json=params, timeout=300)
    assert answer.ok, answer.text
    assert [path.name for path in (studies / "labels" / "original").iterdir()] == ["case0.nii.gz"]
    requests.post(f"{server}/scoring/{name}", json={"device": "cpu"}, timeout=60)  # or it runs, as it does by itself
    wait(server, "scoring")
    records = json.loads((studies / "datastore_v2.json").read_text())["objects"]
    # of label numbers, not of probabilities: MONAI Label's score of more than one label can be negative
    assert re.findall(r'"epistemic_entropy": (-?[0-9.e-]+)', json.dumps(records))
