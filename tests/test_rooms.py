"""Tests the layout of the package: which room may import which, and how large a folder may grow."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lightning_heads

ROOT = Path(lightning_heads.__file__).parent
# What stands left never imports what stands right of it.
ORDER = [
    *("utils", "layers", "optim", "drawing", "encoders", "heads", "metrics", "losses", "models", "data", "callbacks"),
    *("lr_finder", "tasks", "search", "inference", "interpretation", "interop", "cli"),
]
WITHOUT_LIGHTNING = {"utils", "layers", "optim", "drawing", "encoders", "heads", "metrics", "losses", "models"}
# Rooms of other kinds of samples, wherever they lie, import nothing of images.
OTHER_SAMPLES = {"text", "tabular", "ratings"}
OF_IMAGES = {"encoders", "images", "masks", "pairs", "restoration", "transforms", "unet", "image", "siamese", "dense"}
TOP_LEVEL = {"__init__.py", "__main__.py", "public.py", "py.typed"}
MOST_FILES = 12
FILES = [path for path in sorted(ROOT.rglob("*.py")) if path.parent != ROOT]


def _names(path: Path) -> tuple[str, ...]:
    """Returns a file's folders and its own name within the package."""
    return path.relative_to(ROOT).with_suffix("").parts


def _imports(path: Path, source: str) -> Iterator[str]:
    """Gives the modules that a file imports; of `from a import b` also `a.b`, which may be a module."""
    package = ["lightning_heads", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _is_module(name: str) -> bool:
    path = ROOT.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def problems_of(path: Path, source: str) -> list[str]:
    """Returns what a file imports that its room may not."""
    names, problems = _names(path), []
    room = names[0]
    for module in _imports(path, source):
        parts = module.split(".")
        if parts[0] == "lightning_heads" and len(parts) > 1 and _is_module(module):
            if ORDER.index(parts[1]) > ORDER.index(room):
                problems.append(f"imports upwards: {module}")
            if OTHER_SAMPLES & {*names} and OF_IMAGES & {*parts}:
                problems.append(f"imports images: {module}")
        if parts[0] == "lightning" and room in WITHOUT_LIGHTNING:
            problems.append("imports lightning")
        if room != "encoders" and (parts[0] == "timm" or module == "torchvision.models"):
            problems.append(f"imports backbones: {module}")
    return problems


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_rooms_import_only_from_their_left(path: Path) -> None:
    assert problems_of(path, path.read_text()) == []


@pytest.mark.parametrize(
    ("file", "source", "problem"),
    [
        ("layers/new.py", "from ..heads.pooled import create_head", "imports upwards: lightning_heads.heads.pooled"),
        ("layers/new.py", "from .. import tasks", "imports upwards: lightning_heads.tasks"),
        ("data/new.py", "import lightning_heads.callbacks.ema", "imports upwards: lightning_heads.callbacks.ema"),
        ("models/new.py", "def f():\n    import lightning as L", "imports lightning"),
        ("tasks/new.py", "import timm", "imports backbones: timm"),
        ("losses/new.py", "from torchvision import models", "imports backbones: torchvision.models"),
        ("models/text/new.py", "from ..image import ImageModel", "imports images: lightning_heads.models.image"),
        ("data/tabular/new.py", "from ..images import reading", "imports images: lightning_heads.data.images"),
        ("heads/text.py", "from ..encoders import Encoder", "imports images: lightning_heads.encoders"),
    ],
)
def test_an_import_against_the_order_is_noticed(file: str, source: str, problem: str) -> None:
    assert problem in problems_of(ROOT / file, source)


def test_modules_import_one_another_in_no_circle() -> None:
    """Imports within a function count too, as they hide circles."""
    imports: dict[str, set[str]] = {}
    for path in FILES:
        name = ".".join(["lightning_heads", *_names(path)]).removesuffix(".__init__")
        found = {module for module in _imports(path, path.read_text()) if _is_module(module)}
        packages = {module for module in found if any(other.startswith(f"{module}.") for other in found)}
        imports[name] = found - packages - {name}
    assert len(imports) == len(FILES)
    while leaves := [name for name, found in imports.items() if not found & imports.keys()]:
        for name in leaves:
            del imports[name]
    assert not imports, f"a circle among {sorted(imports)}"


def test_every_room_has_a_place_in_the_order() -> None:
    assert {_names(path)[0] for path in FILES} <= {*ORDER}


def test_nothing_else_lies_at_the_top() -> None:
    assert {path.name for path in ROOT.iterdir() if path.is_file()} == TOP_LEVEL


@pytest.mark.parametrize("folder", [ROOT, *(path.parent for path in FILES if path.name == "__init__.py")], ids=str)
def test_a_folder_is_small_enough_to_be_read(folder: Path) -> None:
    assert len([path for path in folder.iterdir() if path.is_file()]) <= MOST_FILES


def test_tests_lie_in_the_rooms_of_what_they_test() -> None:
    folders = {path.parent for path in Path(__file__).parent.rglob("test_*.py")} - {Path(__file__).parent}
    assert all((ROOT / folder.relative_to(Path(__file__).parent)).is_dir() for folder in folders)
