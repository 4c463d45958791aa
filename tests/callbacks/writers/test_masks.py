import csv
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset

import lightning_heads as lh
from lightning_heads.callbacks.writers.masks import MaskWriter
from lightning_heads.data.images.dataset import ImageDataset
from lightning_heads.data.images.reading import read_image
from lightning_heads.data.transforms.resize import ResizeTo
from lightning_heads.drawing.palette import default_palette
from tests.helpers import run_processes, trainer_for

MakeImage = Callable[..., Path]


class Segmenter(lh.TransferModule):
    def __init__(self, channels: int = 4, multilabel: bool = False, names: list[str] | None = None) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(3, channels, 5, padding=2), nn.CrossEntropyLoss())
        nn.init.normal_(self.model.weight, std=3)
        self.model.bias.data = -self.model.weight.detach().sum(dim=(1, 2, 3)) / 2
        self.multilabel, self.class_names = multilabel, names

    def activation(self, outputs: Tensor) -> Tensor:
        labels = self.multilabel or outputs.shape[1] == 1
        return outputs.sigmoid() if labels else outputs.softmax(dim=1)


def _dataset(files: list[Path]) -> ImageDataset:
    return ImageDataset(files, None, channels=3, size=ResizeTo((20, 28), "squish"))


def _predict(folder: Path, task: lh.TransferModule, data: Dataset[Any], batch_size: int = 1, **settings: Any) -> None:
    writer = MaskWriter(folder / "masks", settings.pop("palette", None))
    loader = DataLoader(data, batch_size, shuffle=settings.pop("shuffle", False))
    trainer_for(folder, [writer], **settings).predict(task, loader, return_predictions=False)


def _resized(task: Segmenter, data: ImageDataset, i: int) -> Tensor:
    """Probabilities `(c, h, w)` at the size of the file."""
    size = read_image(data.paths[i]).shape[-2:]
    with torch.inference_mode():
        return F.interpolate(task.eval().activation(task(data[i][None])), size, mode="bilinear")[0]


def _read(path: Path) -> tuple[str, np.ndarray, list[int] | None]:
    with Image.open(path) as file:
        return file.mode, np.asarray(file), file.getpalette()


@pytest.fixture
def files(make_image: MakeImage) -> list[Path]:
    sizes = [(40, 32), (17, 61), (28, 20), (90, 30)]
    return [make_image(f"photos/{i % 2}/{i}.png", size=size, seed=i) for i, size in enumerate(sizes)]


def _masks(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder / "masks")) for path in folder.glob("masks/**/*.*"))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.filterwarnings("ignore:.*has shuffling enabled")
def test_masks_have_the_size_of_their_files(tmp_path: Path, files: list[Path], batch_size: int, shuffle: bool) -> None:
    task, data = Segmenter(names=["sky", "sea", "sand", "sun"]), _dataset(files)
    _predict(tmp_path, task, data, batch_size, shuffle=shuffle)
    assert _masks(tmp_path) == ["0/0.png", "0/2.png", "1/1.png", "1/3.png", "classes.csv"]
    for i, file in enumerate(files):
        mode, mask, palette = _read(tmp_path / "masks" / file.relative_to(tmp_path / "photos"))
        assert mode == "P"
        assert (mask == _resized(task, data, i).argmax(dim=0).numpy()).mean() > 0.999  # rounding may differ
        assert len(np.unique(mask)) > 1
        assert palette == [value for color in default_palette()[:4] for value in color]
    with (tmp_path / "masks" / "classes.csv").open() as table:
        rows = [*csv.reader(table)]
    assert rows[:3] == [["value", "class", "color"], ["0", "sky", "#000000"], ["1", "sea", "#e69f00"]]
    assert len(rows) == 5


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("extension", ["jpg", "tif", "png"])
def test_exif_orientation_is_applied(tmp_path: Path, extension: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"photo.{extension}"
    noise = np.random.default_rng(0).integers(0, 255, (24, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, exif=exif)
    task, data = Segmenter(), _dataset([path])
    _predict(tmp_path, task, data)
    mask = _read(tmp_path / "masks" / "photo.png")[1]
    assert mask.shape == read_image(path).shape[-2:] == ((50, 24) if orientation > 4 else (24, 50))
    assert (mask == _resized(task, data, 0).argmax(dim=0).numpy()).mean() > 0.999


def test_masks_of_subsets_are_named_by_their_files(tmp_path: Path, files: list[Path]) -> None:
    task, data = Segmenter(names=["caf\udce9", "sea", "sand", "sun"]), _dataset(files)
    _predict(tmp_path, task, Subset(ConcatDataset([Subset(data, [2]), _dataset(files[:2])]), [0, 2]))
    assert _masks(tmp_path) == ["0/2.png", "1/1.png", "classes.csv"]
    for i, name in ((2, "0/2.png"), (1, "1/1.png")):
        mask = _read(tmp_path / "masks" / name)[1]
        assert (mask == _resized(task, data, i).argmax(dim=0).numpy()).mean() > 0.999
    assert r"0,caf\udce9," in (tmp_path / "masks" / "classes.csv").read_text(encoding="utf-8")


def test_files_that_differ_by_extension_get_separate_masks(tmp_path: Path, make_image: MakeImage) -> None:
    names = ["a.png", "a.jpg", "a.jpg.png", "b.png", "c/b.png"]
    files = [make_image(f"photos/{name}", seed=i) for i, name in enumerate(names)]
    _predict(tmp_path, Segmenter(), _dataset([*files, files[0]]))
    assert _masks(tmp_path) == ["a.jpg.png", "a.jpg.png.png", "a.png.png", "b.png", "c/b.png", "classes.csv"]


@pytest.mark.parametrize(("first", "second"), [("left ear", "right/ear"), ("a b", "a/b"), ("..", "up")])
def test_each_label_has_a_folder(tmp_path: Path, files: list[Path], first: str, second: str) -> None:
    task, data = Segmenter(2, multilabel=True, names=[first, second]), _dataset(files)
    _predict(tmp_path, task, data)
    with (tmp_path / "masks" / "classes.csv").open() as table:
        rows = [*csv.DictReader(table)]
    assert [row["class"] for row in rows] == [first, second]
    folders = [row["folder"] for row in rows]
    assert len({*folders}) == 2
    assert len(_masks(tmp_path)) == 2 * len(files) + 1
    for i, file in enumerate(files):
        expected = _resized(task, data, i) > 0.5
        for k, folder in enumerate(folders):
            mode, mask, _ = _read(tmp_path / "masks" / folder / file.relative_to(tmp_path / "photos"))
            assert mode == "L"
            assert ((mask == 255) == expected[k].numpy()).mean() > 0.999
            assert {*np.unique(mask).tolist()} == {0, 255}


def test_masks_of_one_channel_are_in_the_folder_itself(tmp_path: Path, files: list[Path]) -> None:
    task, data = Segmenter(1), _dataset(files)
    _predict(tmp_path, task, data)
    mask = _read(tmp_path / "masks" / "0" / "0.png")[1]
    assert ((mask == 255) == (_resized(task, data, 0)[0] > 0.5).numpy()).mean() > 0.999


class Plain(Dataset[Tensor]):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, i: int) -> Tensor:
        return torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(i))


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Any:
        return iter([Plain()[i] for i in range(5)])


@pytest.mark.parametrize("data", [Plain(), Stream()], ids=["map", "stream"])
@pytest.mark.filterwarnings("ignore:Couldn't infer the batch indices")
def test_masks_of_data_without_paths_are_named_by_index(tmp_path: Path, data: Dataset[Any]) -> None:
    task = Segmenter()
    _predict(tmp_path, task, data, batch_size=2)
    assert _masks(tmp_path) == [*(f"00000{i}.png" for i in range(5)), "classes.csv"]
    with torch.inference_mode():
        expected = task.eval()(torch.stack([Plain()[i] for i in range(5)])).argmax(dim=1).numpy()
    for i in range(5):
        assert (_read(tmp_path / "masks" / f"00000{i}.png")[1] == expected[i]).all()


def test_several_loaders_are_refused(tmp_path: Path) -> None:
    class Two(Segmenter):
        def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
            return super().predict_step(batch, batch_idx)

    with pytest.raises(ValueError, match="Expected one loader to write masks of, but got 2"):
        trainer_for(tmp_path, [MaskWriter()]).predict(Two(), [DataLoader(Plain()), DataLoader(Plain())])


def test_a_custom_palette_is_written(tmp_path: Path) -> None:
    palette = [[i, 255 - i, 7] for i in range(256)]
    _predict(tmp_path, Segmenter(256), Plain(), palette=palette)
    mode, mask, written = _read(tmp_path / "masks" / "000000.png")
    assert mode == "P"
    assert mask.max() > 128
    assert written == [value for color in palette for value in color]


def test_images_of_the_data_set_are_not_overwritten(tmp_path: Path, files: list[Path]) -> None:
    contents = files[0].read_bytes()
    for data in (_dataset(files), Subset(_dataset(files), [0])):
        trainer = trainer_for(tmp_path, [MaskWriter(tmp_path / "photos")])
        with pytest.raises(
            ValueError, match=r"differ from the folders of the data, but .*0/0.png would be overwritten"
        ):
            trainer.predict(Segmenter(), DataLoader(data))
        assert files[0].read_bytes() == contents


class Same(Segmenter):
    """Predicts the masks of a batch, or its images where it has none."""

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return batch if isinstance(batch, Tensor) else F.one_hot(batch[1].clamp(max=1), 2).movedim(-1, 1).float()


def _mask_data(root: Path, **settings: Any) -> lh.MaskFolderData:
    codes = {"wall": 0, "square": 255}
    return lh.MaskFolderData(root, codes=codes, test_fraction=0.2, image_size=24, num_workers=0, **settings)


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*.png")}


@pytest.mark.parametrize("link", [False, True], ids=["folder", "link"])
def test_masks_of_the_data_set_are_not_overwritten(tmp_path: Path, shapes_folder: Path, link: bool) -> None:
    kept = _contents(shapes_folder)
    folder = shapes_folder / "masks"
    if link:
        folder = tmp_path / "link"
        folder.symlink_to(shapes_folder / "masks")
    data = _mask_data(shapes_folder, resize="squish")
    for source in (data, data.test_dataloader()):
        with pytest.raises(ValueError, match=r"differ from the folders of the data, but .*png would be overwritten"):
            trainer_for(tmp_path, [MaskWriter(folder)]).predict(Segmenter(2), source)
    assert _contents(shapes_folder) == kept


def test_the_default_folder_differs_from_that_of_the_data(
    shapes_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = _contents(shapes_folder)
    for _ in range(2):  # the second run may overwrite the files of the first
        trainer_for(shapes_folder, [MaskWriter()]).predict(Segmenter(2), _mask_data(shapes_folder))
        assert f"Wrote masks of 2 images to {shapes_folder / 'predicted_masks'}" in capsys.readouterr().out
    assert len([*shapes_folder.glob("predicted_masks/*.png")]) == 2
    assert {path: content for path, content in _contents(shapes_folder).items() if path in kept} == kept


@pytest.mark.parametrize("targets", [[0, 1, 2, 3, 4], torch.arange(5), ["cat"] * 5, [(0, 1)] * 5])
def test_targets_that_are_not_files_are_accepted(tmp_path: Path, targets: Any) -> None:
    data = Plain()
    data.targets = targets  # type: ignore[attr-defined]
    _predict(tmp_path, Segmenter(), data)
    assert len(_masks(tmp_path)) == 6


@pytest.mark.parametrize("resize", ["crop", "pad", "none"])
def test_masks_of_cropped_or_padded_images_are_refused(tmp_path: Path, shapes_folder: Path, resize: Any) -> None:
    trainer = trainer_for(tmp_path, [MaskWriter(tmp_path / "masks")])
    with pytest.raises(
        ValueError, match=r"all of .*png, but the file is 40x32 pixels .* 24x24: predict with the data module"
    ):
        trainer.predict(Same(2), _mask_data(shapes_folder, resize=resize).test_dataloader())
    assert not [*tmp_path.glob("masks/*.png")]


def test_masks_of_cropped_square_images_are_refused(tmp_path: Path, make_image: MakeImage) -> None:
    data = ImageDataset([make_image("a.png", (40, 40))], None, channels=3, size=ResizeTo((24, 24), "none"))
    with pytest.raises(ValueError, match=r"Expected a prediction of all of .*a.png"):
        _predict(tmp_path, Same(3), data)


@pytest.mark.parametrize("resize", ["crop", "pad", "none", "squish"])
@pytest.mark.parametrize("size", [(40, 32), (17, 61), (200, 2), (24, 24)])
def test_masks_of_uncropped_images_are_written(
    tmp_path: Path, make_image: MakeImage, resize: str, size: tuple[int, int]
) -> None:
    data = ImageDataset([make_image("a.png", size)], None, channels=3, size=ResizeTo((24, 24), resize, whole=True))
    _predict(tmp_path, Same(3), data)
    assert _read(tmp_path / "masks" / "a.png")[1].shape == size[::-1]


def test_test_masks_of_squished_images_fit_their_files(tmp_path: Path, shapes_folder: Path) -> None:
    data = _mask_data(shapes_folder, resize="squish")
    trainer_for(tmp_path, [MaskWriter(tmp_path / "masks")]).predict(Same(2), data.test_dataloader())
    files = data.samples["test"].paths
    assert len(files) == 2
    for file in files:
        true = _read(shapes_folder / "masks" / file.name)[1] > 0
        predicted = _read(tmp_path / "masks" / file.name)[1] > 0
        assert (true & predicted).sum() > 0.85 * (true | predicted).sum()


def test_predictions_that_are_not_masks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected predictions of \(b, c, h, w\) .* but got \(1, 3\)"):
        _predict(tmp_path, lh.TransferModule(nn.Identity(), nn.MSELoss()), _Vectors())
    with pytest.raises(ValueError, match=r"Expected 256 classes or fewer, .* but got 257"):
        _predict(tmp_path, Segmenter(257), Plain())
    with pytest.raises(ValueError, match="Expected `palette` to have 4 colors, one a class, but got 1"):
        _predict(tmp_path, Segmenter(4), Plain(), palette=[[0, 0, 0]])


class _Vectors(Plain):
    def __getitem__(self, i: int) -> Tensor:
        return torch.zeros(3)


def _write(folder: Path, files: list[Path], world_size: int) -> int:
    strategy = "ddp" if world_size > 1 else "auto"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _predict(folder / str(world_size), Segmenter(), _dataset(files), devices=world_size, strategy=strategy)
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def test_two_processes_write_what_one_writes(tmp_path: Path, make_image: MakeImage) -> None:
    files = [make_image(f"photos/{i}.png", size=(30 + i, 25), seed=i) for i in range(5)]
    assert run_processes(_write, 2, tmp_path, tmp_path, files, 2) == [2, 2]
    assert _write(tmp_path, files, 1) == 1
    assert _masks(tmp_path / "1") == _masks(tmp_path / "2")
    for file in files:
        one, two = (_read(tmp_path / n / "masks" / file.name)[1] for n in ("1", "2"))
        assert (one == two).all()
