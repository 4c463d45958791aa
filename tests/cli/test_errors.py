"""Errors of the command line: short, with the cause at the end, and with what may have been meant."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import ActionConfigFile
from lightning import LightningDataModule, LightningModule, Trainer

import lightning_heads as lh
from lightning_heads.__main__ import run
from lightning_heads.cli.commands import COMMANDS
from lightning_heads.cli.main import main
from lightning_heads.cli.parser import HeadsParser
from tests.conftest import write_image

assert lh.ImageClassifier  # imports all classes, which can then be named without their module


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options that name a valid yaml file."""
    monkeypatch.chdir(tmp_path)
    written = {
        "model": {"class_path": "ImageClassifier", "init_args": {"encoder": "test_resnet", "pretrained": False}},
        "data": {"class_path": "ImageFolderData", "init_args": {"root": "photos", "num_workers": 0}},
    }
    Path("a.yaml").write_text(yaml.safe_dump(written))
    return ["--config=a.yaml"]


@pytest.fixture(scope="module")
def parser() -> HeadsParser:
    """The parser of a command, without those of the others."""
    parser = HeadsParser(allow_abbrev=False)
    parser.add_argument("--config", action=ActionConfigFile)
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    return parser


def _error(parse: Callable[[list[str]], object], args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        parse(args)
    assert stopped.value.code == 2
    *before, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: ")
    assert len(before) <= 1
    return last


@pytest.mark.parametrize(
    ("argument", "cause"),
    [
        ("--model=ImageClasifier", "subclass of LightningModule, but got ImageClasifier; did you mean ImageClassifier"),
        ("--model=lightning_heads.ImageClasifier", "but got ImageClasifier; did you mean ImageClassifier"),
        ("--data=ImageFoldrData", "subclass of LightningDataModule, but got ImageFoldrData; did you mean ImageFolder"),
        ("--trainer.callbacks=OneCicle", "subclass of Callback, but got OneCicle; did you mean OneCycle?"),
        ("--model.optimizer=Adamm", "subclass of Optimizer, but got Adamm; did you mean Adam"),
        ("--model=ImageFolderData", "but got ImageFolderData; a class of your own is given with its module"),
        ("--model.init_args.label_smoothin=1", "'label_smoothin' is not (accepted|expected); did you mean label_smoo"),
        ("--data.init_args.image_sise=32", "'image_sise' is not (accepted|expected); did you mean image_size?"),
        ("--trainer.max_epoch=1", "--trainer.max_epoch=1; did you mean trainer.max_epochs"),
        ("--model.lr=high", '"lr": Expected (float or list|list or float) or tuple, but got high$'),
        ("--data.image_size=large", '"image_size": Expected int or tuple, but got large$'),
        ("--trainer.max_epochs=x", '"trainer.max_epochs": Expected int, but got x$'),
    ],
)
def test_a_wrong_argument_is_the_last_line(
    parser: HeadsParser, config: list[str], argument: str, cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = _error(parser.parse_args, [*config, argument], capsys)
    assert re.search(cause, error), error


@pytest.mark.parametrize(
    ("addition", "cause"),
    [
        ({"trainer": {"callbacks": [{"class_path": "OneCicle"}]}}, "but got OneCicle; did you mean OneCycle?"),
        (
            {"trainer": {"callbacks": [{"class_path": "OneCycle", "init_args": {"pct_strt": 0.1}}]}},
            "did you mean pct_start?",
        ),
        ({"model": {"init_args": {"pretraind": False}}}, "did you mean pretrained?"),
    ],
)
def test_a_wrong_key_of_a_yaml_file_is_the_last_line(
    parser: HeadsParser, config: list[str], addition: Any, cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("b.yaml").write_text(yaml.safe_dump(addition))
    assert cause in _error(parser.parse_args, [*config, "--config=b.yaml"], capsys)


def test_a_command_names_its_arguments(config: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean predictions.folder" in _error(main, ["fit", *config, "--predictons.folder=x"], capsys)
    Path("b.yaml").write_text("modle: 1")
    assert "'modle'; did you mean model?" in _error(main, ["fit", *config, "--config=b.yaml"], capsys)


def test_commands_are_listed_if_none_or_another_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    every = ", ".join(COMMANDS)
    assert f"a command, which are {every}, but got none" in _error(main, [], capsys)
    assert f"which are {every}, but got predcit; did you mean predict?" in _error(main, ["predcit"], capsys)


@pytest.mark.parametrize(
    ("args", "cause"),
    [
        (["embed", "--foldr=x"], "--foldr=x; did you mean folder?"),
        (["nearest", "--index=a", "--image=b", "--k=x"], '"k": Expected int, but got x'),
    ],
)
def test_errors_of_commands_without_a_trainer(args: list[str], cause: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cause in _error(main, args, capsys)


def test_an_error_of_a_constructor_is_raised_unchanged(config: list[str]) -> None:
    with pytest.raises(FileNotFoundError, match=r"^Expected `root` to be a folder"):
        main(["fit", *config])
    for i in range(10):
        write_image(Path(f"photos/{i % 2}/{i}.png"))
    callbacks = '[{"class_path": "OneCycle", "init_args": {"pct_start": 7}}]'
    with pytest.raises(ValueError, match=r"^Expected `pct_start` in \(0, 1\)"):
        main(["fit", "--model=ImageClassifier", *config, f"--trainer.callbacks={callbacks}"])


def _run(args: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "argv", ["lightning-heads", *args])
    with pytest.raises(SystemExit) as stopped:
        run()
    assert isinstance(stopped.value.code, str)  # which Python prints
    return stopped.value.code


def test_the_program_prints_the_text_of_this_packages_errors_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    text = _run(["embed", "--folder=x", "--output=y"], monkeypatch)
    assert text == "error: Expected either `encoder` or `ckpt`, but got neither"


def test_the_program_lists_all_commands_if_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    text = _run([], monkeypatch)
    assert all(f"  {name} " in text for name in COMMANDS)
    assert text.endswith("error: Expected a command, but got none")


def test_the_program_shows_where_other_errors_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_heads.cli.search.embed", lambda *_, **__: int("own"))
    monkeypatch.setattr(sys, "argv", ["lightning-heads", "embed", "--folder=x", "--output=y", "--encoder=z"])
    with pytest.raises(ValueError, match="invalid literal"):
        run()
