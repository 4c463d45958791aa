"""Arguments that are declared once and passed on whole, as a user meets them: help, yaml, checkpoints, subclasses."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml

import lightning_heads as lh
from lightning_heads.cli.main import main

OWN = """
from typing import Any

import lightning_heads as lh


class MarginData(lh.ImageFolderData):
    \"\"\"Images with a margin.

    Args:
        margin: Width of the margin, in pixels.
    \"\"\"

    def __init__(self, *args: Any, margin: int = 4, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.margin = margin


class NamedClassifier(lh.ImageClassifier):
    \"\"\"A classifier with a name.

    Args:
        name: Its name.
    \"\"\"

    def __init__(self, *args: Any, name: str = "x", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name = name
"""
QUIET = ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.fixture
def project(class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photographs, a module of the user's own and a yaml that names its classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own", raising=False)
    (tmp_path / "own.py").write_text(OWN)
    config = {
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "limit_train_batches": 1},
        "model": {
            "class_path": "own.NamedClassifier",
            "init_args": {"encoder": "test_resnet", "pretrained": False, "name": "y", "ps": 0.1, "num_groups": 1},
        },
        "data": {
            "class_path": "own.MarginData",
            "init_args": {"root": "photos", "image_size": 32, "batch_size": 8, "margin": 2, "num_workers": 0},
        },
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def _printed(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(args)
    out = capsys.readouterr()
    assert stopped.value.code == 0, out.err
    return re.sub(r"\s+", " ", out.out)


@pytest.mark.parametrize(
    ("option", "cls", "texts"),
    [
        ("data", "ImageFolderData", ["Height and width of the images in a batch", "Samples in a batch", "grayscale"]),
        ("data", "MaskTableData", ["Target of pixels that", "Height and width of the images", "default: 16"]),
        ("data", "PairFolderData", ["Probability that a drawn partner", "Worker processes"]),
        ("data", "RestorationData", ["default: 128", "Worker processes"]),
        ("model", "ImageSegmenter", ["Whether pixel shuffles blur", "Stochastic depth", "Mean of each channel"]),
        ("model", "ImageClassifier", ["Dropout", "Stochastic depth", "channels-last"]),
    ],
)
def test_help_shows_every_argument_with_its_text(
    option: str, cls: str, texts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = _printed(["fit", f"--{option}.help=lightning_heads.{cls}"], capsys)
    for text in texts:
        assert text in shown
    assert not re.search(r"\[?-?-?\w+ [A-Z_]+ (See `|Likewise)", shown)


def test_the_printed_config_has_all_arguments_and_fits(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--config=own.yaml", "--print_config"])
    printed = capsys.readouterr().out
    config = yaml.safe_load(printed)
    assert config["data"]["init_args"].items() >= {"margin": 2, "image_size": 32, "resize": "crop"}.items()
    assert config["model"]["init_args"].items() >= {"ps": 0.1, "num_groups": 1, "drop_path_rate": 0.0}.items()
    (project / "printed.yaml").write_text(printed)
    cli = main(["fit", "--config=printed.yaml", *QUIET])
    assert (cli.datamodule.margin, cli.datamodule.image_size, cli.model.name) == (2, (32, 32), "y")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("--data.init_args.image_sise=32", "image_sise"),
        ("--data.init_args.image_size=large", "image_size"),
        ("--data.init_args.resize=stretch", "resize"),
        ("--model.init_args.drop_path=0.1", "drop_path"),
        ("--model.init_args.drop_path_rate=high", "drop_path_rate"),
    ],
)
def test_a_wrong_name_or_type_is_refused(
    project: Path, wrong: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config=own.yaml", wrong])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_subclass_takes_the_classes_from_the_data_and_loads_from_its_checkpoint(project: Path) -> None:
    cli = main(["fit", "--config=own.yaml", *QUIET])
    assert cli.model.class_names == ["bright", "dark"]
    path = next((project / "checkpoints").glob("*.ckpt"))
    assert torch.load(path, weights_only=True)["class_path"] == "own.NamedClassifier"
    loaded = type(cli.model).load_from_checkpoint(path, weights_only=True)
    assert (loaded.name, loaded.hparams["num_groups"], loaded.class_names) == ("y", 1, ["bright", "dark"])
    assert len(loaded.param_groups()) == 2


def test_a_checkpoint_of_the_command_line_names_a_task_by_its_public_path(project: Path) -> None:
    main(["fit", "--config=own.yaml", "--model=ImageClassifier", "--model.encoder=test_resnet", *QUIET])
    checkpoint = torch.load(next((project / "checkpoints").glob("*.ckpt")), weights_only=True)
    assert checkpoint["class_path"] == "lightning_heads.ImageClassifier"
    assert checkpoint["hyper_parameters"]["_class_path"] == "lightning_heads.ImageClassifier"


def test_hyperparameters_keep_defaults_that_were_not_given() -> None:
    task = lh.ImageSegmenter("test_resnet", 2, pretrained=False, bottle=True)
    assert task.hparams["bottle"] is True
    assert task.hparams["decoder"] == "light"
    assert task.hparams["channels_last"] is True
    assert "architecture" not in task.hparams


@pytest.mark.slow
def test_the_oldest_jsonargparse_serves_too(tmp_path: Path) -> None:
    """Installs the lower bound of pyproject.toml beside the environment, and runs these tests with it."""
    root = Path(__file__).parents[2]
    (oldest,) = re.findall(r"jsonargparse\[signatures\]>=([\d.]+)", (root / "pyproject.toml").read_text())
    assert version("jsonargparse") != oldest
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path)]
    subprocess.run([*pip, f"jsonargparse=={oldest}"], check=True)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    shown = "import jsonargparse; print(jsonargparse.__version__)"
    used = subprocess.run([sys.executable, "-c", shown], env=environment, capture_output=True, text=True, check=True)
    assert used.stdout.startswith(oldest)
    tests = ["tests/cli", "tests/utils/test_arguments.py"]
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-n", "0", *tests], cwd=root, env=environment, check=True)
