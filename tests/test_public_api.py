"""The public names: which there are, that each is documented, and that the examples in their docstrings run."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from pathlib import Path

import pytest
import torch
from importlinter import cli

import xattnres_monai

ROOT = Path(__file__).parents[1]
NAMES = json.loads((ROOT / "tests" / "public_api.json").read_text())
VALUE = re.compile(r"^(?P<code>[^#]+?)  # (?P<value>.+)$")


def example(name: str) -> str:
    """The code block after ``Example::`` in the docstring of a public name."""
    docstring = inspect.getdoc(getattr(xattnres_monai, name)) or ""
    block = re.search(r"^Example::\n\n((?:    .*\n|\n)+)", docstring + "\n", re.MULTILINE)
    assert block, f"the docstring of {name} has no Example::"
    return textwrap.dedent(block[1])


def test_no_public_name_comes_or_goes_unnoticed():
    assert sorted(xattnres_monai.__all__) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_documented(name):
    docstring = inspect.getdoc(getattr(xattnres_monai, name))
    assert docstring
    documented = re.findall(r"^    (\*?\w+)(?:, \*\*\w+)?: ", docstring, re.MULTILINE)
    for parameter in inspect.signature(getattr(xattnres_monai, name)).parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:
            shown = f"*{parameter.name}" if parameter.kind is parameter.VAR_POSITIONAL else parameter.name
            assert shown in documented, f"{name} does not document {shown}"


@pytest.mark.parametrize("name", NAMES)
def test_its_example_runs_and_ends_with_what_it_says(name):
    torch.manual_seed(0)
    *lines, last = example(name).rstrip().splitlines()
    stated = VALUE.match(last)
    assert stated, f"the example of {name} ends with {last!r}, expected an expression and its value in a comment"
    scope: dict[str, object] = {}
    exec("\n".join(lines), scope)
    value = eval(stated["code"], scope)
    value = tuple(value) if isinstance(value, torch.Size) else value
    assert str(value) == stated["value"].partition(":")[0]


def test_packages_import_downwards_only():
    """The contracts are in pyproject.toml."""
    assert cli.lint_imports(config_filename=str(ROOT / "pyproject.toml")) == cli.EXIT_STATUS_SUCCESS
