"""What the command line takes from a checkpoint: what neither the command line nor a yaml file gives."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import lightning_heads as lh
from lightning_heads.cli.main import main

SHORT = ["--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu"]
QUIET = ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


def _write(folder: Path, names: list[str]) -> None:
    for i, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for j in range(4):
            level = np.full((32, 32, 3), 40 * i + j, np.uint8)
            Image.fromarray(level).save(folder / name / f"{j}.png")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of two classes, a yaml file, and `trained.ckpt`, whose task smooths labels by 0.3."""
    folder = tmp_path_factory.mktemp("trained")
    _write(folder / "photos", ["a", "b"])
    config = {
        "trainer": {"max_epochs": 1, "default_root_dir": str(folder)},
        "model": {"class_path": "ImageClassifier", "init_args": {"encoder": "test_resnet", "pretrained": False}},
        "data": {
            "class_path": "ImageFolderData",
            "init_args": {"root": str(folder / "photos"), "image_size": 32, "batch_size": 2, "num_workers": 0},
        },
    }
    (folder / "a.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        given = ["--model.label_smoothing=0.3", "--model.lr=0.01", "--model.ps=0.25"]
        cli = main(["fit", "--config=a.yaml", *SHORT, *QUIET, *given, "--trainer.enable_checkpointing=false"])
        cli.trainer.save_checkpoint("trained.ckpt")
    return folder


@pytest.fixture
def run(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command in the folder, with its yaml file."""
    monkeypatch.chdir(trained)
    return lambda command, *args: main([command, "--config=a.yaml", *SHORT, *QUIET, *args])


def test_the_checkpoint_decides_what_is_not_given(run: Any, trained: Path) -> None:
    cli = run("validate", "--ckpt_path=trained.ckpt")
    assert (cli.model.hparams["label_smoothing"], cli.model.hparams["ps"]) == (0.3, 0.25)
    assert cli.model.criterion.label_smoothing == 0.3


def test_the_command_line_comes_before_the_checkpoint(run: Any) -> None:
    cli = run("validate", "--ckpt_path=trained.ckpt", "--model.init_args.label_smoothing=0.0")
    assert (cli.model.criterion.label_smoothing, cli.model.hparams["ps"]) == (0.0, 0.25)


def test_a_yaml_file_comes_before_the_checkpoint(run: Any, trained: Path) -> None:
    init_args = {"label_smoothing": 0.1, "ps": 0.5}  # the latter is the default
    (trained / "more.yaml").write_text(yaml.safe_dump({"model": {"init_args": init_args}, "ckpt_path": "trained.ckpt"}))
    cli = run("validate", "--config=more.yaml", "--model.init_args.ps=0.1")
    assert (cli.model.criterion.label_smoothing, cli.model.hparams["ps"], cli.model.lr) == (0.1, 0.1, 0.01)


def test_weights_are_not_downloaded_for_a_checkpoint(run: Any) -> None:
    cli = run("validate", "--ckpt_path=trained.ckpt", "--model.pretrained=true", "--model.weights=none.pth")
    assert (cli.model.hparams["pretrained"], cli.model.hparams["weights"]) == (False, None)


def test_a_checkpoint_of_a_script_serves_too(run: Any, trained: Path) -> None:
    task = lh.ImageClassifier(
        "test_resnet", 2, class_names=["a", "b"], pretrained=False, label_smoothing=0.2, lr=(1e-3, 1e-2)
    )
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(task)
    trainer.save_checkpoint(trained / "script.ckpt")
    cli = run("validate", "--ckpt_path=script.ckpt")
    assert cli.model.criterion.label_smoothing == 0.2
    torch.testing.assert_close(cli.model.state_dict(), task.state_dict(), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b", "c"], "`num_classes` to be 3, as the data has it, but trained.ckpt has 2"),
        (["b", "c"], r"`class_names` to be \['b', 'c'\], as the data has it, but trained.ckpt has \['a', 'b'\]"),
    ],
)
def test_other_classes_than_the_checkpoints_are_refused(
    run: Any, tmp_path: Path, names: list[str], message: str
) -> None:
    _write(tmp_path / "other", names)
    with pytest.raises(ValueError, match=message):
        run("validate", "--ckpt_path=trained.ckpt", f"--data.root={tmp_path / 'other'}")


def test_classes_are_compared_with_the_checkpoints_where_none_are_given(run: Any, tmp_path: Path) -> None:
    _write(tmp_path / "other", ["a", "c"])
    with pytest.raises(ValueError, match=r"`class_names` to be .*'c'.*but trained.ckpt has"):
        run("validate", "--ckpt_path=trained.ckpt", "--model.class_names=null", f"--data.root={tmp_path / 'other'}")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--model.encoder=test_efficientnet", "changes `encoder` from 'test_resnet' to"),
        ("--model.lin_ftrs=[8]", r"changes `lin_ftrs` from None to \[8\]"),
        ("--model.mean=[0.1,0.1,0.1]", r"changes `mean` from None to \[0.1, 0.1, 0.1\]"),
    ],
)
def test_what_the_weights_do_not_fit_is_named(run: Any, argument: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"Expected the model of trained.ckpt, .*{message}"):
        run("validate", "--ckpt_path=trained.ckpt", argument, "--model.label_smoothing=0.3")


def test_a_checkpoint_of_another_class_says_of_which(run: Any) -> None:
    regressor = ["--model=ImageRegressor", "--model.encoder=test_resnet"]
    with pytest.raises(ValueError, match=r"of lightning_heads.ImageRegressor, but got one of lightning_heads.ImageCl"):
        run("validate", "--ckpt_path=trained.ckpt", *regressor)


def test_a_resumed_run_has_the_given_learning_rate(run: Any) -> None:
    resume = ["--ckpt_path=trained.ckpt", "--trainer.max_epochs=2", "--trainer.enable_checkpointing=false"]
    cli = run("fit", *resume)
    assert {group["lr"] for group in cli.trainer.optimizers[0].param_groups} == {0.01}
    cli = run("fit", *resume, "--model.lr=[0.02,0.04]")
    groups = cli.trainer.optimizers[0].param_groups
    assert [group["lr"] for group in groups] == [group["initial_lr"] for group in groups]
    assert (groups[0]["lr"], groups[-1]["lr"]) == (0.02, 0.04)
    scheduler = ["--model.lr_scheduler=StepLR", "--model.lr_scheduler.step_size=1"]
    with pytest.raises(ValueError, match="`lr_scheduler` continues"):
        run("fit", *resume, "--model.lr=0.02", *scheduler)


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
@pytest.mark.parametrize("given", [[], ["--ckpt_path=last"]])
@pytest.mark.filterwarnings("ignore:.* there is no last checkpoint available")
def test_an_untrained_model_is_refused(run: Any, command: str, given: list[str], tmp_path: Path) -> None:
    data = ["--data.test_fraction=0.2", f"--trainer.default_root_dir={tmp_path}"]
    with pytest.raises(ValueError, match=f"`--ckpt_path` with the checkpoint to {command}, .*`--untrained` if"):
        run(command, *given, *data)


def test_an_untrained_model_can_be_meant(run: Any, tmp_path: Path) -> None:
    assert run("validate", "--untrained").trainer.state.finished
    (tmp_path / "meant.yaml").write_text("untrained: true")
    assert run("validate", f"--config={tmp_path / 'meant.yaml'}").trainer.state.finished


def test_the_config_is_printed_without_a_checkpoint(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run("predict", "--print_config")
    assert stopped.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["ckpt_path"] is None


def test_files_that_are_no_checkpoints_are_named(run: Any, trained: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file none\.ckpt"):
        run("validate", "--ckpt_path=none.ckpt")
    with pytest.raises(ValueError, match=r"a.yaml to be a checkpoint of plain values"):
        run("validate", "--ckpt_path=a.yaml")
