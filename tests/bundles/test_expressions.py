"""What a bundle's configs would run is named, and only what is not on the list. No line of a table is ever run."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import yaml
from monai.bundle import ComponentLocator

from tests.bundles.runs import NAMES, ZOO
from xattnres_monai.bundles import allow_list
from xattnres_monai.bundles.expressions import outside
from xattnres_monai.bundles.packing import pack

HARMLESS = {
    "arithmetic": "$-@a + 2 * 3 ** 2 // 1 - ~1",
    "a string": "$'import os; os.system(1)'",
    "a format": '$f"{@a!r:>{3}} of {len(@b)}"',
    "containers": "$[1, (2, 3), {4}, {'a': 5, **@b}, *@c][0:1]",
    "conditions": "$@a if @b and not @c or 1 < 2 <= 3 else None",
    "comprehensions": "$[{k: v for k, v in @a}, {x for x in @b if x}, (x for x in @c)]",
    "a lambda": "$lambda engine, *more, last=1, **rest: engine.state.epoch_length",
    "a variable": "$[value for value in @a]",
    "a nested reference": "$@a::b::0 + @a#c",
    "a relative reference": "$@#b",
    "functions": "$len([int(os.environ.get('RANK', 0))])",
    "a method": "$@network.parameters()",
    "our own": "$folds.training_cases(@cases, @fold)",
    "no expression": "os.system('true')",
}
IMPORTS = [
    "$import os",
    "$import xattnres_monai.data.folds as folds",
    "$from monai.utils import set_determinism",
]

EXPRESSIONS = {
    "import by hand": "$__import__('os').system('true')",
    "a function of a module": "$os.system('true')",
    "that function handed on": "$os.system",
    "the module handed on": "$os",
    "by an attribute's name": "$getattr(os, 'system')('true')",
    "subclasses": "$().__class__.__base__.__subclasses__()",
    "globals of a function": "$(lambda: 0).__globals__['__builtins__']",
    "globals of a generator": "$(x for x in []).gi_frame.f_globals",
    "a method's format": "$'{0.__class__}'.format(@a)",
    "eval": "$eval('1')",
    "exec": "$exec('import os')",
    "compile": "$compile('1', '', 'eval')",
    "open": "$open('/etc/passwd').read()",
    "builtins by name": "$__builtins__['eval']",
    "a lambda with a call": "$(lambda f: f('true'))(@a)",
    "a lambda that calls a variable": "$lambda f: f('true')",
    "a lambda that hides a function": "$lambda len: len('true')",
    "a function that is a variable elsewhere": "$[[eval for eval in []], eval][1]",
    "a module that is a variable elsewhere": "$(lambda os: 0, os)",
    "the builtins, a variable elsewhere": "$(lambda __builtins__: 0, __builtins__)",
    "a default of a lambda": "$lambda a=eval('1'): a",
    "a call of an element": "$[@a][0]('true')",
    "a call of a call": "$monai.handlers.from_engine(['a'])('true')",
    "torch.load": "$torch.load(@a, weights_only=False)",
    "torch.hub": "$torch.hub.load('somebody/something', 'model')",
    "numpy": "$np.load('a.npy', allow_pickle=True)",
    "a bundle's run": "$monai.bundle.run(config_file='other.json')",
    "a download": "$monai.apps.download_and_extract('http://127.0.0.1')",
    "any module": "$monai.utils.optional_import('os')[0]",
    "other machines": "$torch.distributed.init_process_group('gloo', init_method='tcp://192.0.2.1:1')",
    "what a module of ours imports": "$folds.Path('a').unlink()",
    "a format with a call": "$f'{eval(1)}'",
    "a format of a format": "$f'{1:{eval(1)}}'",
    "walrus": "$(a := 1)",
    "in a comprehension": "$[eval(x) for x in @a]",
    "in its condition": "$[x for x in @a if eval(x)]",
    "in an argument": "$len(a=eval('1'))",
    "in a subscript": "$@a[eval('0')]",
    "a module by its reference": "$@imports#0.system('true')",
    "a reference that is called": "$@a('true')",
    "a reference in a string, whose quotes end it": "$'@if' if '@a' else os.system('@else'",
    "two statements": "$import os; os.system('true')",
    "on two lines": "$import os\nos.system('true')",
    "no statement": "$",
    "no Python": "$rm -rf",
    "await": "$await @a",
    "a reader of a class of ours": "$case_checks.LoadImaged('image', reader='subprocess.check_output', args='true')",
    "a class of ours handed on": "$case_checks.LoadImaged",
    "a function of ours that writes": "$checkpoints.save_whole(@a, 'a.pt')",
    "an element as a variable": "$[0 for os.environ['A'] in ['b']]",
    "an element within a variable": "$[0 for a, [*os.environ['A']] in @b]",
    "an attribute as a variable": "$[0 for @a.to in ['b']]",
    "a reference as a variable": "$[0 for @a in ['b']]",
    "import of another module": "$import subprocess",
    "import by another name": "$import subprocess as xattnres_monai",
    "import of a submodule": "$import xattnres_monai.bundles.workflows as workflows",
    "import of a submodule with classes alone": "$import xattnres_monai.data.checks as case_checks",
    "import of a function": "$from os import system",
    "import of two": "$import os, subprocess",
    "import beside the config": "$from . import scripts",
    "macro of another file": "%/etc/other.json#key",
    "macro of the config": "%imports#0",
}
PLACES = {
    "a key": lambda value: {"a": value},
    "a list": lambda value: {"a": [1, [value]]},
    "an argument": lambda value: {"a": {"_target_": "Compose", "transforms": [{"b": {"c": value}}]}},
    "a component's switch": lambda value: {"a": {"_target_": "Compose", "_disabled_": value}},
    "a component's requirement": lambda value: {"a": {"_target_": "Compose", "_requires_": [value]}},
    "a component's description": lambda value: {"a": {"_target_": "Compose", "_desc_": value}},
    "an overlay": lambda value: {"+a#b": [value]},
}
COMPONENTS = {
    "a function of a module": {"a": {"_target_": "os.system", "command": "true"}},
    "a process": {"a": {"_target_": "subprocess.run", "args": "true"}},
    "a builtin, without a dot": {"a": {"_target_": "exec"}},
    "a module, without a dot": {"a": {"_target_": "antigravity"}},
    "a function of MONAI, without a dot": {"a": {"_target_": "run", "config_file": "other.json"}},
    "a class of MONAI that loads code": {"a": {"_target_": "PerceptualLoss", "spatial_dims": 2}},
    "torch.load": {"a": {"_target_": "torch.load", "f": "a.pt", "weights_only": False}},
    "torch.hub": {"a": {"_target_": "torch.hub.load", "repo_or_dir": "somebody/something"}},
    "what a module of ours imports": {"a": {"_target_": "xattnres_monai.data.readers.msd.download_and_extract"}},
    "an expression": {"a": {"_target_": "$@b.run"}},
    "a reference": {"a": {"_target_": "@b"}},
    "a component": {"a": {"_target_": {"_target_": "Compose"}}},
    "by an overlay": {"a#_target_": "os.system"},
    "a reader": {"a": {"_target_": "xattnres_monai.data.checks.LoadImaged", "keys": "image", "reader": "os.system"}},
    "a writer": {
        "a": {"_target_": "xattnres_monai.inference.writers.SaveImaged", "keys": "image", "writer": "subprocess.Popen"}
    },
    "pickles": {"a": {"_target_": "xattnres_monai.data.checks.LoadImaged", "keys": "image", "allow_pickle": True}},
    "a compiler": {"a": {"_target_": "SupervisedTrainer", "compile_kwargs": {"options": {"cpp.cxx": ["./mine"]}}}},
    "a debugger": {"a": {"_target_": "Compose", "_mode_": "debug"}},
    "a breakpoint": {"a": {"_target_": "Compose", "_debug_": True}},
}


@pytest.fixture
def bundle(tmp_path):
    """A folder that becomes a bundle of one config."""

    def write(config):
        (tmp_path / "configs").mkdir(exist_ok=True)
        (tmp_path / "configs" / "train.json").write_text(json.dumps({"imports": IMPORTS, **config}))
        return tmp_path

    return write


@pytest.mark.parametrize("name", NAMES)
def test_all_of_the_zoo_is_on_the_list(name):
    assert outside(ZOO / name) == []


@pytest.mark.parametrize("value", HARMLESS.values(), ids=HARMLESS)
def test_what_only_computes_is_not_named(bundle, value):
    assert outside(bundle({"a": value})) == []


@pytest.mark.parametrize("value", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_an_expression_is_named_with_its_place(bundle, value):
    assert outside(bundle({"a": value})) == [f"configs/train.json, a: {value}"]


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_an_expression_is_named_wherever_it_stands(bundle, place):
    (found,) = outside(bundle(place("$eval('1')")))
    assert found.startswith("configs/train.json, ") and found.endswith(": $eval('1')")


@pytest.mark.parametrize("config", COMPONENTS.values(), ids=COMPONENTS)
def test_a_component_is_named(bundle, config):
    (found,) = outside(bundle(config))
    assert found.startswith("configs/train.json, a#")


def test_another_module_of_a_listed_name_is_named(bundle):
    root = bundle({"a": "$os.environ"})
    (root / "configs" / "variant.json").write_text('{"imports": ["$import logging as os"]}')
    assert outside(root) == ["configs/variant.json, imports#0: $import logging as os"]


def test_yaml_is_looked_at_too_and_folders_within_configs(bundle):
    path = bundle({}) / "configs" / "more" / "train.YML"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({"a": "$eval('1')"}))
    assert outside(bundle({})) == ["configs/more/train.YML, a: $eval('1')"]


def test_python_in_the_folder_is_named_since_an_import_may_find_it(bundle):
    root = bundle({})
    for path in ("monai.so", "torch.py", "scripts/deep/__init__.py", "data/of_a_run.py"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    assert outside(root) == ["monai.so: Python", "scripts/deep/__init__.py: Python", "torch.py: Python"]
    assert outside(root, ["monai", "scripts", "torch"]) == []


def test_a_link_in_the_folder_is_named_since_it_may_lead_to_python(bundle):
    root = bundle({})
    (root / "data" / "monai").mkdir(parents=True)
    (root / "monai").symlink_to("data/monai")
    (root / "gone.py").symlink_to("nowhere")
    assert outside(root) == ["gone.py: a link", "monai: a link"]
    assert outside(root, ["monai", "gone"]) == []


def test_a_copy_of_this_package_is_named_until_it_is_trusted(tmp_path):
    shutil.unpack_archive(pack(ZOO / "mni152_mri_segmentation", tmp_path, vendor=True), tmp_path)
    root = tmp_path / "mni152_mri_segmentation"
    assert "xattnres_monai/bundles/config_keys.py: Python" in outside(root)
    assert outside(root, ["xattnres_monai"]) == []


TRUSTED = {
    "a package": (["mine"], {"a": "$import mine.net as net", "b": "$net.build(@c)", "c": {"_target_": "mine.net.Net"}}),
    "a function": (["torch.load"], {"a": "$torch.load(@b)"}),
    "a component": (["RandZoomd", "numpy"], {"a": {"_target_": "RandZoomd", "prob": "$np.float32(1)"}}),
}


@pytest.mark.parametrize("trust, config", TRUSTED.values(), ids=TRUSTED)
def test_what_the_user_trusts_is_not_named(bundle, trust, config):
    assert outside(bundle(config))
    assert outside(bundle(config), trust) == []


def test_trust_does_not_reach_beyond_the_name(bundle):
    config = {"a": "$import mine_too", "b": {"_target_": "miner.Net"}, "c": "$eval('1')", "d": "$@e.mine()"}
    assert len(outside(bundle(config), ["mine"])) == 4


@pytest.mark.parametrize("name", sorted(name for name in allow_list.TARGETS if "." not in name))
def test_a_target_without_a_dot_is_one_class_of_monai(name):
    """MONAI looks for it in its own modules; what it does not find there it would import."""
    module = ComponentLocator().get_component_module_name(name)
    assert isinstance(module, str) and module.startswith("monai.")


def test_the_list_holds_nothing_that_the_zoo_does_without():
    text = "".join(path.read_text() for path in ZOO.glob("*/configs/*.json"))
    ours = {".".join(name.split(".")[-2:]) if name.startswith("xattnres_monai.") else name for name in allow_list.NAMES}
    patterns = {
        r'"{}"': allow_list.TARGETS | set(allow_list.READERS),
        r"(?<![\w.']){}(?![\w'])": ours | set(allow_list.EXPRESSIONS),
        r"\.{}\b": allow_list.ATTRIBUTES,
    }
    for pattern, names in patterns.items():
        assert [name for name in names if not re.search(pattern.format(re.escape(name)), text)] == []
