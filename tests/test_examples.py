import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lightning_heads.cli import main

EXAMPLES = Path(__file__).parent.parent / "examples"
CONFIGS = sorted(EXAMPLES.rglob("*.yaml"))
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
TINY = [
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=1",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.enable_checkpointing=false",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--data.init_args.image_size=64",
    "--data.init_args.batch_size=2",
    "--data.init_args.num_workers=0",
]
# what the scripts write before they train, each where it has it
PREPARATIONS = ("prepare_table", "write_photographs", "prepare_weights")


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder to run in, from which the scripts find one another."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    for script in SCRIPTS:
        monkeypatch.delitem(sys.modules, script.stem, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _script(config: Path) -> ModuleType:
    return importlib.import_module(config.stem.removesuffix("_best"))


def test_there_are_examples() -> None:
    assert len(CONFIGS) >= 5
    assert len(SCRIPTS) >= 6


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_fits(examples: Path, class_folder: Path, config: Path) -> None:
    """The photographs of `class_folder` are what a config finds that has a path put in by its script."""
    script = _script(config)
    script.FOLDER.mkdir(parents=True)
    for name in PREPARATIONS:
        getattr(script, name, lambda _: None)(script.FOLDER)
    cli = main(["fit", "--config", str(config), *TINY])
    assert cli.trainer.state.finished
    assert cli.trainer.global_step == 1


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_explains_itself(
    examples: Path, script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(script.stem)
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == 0
    assert module.__doc__.split()[0] in capsys.readouterr().out


def test_dense_head_prints_both_scores(
    examples: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = ["--train", "8", "--valid", "2", "--size", "32", "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", ["dense_head.py", *tiny])
    importlib.import_module("dense_head").main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" validation")[0].strip() for line in lines if "mIoU" in line] == [
        "nearest-neighbour head",
        "U-Net",
    ]
