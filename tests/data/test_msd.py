from __future__ import annotations

import functools
import hashlib
import http.server
import tarfile
import threading

import pytest
from monai.apps import DecathlonDataset, download_and_extract

from xattnres_monai.data.readers import msd
from xattnres_monai.data.readers.msd import datalist, download


def test_reads_the_published_layout(decathlon):
    cases = datalist(decathlon, folds=5)
    assert [case["case_id"] for case in cases] == [f"ellipsoids_{number:03d}" for number in range(10)]
    assert cases[0]["image"] == str(decathlon / "imagesTr" / "ellipsoids_000.nii.gz")
    assert {case["fold"] for case in cases} == set(range(5))


@pytest.fixture
def served(decathlon, tmp_path, monkeypatch):
    """The decathlon's tables of resources, pointed at an archive that a server on this machine serves."""
    archive = tmp_path / "served" / "Task99_Ellipsoids.tar"
    archive.parent.mkdir()
    with tarfile.open(archive, "w") as tar:
        tar.add(decathlon, arcname="Task99_Ellipsoids")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(archive.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setitem(DecathlonDataset.resource, "Task99_Ellipsoids", url + archive.name)
        monkeypatch.setitem(DecathlonDataset.md5, "Task99_Ellipsoids", hashlib.md5(archive.read_bytes()).hexdigest())
        yield url
        server.shutdown()


def test_downloads_what_is_missing_once(served, tmp_path, monkeypatch):
    target = tmp_path / "data" / "hippocampus"
    assert datalist(download(target, "Task99_Ellipsoids"))
    monkeypatch.setitem(DecathlonDataset.resource, "Task99_Ellipsoids", served + "none.tar")
    assert download(target, "Task99_Ellipsoids") == target
    assert [path.name for path in target.parent.iterdir()] == ["hippocampus"]


def test_of_two_processes_that_download_at_once_the_first_wins(served, tmp_path, monkeypatch):
    target = tmp_path / "data" / "task"

    def overtaken(*args, **kwargs):
        download_and_extract(*args, **kwargs)
        (target / "imagesTr").mkdir(parents=True)

    monkeypatch.setattr(msd, "download_and_extract", overtaken)
    assert download(target, "Task99_Ellipsoids") == target
    assert [path.name for path in target.parent.iterdir()] == ["task"]
    assert [path.name for path in target.iterdir()] == ["imagesTr"]


def test_a_description_of_another_kind(tmp_path):
    (tmp_path / "dataset.json").write_text('{"numTraining": 3, "file_ending": ".nii.gz"}')
    with pytest.raises(ValueError, match="training"):
        datalist(tmp_path)


@pytest.mark.parametrize("table, value", [("md5", "0" * 32), ("resource", "http://127.0.0.1:9/Task99_Ellipsoids.tar")])
def test_a_download_that_fails_leaves_nothing_behind(served, tmp_path, monkeypatch, table, value):
    monkeypatch.setitem(getattr(DecathlonDataset, table), "Task99_Ellipsoids", value)
    target = tmp_path / "data" / "task"
    with pytest.raises(RuntimeError, match=r"could not be downloaded from .*; download it by other means") as caught:
        download(target, "Task99_Ellipsoids")
    assert "\n" not in str(caught.value)
    assert not list(target.parent.iterdir())


def member(name, **kind):
    entry = tarfile.TarInfo(name)
    for key, value in kind.items():
        setattr(entry, key, value)
    return entry


HOSTILE = {
    "above the folder": lambda outside: [member("../outside")],
    "above the folder by a detour": lambda outside: [member("Task99_Ellipsoids/../../outside")],
    "an absolute path": lambda outside: [member(str(outside))],
    "through a link": lambda outside: [
        member("away", type=tarfile.SYMTYPE, linkname=str(outside.parent)),
        member("away/outside"),
    ],
    "a hard link": lambda outside: [member("outside", type=tarfile.LNKTYPE, linkname="../outside")],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_an_archive_that_leads_outside_its_folder_is_refused(served, tmp_path, monkeypatch, members):
    archive = tmp_path / "served" / "Task99_Ellipsoids.tar"
    target = tmp_path / "data" / "task"
    with tarfile.open(archive, "a") as tar:  # after the members of the data set, which are unpacked by then
        for entry in members(tmp_path / "data" / "outside"):
            tar.addfile(entry)
    monkeypatch.setitem(DecathlonDataset.md5, "Task99_Ellipsoids", hashlib.md5(archive.read_bytes()).hexdigest())
    with pytest.raises(RuntimeError, match=r"could not be downloaded from .*/Task99_Ellipsoids\.tar") as caught:
        download(target, "Task99_Ellipsoids")
    assert "\n" not in str(caught.value)
    assert not list(target.parent.iterdir())


def test_real_hippocampus(real_data):
    cases = datalist(real_data / "Task04_Hippocampus")
    assert len(cases) == 208
