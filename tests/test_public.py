"""What `import lightning_heads` gives, and when."""

import subprocess
import sys
from importlib import import_module

import pytest

import lightning_heads as lh
from lightning_heads import public


def _in_a_new_process(script: str) -> None:
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_all_public_names_are_attributes_of_the_package() -> None:
    assert lh.__all__ == public.__all__
    for name in public.__all__:
        assert getattr(lh, name) is getattr(public, name)
        assert name in dir(lh)
    assert "__version__" in dir(lh)


def test_no_public_name_is_also_a_module_which_would_hide_it() -> None:
    for name in public.__all__:
        with pytest.raises(ModuleNotFoundError):
            import_module(f"lightning_heads.{name}")


def test_the_import_alone_loads_nothing() -> None:
    _in_a_new_process("import lightning_heads, sys; assert not {'torch', 'lightning', 'timm'} & {*sys.modules}")


@pytest.mark.parametrize("first", ["lh.EMA", "lh.data.read_image", "dir(lh)", "lh.__all__"])
def test_one_name_brings_all(first: str) -> None:
    """So that classes are known by their short names in any `LightningCLI`."""
    _in_a_new_process(f"import lightning_heads as lh; {first}; assert 'ImageClassifier' in vars(lh)")


def test_a_star_brings_all() -> None:
    _in_a_new_process("from lightning_heads import *; ImageClassifier; lr_find")


def test_a_room_may_be_imported_first() -> None:
    _in_a_new_process("import lightning_heads.callbacks; import lightning_heads as lh; lh.lr_find; lh.FeatureCache")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'lightning_heads' has no attribute 'ImageClasifier'"):
        lh.ImageClasifier  # type: ignore[attr-defined]  # noqa: B018


def test_a_command_line_of_ones_own_knows_classes_by_their_paths() -> None:
    _in_a_new_process(
        "from lightning.pytorch import LightningModule\n"
        "from lightning.pytorch.cli import LightningCLI\n"
        "model = ['--model=lightning_heads.ImageClassifier', '--model.encoder=test_resnet', '--model.num_classes=2']\n"
        "trainer = ['--trainer.callbacks=lightning_heads.OneCycle', '--trainer.accelerator=cpu']\n"
        "args = [*model, '--model.pretrained=false', *trainer]\n"
        "cli = LightningCLI(LightningModule, subclass_mode_model=True, run=False, args=args)\n"
        "assert type(cli.model).__name__ == 'ImageClassifier'\n"
    )
