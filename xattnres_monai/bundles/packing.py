"""Pack a bundle into one zip archive, the form that ``monai.bundle.download`` and the Hugging Face Hub distribute."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

__all__ = ["MADE", "pack"]

MADE = ("output", "data")  # folders that runs create in a bundle
PACKAGE = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*")  # everywhere
LEFT_OUT_OF_BUNDLES = shutil.ignore_patterns(*MADE, "bundle.yaml")  # in the bundle's own folder, not below it


def pack(bundle: str | Path, output: str | Path, vendor: bool = False) -> Path:
    """Write ``<name>_v<version>.zip``, which contains the bundle's folder.

    Args:
        bundle: the bundle's folder.
        output: folder for the archive.
        vendor: put a copy of this package into the bundle. The bundle then needs only MONAI and the other packages that
            its metadata name, if it runs from its own folder or with that folder in ``PYTHONPATH``.

    Returns:
        The path of the archive.

    Raises:
        FileNotFoundError: when the folder is not a bundle.
        ValueError: when the archive would lie inside the bundle.
    """
    root = Path(bundle).resolve()
    if not (root / "configs" / "metadata.json").is_file():
        raise FileNotFoundError(
            f"no configs/metadata.json in {bundle}, expected a bundle's folder; check the path, or render the bundle"
        )
    folder = Path(output)
    if folder.resolve().is_relative_to(root):
        raise ValueError(
            f"got the output folder {folder} inside the bundle {root}, expected one outside; give another with --output"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        copy = Path(shutil.copytree(root, Path(temporary) / root.name, ignore=_left_out))
        path = copy / "configs" / "metadata.json"
        metadata = json.loads(path.read_text())
        if vendor:
            shutil.copytree(PACKAGE, copy / PACKAGE.name, ignore=LEFT_OUT)
            metadata["required_packages_version"].pop("xattnres-monai", None)
            path.write_text(json.dumps(metadata, indent=4) + "\n")
        name = f"{root.name}_v{metadata['version']}"
        written = shutil.make_archive(str(Path(temporary) / name), "zip", temporary, root.name)
        return Path(written).replace(folder / f"{name}.zip")


def _left_out(folder: str, names: list[str]) -> set[str]:
    of_bundle = LEFT_OUT_OF_BUNDLES(folder, names) if (Path(folder) / "configs" / "metadata.json").exists() else set()
    return LEFT_OUT(folder, names) | of_bundle
