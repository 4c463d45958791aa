"""Holds the order of the rooms: what stands left never imports what stands right of it."""

import ast
from pathlib import Path

import pytest

import lightning_heads

ROOT = Path(lightning_heads.__file__).parent
ORDER = [
    *(
        "figure",
        "params",
        "random_state",
        "freezing",
        "schedules",
        "lr_curve",
        "layers",
        "encoders",
        "heads",
        "losses",
        "models",
    ),
    *("data", "callbacks", "restoring", "lr_search", "tasks", "search", "cli"),
]
FILES = [path for path in sorted(ROOT.rglob("*.py")) if path.parent != ROOT or path.stem in ORDER]


def _imports(path: Path) -> list[str]:
    modules = []
    package = ["lightning_heads", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            modules.append(".".join([*base, *([node.module] if node.module else [])]))
    return modules


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_import_only_from_their_left(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for module in _imports(path):
        if module.startswith("lightning_heads."):
            other = module.split(".")[1]
            assert ORDER.index(other) <= ORDER.index(room), f"{path} imports {module}"
        top = module.split(".")[0]
        if ORDER.index(room) <= ORDER.index("models"):
            assert top != "lightning", f"{path} imports lightning"
        if room != "encoders":
            assert top != "timm", f"{path} imports timm"
            assert module != "torchvision.models", f"{path} imports torchvision's models"


def test_every_room_is_looked_at() -> None:
    rooms = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in FILES}
    assert rooms == set(ORDER)
