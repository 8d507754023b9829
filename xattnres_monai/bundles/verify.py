"""The checks of the model zoo and of what consumers of a bundle rely on; MONAI's own functions where it has them."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ckpt_export, verify_metadata, verify_net_in_out
from monai.networks.nets import SwinUNETR

from xattnres_monai.bundles import published_weights
from xattnres_monai.bundles.expressions import outside
from xattnres_monai.bundles.packing import MADE
from xattnres_monai.bundles.workflows import workflow
from xattnres_monai.utils.checkpoint_files import read_checkpoint

__all__ = ["verify"]

NECESSARY = (
    *(f"configs/{name}" for name in ("metadata.json", "train.json", "evaluate.json", "inference.json", "logging.conf")),
    *("docs/README.md", "docs/data_license.txt", "LICENSE"),
)
LARGEST = 25e6  # bytes; what the model zoo takes in a repository


def verify(bundle: str | Path, schema: str | Path = "", trust: Sequence[str] = ()) -> list[tuple[str, bool, str]]:
    """Check a bundle. What its configs say is run only where all of it is on the list of :mod:`.expressions`.

    Args:
        bundle: its folder.
        schema: file of MONAI's schema of metadata; by default the one that the metadata name is downloaded.
        trust: names that count as listed, as for :func:`.expressions.outside`.

    Returns:
        For each check its name, whether it passed, and what was found or is wrong. Those that would run the configs are
        left out when ``expressions`` fails.

    Raises:
        FileNotFoundError: when there is no such folder.
    """
    if not Path(bundle).is_dir():
        raise FileNotFoundError(f"got no folder {bundle}, expected that of a bundle")
    checks: dict[str, Callable[[Path], str]] = {
        "files": _files,
        "version": _version,
        "metadata": lambda root: _metadata(root, schema),
        "expressions": lambda root: _expressions(root, trust),
        "properties": _properties,
        "network": _network,
        "weights": _weights,
        "TorchScript": _torchscript,
    }
    found = []
    logging.disable(logging.WARNING)  # MONAI's functions tell at length what they do
    try:
        for name, check in checks.items():
            try:
                found.append((name, True, check(Path(bundle))))
            except Exception as error:  # a fault of a bundle can be any error of what it configures
                found.append((name, False, " ".join(str(error.__cause__ or error).split())))
                if name == "expressions":
                    break  # the checks that follow run what the configs say
    finally:
        logging.disable(logging.NOTSET)
    return found


def _files(root: Path) -> str:
    absent = [name for name in NECESSARY if not (root / name).is_file()]
    if absent:
        raise FileNotFoundError(f"no {', '.join(absent)}, expected every file of a bundle; render it")
    files = [path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0] not in MADE]
    largest = max(files, key=lambda path: path.stat().st_size)
    size = largest.stat().st_size
    if size > LARGEST:
        raise ValueError(
            f"{largest.relative_to(root)} has {size / 1e6:.1f} MB, expected at most {LARGEST / 1e6:.0f} MB"
        )
    return f"{len(files)}, the largest {largest.relative_to(root)} of {size / 1e6:.2f} MB"


def _version(root: Path) -> str:
    metadata = _json(root, "metadata")
    if metadata["version"] not in metadata["changelog"]:
        raise ValueError(
            f"got version {metadata['version']}, expected one of the changelog's: {[*metadata['changelog']]}"
        )
    return f"{metadata['version']}, in the changelog"


def _metadata(root: Path, schema: str | Path) -> str:
    path = root / "configs" / "metadata.json"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(schema) if schema else Path(folder) / "schema.json"
        if schema and not file.is_file():
            raise FileNotFoundError(f"got no file {file}, expected the schema")
        try:
            verify_metadata(meta_file=str(path), filepath=str(file), create_dir=False)
        except OSError as error:
            raise OSError(f"the schema cannot be downloaded ({error}); give the file with --schema") from None
    return "valid"


def _expressions(root: Path, trust: Sequence[str]) -> str:
    if found := outside(root, trust):
        raise ValueError(
            f"{len(found)} outside the list, so that nothing of the bundle was run: {'; '.join(found)}; read them, and "
            "give what you trust with --trust"
        )
    return "all on the list"


def _properties(root: Path) -> str:
    """Ids that MONAI requires of workflows; without data, of which there is none here, and without weights."""
    case = [{"image": "", "label": "", "fold": fold, "case_id": "", "patient_id": ""} for fold in (0, -1)]
    given: dict[str, dict[str, Any]] = {
        "train": {"cases": case, "cache_rate": 0.0},
        "train evaluate": {"cases": case, "cache_rate": 0.0, "checkpoint": ""},
        "inference": {"images": [""], "checkpoint": ""},
    }
    for configs, overrides in given.items():
        with tempfile.TemporaryDirectory() as output:  # handlers open their logs
            flow = workflow(root, configs.split(), num_workers=0, output_dir=output, **overrides)
            flow.initialize()
            wrong = flow.check_properties()
        if wrong:
            raise ValueError(f"{configs}: wrong or not referred to are {', '.join(wrong)}")
    return f"those of {', '.join(given)}"


def _network(root: Path) -> str:
    configs = root / "configs"
    verify_net_in_out(
        "network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
    )
    data = _json(root, "metadata")["network_data_format"]
    image, prediction = data["inputs"]["image"], data["outputs"]["pred"]
    return f"{image['num_channels']} channel to {prediction['num_channels']}, at {image['spatial_shape']}"


def _weights(root: Path) -> str:
    path = root / "models" / "model.pt"
    stated = _json(root, "metadata").get("weights", {}).get("sha256")
    if not path.exists() and stated is None:
        return "none published"
    if not path.exists():
        raise FileNotFoundError(f"no models/model.pt, expected the weights that the metadata state ({stated})")
    if stated is None:
        raise ValueError("the metadata state no SHA-256 of models/model.pt, expected it; render")
    published_weights.checked(root)
    _built(root).load_state_dict(read_checkpoint(path), strict=True)
    return f"fit the network, SHA-256 {stated[:12]}…"


def _torchscript(root: Path) -> str:
    network = _built(root)
    traces = isinstance(network, SwinUNETR)  # it can only be traced
    shape = _json(root, "metadata")["network_data_format"]["inputs"]["image"]["spatial_shape"]
    image = torch.rand(1, 1, *shape)
    with tempfile.TemporaryDirectory() as folder:
        weights, exported = Path(folder) / "model.pt", Path(folder) / "model.ts"
        torch.save(network.state_dict(), weights)
        ckpt_export(
            "network_def",
            filepath=str(exported),
            ckpt_file=str(weights),
            meta_file=str(root / "configs" / "metadata.json"),
            config_file=str(root / "configs" / "inference.json"),
            use_trace=traces,
            input_shape=list(image.shape),
        )
        with torch.no_grad():
            expected, got = network(image), torch.jit.load(exported)(image)
    difference = (got - expected).abs().max().item() / expected.abs().max().item()
    if difference > 1e-3:
        raise ValueError(
            f"the exported network differs by {difference:.1e} of the largest logit, expected 1e-3 at most"
        )
    return f"{'traced' if traces else 'scripted'}, differs by {difference:.0e} of the largest logit"


def _json(root: Path, name: str) -> Any:
    return json.loads((root / "configs" / f"{name}.json").read_text())


def _built(root: Path) -> torch.nn.Module:
    torch.manual_seed(0)
    config = ConfigParser.load_config_file(root / "configs" / "inference.json")
    network: torch.nn.Module = ConfigParser(config).get_parsed_content("network_def")
    return network.eval()
