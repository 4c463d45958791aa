import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lightning_heads.cli.commands import COMMANDS
from lightning_heads.cli.main import main

CONFIGS = sorted((Path(__file__).parent / "conf").rglob("*.yaml"))
QUIET = [
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
]


@pytest.fixture
def project(class_folder: Path, shapes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in, with classes of photographs, a table of them, and shapes with their masks."""
    rows = ["path,tags,x,y"]
    for i, path in enumerate(sorted(class_folder.rglob("*.png"))):
        rows.append(f"{path.relative_to(tmp_path)},{'red' if i % 2 else 'red round'},{i},{i / 2}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_configs() -> None:
    assert len(CONFIGS) >= 4


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_fits(project: Path, config: Path) -> None:
    cli = main(["fit", "--config", str(config), *QUIET])
    assert cli.trainer.state.finished
    assert "val_loss" in cli.trainer.callback_metrics


def test_fit_validate_test_and_predict(project: Path) -> None:
    config = str(CONFIGS[0].parent / "classify_folder.yaml")
    data = ["--data.init_args.test_fraction=0.2", "--data.init_args.predict_root=photos/dark"]
    common = ["--config", config, *QUIET, *data]
    main(["fit", *common])
    checkpoint = next((project / "checkpoints").glob("*.ckpt"))
    for command in ("validate", "test"):
        main([command, *common, f"--ckpt_path={checkpoint}"])
    main(["predict", *common, f"--ckpt_path={checkpoint}", "--predictions.folder=out"])
    with (project / "out/predictions.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 10
    assert set(rows[0]) == {"file", "class", "probability", "bright", "dark"}
    assert all(Path(row["file"]).is_file() for row in rows)


def test_a_segmentation_predicts_masks_of_the_files_size(project: Path) -> None:
    config = str(CONFIGS[0].parent / "segment_folder.yaml")
    main(["fit", "--config", config, *QUIET])
    checkpoint = next((project / "checkpoints").glob("*.ckpt"))
    common = ["--config", config, *QUIET, f"--ckpt_path={checkpoint}"]
    main(["predict", *common, "--data.init_args.predict_root=shapes/images", "--masks.folder=out"])
    for path in (project / "shapes/images").iterdir():
        with Image.open(project / "out" / path.name) as mask, Image.open(path) as image:
            assert mask.size == image.size
            assert mask.mode == "P"
    assert not (project / "predictions.csv").exists()


def test_a_restoration_predicts_images_of_twice_the_size(project: Path) -> None:
    config = str(CONFIGS[0].parent / "restore_folder.yaml")
    main(["fit", "--config", config, *QUIET])
    checkpoint = next((project / "checkpoints").glob("*.ckpt"))
    common = ["--config", config, *QUIET, f"--ckpt_path={checkpoint}"]
    main(["predict", *common, "--data.init_args.predict_root=photos/dark", "--images.folder=out"])
    with Image.open(project / "out/0.png") as restored, Image.open(project / "photos/dark/0.png") as photo:
        assert restored.size == (photo.width * 2, photo.height * 2)


def test_the_data_decides_the_channels(project: Path) -> None:
    cli = main(["fit", "--config", str(CONFIGS[0].parent / "colorize_folder.yaml"), *QUIET])
    assert (cli.model.hparams["in_channels"], cli.model.hparams["num_outputs"]) == (1, 3)


def test_the_data_decides_the_classes(project: Path) -> None:
    cli = main(["fit", "--config", str(CONFIGS[0].parent / "classify_folder.yaml"), *QUIET])
    assert cli.model.class_names == ["bright", "dark"]
    assert cli.model.hparams["num_classes"] == 2


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--model.init_args.leraning_rate=1", "leraning_rate"),
        ("--trainer.max_epoch=1", "max_epoch"),
        ("--data.init_args.image_sise=3", "image_sise"),
    ],
)
def test_misspelt_keys_are_named(
    project: Path, argument: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(CONFIGS[0]), *QUIET, argument])
    assert message in capsys.readouterr().err


def test_misspelt_yaml_key_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = CONFIGS[0].read_text().replace("pretrained:", "pretraind:")
    (project / "bad.yaml").write_text(text)
    with pytest.raises(SystemExit):
        main(["fit", "--config", "bad.yaml", *QUIET])
    assert "pretraind" in capsys.readouterr().err


def test_num_classes_that_contradicts_the_data_is_refused(project: Path) -> None:
    with pytest.raises(ValueError, match="num_classes"):
        main(["fit", "--config", str(CONFIGS[0]), *QUIET, "--model.init_args.num_classes=5"])


def test_help_comes_at_once() -> None:
    script = (
        "import sys; from lightning_heads.__main__ import run; sys.argv[1:] = ['--help']; run(); "
        "assert not {'torch', 'lightning', 'timm'} & {*sys.modules}"
    )
    shown = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    for name in COMMANDS:
        assert f"  {name} " in shown


def test_help_names_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    named = re.search("{([a-z,-]+)}", capsys.readouterr().out)
    assert named is not None
    assert {*COMMANDS} == {*named[1].split(","), "embed", "nearest"}


@pytest.mark.parametrize("shape", ["FlatCosine", "Restarts", "Constant", "Cycle"])
def test_a_shape_from_yaml_has_its_own_defaults(project: Path, shape: str) -> None:
    import lightning_heads as lh

    config = str(CONFIGS[0].parent / "classify_folder.yaml")
    phases = f'[{{"class_path": "Phases", "init_args": {{"phases": [{{"shape": {{"class_path": "{shape}"}}}}]}}}}]'
    cli = main(["fit", "--config", config, *QUIET, f"--trainer.callbacks={phases}"])
    schedule = next(callback for callback in cli.trainer.callbacks if isinstance(callback, lh.Phases))
    assert schedule.phases[0].shape == getattr(lh, shape)()


def test_overfitting_to_a_batch(project: Path) -> None:
    config = str(CONFIGS[0].parent / "classify_folder.yaml")
    assert main(["fit", "--config", config, *QUIET, "--trainer.overfit_batches=1"]).trainer.global_step == 1
