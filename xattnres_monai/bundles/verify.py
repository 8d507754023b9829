"""Check a bundle as MONAI's model zoo does, and check what its users rely on.

MONAI's own functions do the checks wherever MONAI has one.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ckpt_export, verify_metadata, verify_net_in_out
from monai.networks.nets import UNETR, SwinUNETR

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
LARGEST = 25e6  # bytes; the model zoo accepts no larger file in its repository


def verify(bundle: str | Path, schema: str | Path = "", trust: Sequence[str] = ()) -> list[tuple[str, bool, str]]:
    """Check a bundle. Its configs are run only if all their code is on the allow list of :mod:`.allow_list`.

    Args:
        bundle: the bundle's folder.
        schema: file of MONAI's metadata schema; by default, the schema that the metadata name is downloaded.
        trust: further names to allow, as for :func:`.expressions.outside`.

    Returns:
        For each check, its name, whether it passed, and what it found or what is wrong. If the check ``expressions``
        fails, the later checks are left out, because they would run the configs.

    Raises:
        FileNotFoundError: when the folder does not exist.
    """
    if not Path(bundle).is_dir():
        raise FileNotFoundError(f"got {bundle}, which is no folder, expected a bundle's folder; check the path")
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
    logging.disable(logging.WARNING)  # MONAI's functions log every step
    try:
        for name, check in checks.items():
            try:
                found.append((name, True, check(Path(bundle))))
            except Exception as error:  # a broken config can raise any kind of error
                found.append((name, False, " ".join(str(error.__cause__ or error).split())))
                if name == "expressions":
                    break  # the later checks run the configs
    finally:
        logging.disable(logging.NOTSET)
    return found


def _files(root: Path) -> str:
    absent = [name for name in NECESSARY if not (root / name).is_file()]
    if absent:
        raise FileNotFoundError(
            f"no {', '.join(absent)}, expected every file of a bundle; render the bundle, and write the files of docs"
        )
    files = [path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0] not in MADE]
    largest = max(files, key=lambda path: path.stat().st_size)
    size = largest.stat().st_size
    if size > LARGEST:
        raise ValueError(
            f"{largest.relative_to(root)} has {size / 1e6:.1f} MB, expected at most {LARGEST / 1e6:.0f} MB; "
            "remove it or make it smaller"
        )
    return f"{len(files)}; the largest is {largest.relative_to(root)} with {size / 1e6:.2f} MB"


def _version(root: Path) -> str:
    metadata = _json(root, "metadata")
    if metadata["version"] not in metadata["changelog"]:
        raise ValueError(
            f"got version {metadata['version']}, expected one of the changelog: {[*metadata['changelog']]}; "
            "add an entry to the changelog"
        )
    return f"{metadata['version']}, in the changelog"


def _metadata(root: Path, schema: str | Path) -> str:
    path = root / "configs" / "metadata.json"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(schema) if schema else Path(folder) / "schema.json"
        if schema and not file.is_file():
            raise FileNotFoundError(f"got no file {file}, expected the schema; check the path after --schema")
        try:
            verify_metadata(meta_file=str(path), filepath=str(file), create_dir=False)
        except OSError as error:
            raise OSError(
                f"the schema cannot be downloaded ({error}); download it yourself and give the file with --schema"
            ) from None
    return "valid"


def _expressions(root: Path, trust: Sequence[str]) -> str:
    if found := outside(root, trust):
        raise ValueError(
            f"{len(found)} entries are not on the allow list, so the bundle was not run: {'; '.join(found)}; "
            "read them, and name what you trust with --trust"
        )
    return "all on the allow list"


def _properties(root: Path) -> str:
    """Check that the configs define the ids that MONAI requires. This needs neither data nor weights."""
    case = [{"image": "", "label": "", "fold": fold, "case_id": "", "patient_id": ""} for fold in (0, -1)]
    given: dict[str, dict[str, Any]] = {
        "train": {"cases": case, "cache_rate": 0.0},
        "train evaluate": {"cases": case, "cache_rate": 0.0, "checkpoint": ""},
        "inference": {"images": [""], "checkpoint": ""},
    }
    for configs, overrides in given.items():
        with tempfile.TemporaryDirectory() as output:  # handlers open log files there
            flow = workflow(root, configs.split(), num_workers=0, output_dir=output, **overrides)
            flow.initialize()
            wrong = flow.check_properties()
        if wrong:
            raise ValueError(
                f"{configs}: MONAI does not find {', '.join(wrong)}, expected them under MONAI's ids; define them "
                "and refer to them by these ids"
            )
    return f"complete for {', '.join(given)}"


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
        raise FileNotFoundError(
            f"no models/model.pt, expected the weights with SHA-256 {stated} from the metadata; restore the file"
        )
    if stated is None:
        raise ValueError("the metadata state no SHA-256 of models/model.pt, expected one; render the bundle")
    published_weights.checked(root)
    _built(root).load_state_dict(read_checkpoint(path), strict=True)
    return f"match the network, SHA-256 {stated[:12]}…"


def _torchscript(root: Path) -> str:
    network = _built(root)
    traces = isinstance(network, (SwinUNETR, UNETR))  # these cannot be scripted
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
            f"the exported network's output differs by {difference:.1e} of the largest logit, expected at most 1e-3; "
            "check that the network can be scripted or traced"
        )
    return f"{'traced' if traces else 'scripted'}, output differs by {difference:.0e} of the largest logit"


def _json(root: Path, name: str) -> Any:
    return json.loads((root / "configs" / f"{name}.json").read_text())


def _built(root: Path) -> torch.nn.Module:
    torch.manual_seed(0)
    config = ConfigParser.load_config_file(root / "configs" / "inference.json")
    network: torch.nn.Module = ConfigParser(config).get_parsed_content("network_def")
    return network.eval()
