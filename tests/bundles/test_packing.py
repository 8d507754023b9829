"""A packed bundle is whole: downloaded and unpacked by MONAI, it infers, with or without this package installed."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sysconfig
import venv
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import download, load

import xattnres_monai
from tests.bundles.runs import SMALL, ZOO
from xattnres_monai import XAttnResUNet
from xattnres_monai.bundles.command import Bundles
from xattnres_monai.bundles.packing import pack

NAME = "mni152_mri_segmentation"  # small, with weights


@pytest.fixture
def served(tmp_path):
    """A folder and the address at which a server of this machine offers it."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_monai_downloads_and_loads_it(served, tmp_path):
    folder, address = served
    Bundles().pack(NAME, str(folder))
    (archive,) = folder.iterdir()
    assert archive.name == f"{NAME}_v0.1.0.zip"
    download(NAME, url=f"{address}/{archive.name}", bundle_dir=str(tmp_path / "bundles"), progress=False)
    unpacked = tmp_path / "bundles" / NAME
    assert not [path for path in unpacked.rglob("*") if path.name in ("output", "bundle.yaml", "xattnres_monai")]
    network = load(NAME, bundle_dir=str(tmp_path / "bundles"), source="github")
    published = torch.load(ZOO / NAME / "models" / "model.pt", weights_only=True)
    assert isinstance(network, XAttnResUNet)
    assert all(torch.equal(value, published[name]) for name, value in network.state_dict().items())


def test_monai_unpacks_no_archive_that_leads_outside_its_folder(served, tmp_path):
    folder, address = served
    path = pack(ZOO / NAME, folder)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../outside", "")
    with pytest.raises(ValueError, match="outside"):
        download(NAME, url=f"{address}/{path.name}", bundle_dir=str(tmp_path / "bundles"), progress=False)
    assert not list(tmp_path.rglob("outside"))


def lend_packages(python: Path) -> None:
    """Every package of this environment but those installed as editable."""
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))


def install_packages(python: Path) -> None:
    """What the metadata name, and no more."""
    metadata = json.loads((ZOO / NAME / "configs" / "metadata.json").read_text())
    versions = {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"]}
    versions |= {"numpy": metadata["numpy_version"], **metadata["required_packages_version"]}
    del versions["xattnres-monai"]
    pins = [f"{name}=={version}" for name, version in versions.items()]
    constraints = ["-c", ZOO.parent / "constraints.txt"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *constraints, *pins], check=True)


@pytest.mark.parametrize("provide", [lend_packages, pytest.param(install_packages, marks=pytest.mark.slow)])
def test_a_vendored_one_infers_where_the_package_is_not_installed(tmp_path, provide):
    shutil.unpack_archive(pack(ZOO / NAME, tmp_path, vendor=True), tmp_path / "elsewhere")
    bundle = tmp_path / "elsewhere" / NAME
    venv.create(tmp_path / "venv", symlinks=True, with_pip=provide is install_packages)
    python = tmp_path / "venv" / "bin" / "python"
    provide(python)
    absent = subprocess.run([python, "-c", "import xattnres_monai"], cwd=tmp_path, capture_output=True, check=False)
    assert b"No module named 'xattnres_monai'" in absent.stderr
    image = SMALL[NAME].write(tmp_path / "data") / "imagesTs" / "ellipsoids_010.nii.gz"
    command = [python, "-m", "monai.bundle", "run", "--bundle_root", ".", "--config_file", "configs/inference.json"]
    given = ["--images", f"['{image}']", "--num_workers", "0"]
    run = subprocess.run([*command, *given], cwd=bundle, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    (path,) = (bundle / "output").rglob("*_seg.nii.gz")
    prediction = nibabel.load(path)
    np.testing.assert_allclose(prediction.affine, nibabel.load(image).affine, atol=1e-4)
    assert len(np.unique(np.asarray(prediction.dataobj))) > 1


def test_an_archive_holds_the_whole_package_also_when_it_is_packed_again(tmp_path):
    package = Path(xattnres_monai.__file__).parent
    modules = {f"{NAME}/{path.relative_to(package.parent).as_posix()}" for path in package.rglob("*.py")}
    first = pack(ZOO / NAME, tmp_path / "first", vendor=True)
    shutil.unpack_archive(first, tmp_path / "unpacked")
    second = pack(tmp_path / "unpacked" / NAME, tmp_path / "second")
    for archive in (first, second):
        assert {name for name in zipfile.ZipFile(archive).namelist() if name.endswith(".py")} == modules


def test_an_archive_does_not_go_into_the_bundle(tmp_path, monkeypatch):
    root = shutil.copytree(ZOO / "msd_spleen_ct_segmentation" / "configs", tmp_path / "spleen" / "configs").parent
    monkeypatch.chdir(root)
    with pytest.raises(ValueError, match=r"got the output folder . inside the bundle .*; give another with --output"):
        Bundles().pack(".")
    assert [path.name for path in root.iterdir()] == ["configs"]


def test_a_folder_that_is_no_bundle(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no configs/metadata.json in .*, expected a bundle's folder"):
        Bundles().pack(str(tmp_path), str(tmp_path))
