import importlib
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import pytest

import lightning_heads as lh
from lightning_heads.cli.main import main

EXAMPLES = Path(__file__).parent.parent / "examples"
CONFIGS = sorted(EXAMPLES.rglob("*.yaml"))
MODULES = sorted(EXAMPLES.glob("*.py"))
SCRIPTS = [path for path in MODULES if path.stem != "common"]
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
# functions that write what a script trains on; no script has all of them
PREPARATIONS = ("prepare_table", "write_photographs", "prepare_weights")


def _prepared(config: Path) -> ModuleType:
    """Returns the script of a config, after writing the files that it trains on."""
    script: ModuleType = importlib.import_module(config.stem.removesuffix("_best"))
    script.FOLDER.mkdir(parents=True)
    for name in PREPARATIONS:
        getattr(script, name, lambda _: None)(script.FOLDER)
    return script


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working directory in which the scripts can import one another."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    for module in MODULES:
        monkeypatch.delitem(sys.modules, module.stem, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_examples() -> None:
    assert len(CONFIGS) >= 5
    assert len(SCRIPTS) >= 6


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_fits(examples: Path, class_folder: Path, config: Path) -> None:
    """A config whose path is set by its script finds the photographs of `class_folder`."""
    _prepared(config)
    cli = main(["fit", "--config", str(config), *TINY])
    assert cli.trainer.state.finished
    assert cli.trainer.global_step == 1


def test_the_head_alone_trains_on_cached_features(examples: Path) -> None:
    config = EXAMPLES / "solar_cells.yaml"
    script = _prepared(config)
    table = script.FOLDER / "cells.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:40]))
    with patch.object(lh.Encoder, "forward", autospec=True, side_effect=lh.Encoder.forward) as encoder:
        cli = main(["fit", "--config", str(config), *script.HEAD_ALONE, *TINY, "--trainer.max_epochs=3"])
    assert cli.trainer.global_step == 3
    images = sum(len(call.args[1]) for call in encoder.call_args_list)
    assert images == 2 * len(cli.datamodule.samples["train"].paths) + 1  # two views, and one image to learn the shape


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_prints_its_docstring_as_help(
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
        "nearest-neighbor head",
        "U-Net",
    ]
