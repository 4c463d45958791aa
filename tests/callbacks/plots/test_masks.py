from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from lightning.pytorch.loggers import CSVLogger
from PIL import Image, ImageCms
from sklearn.metrics import jaccard_score
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

import lightning_heads as lh
from lightning_heads.callbacks.plots import samples as sample_plot
from lightning_heads.callbacks.plots.masks import MaskPlot
from lightning_heads.drawing.palette import class_colors, default_palette
from lightning_heads.drawing.sheet import Row
from tests.helpers import ExperimentLogger, ImageLogger, run_processes, trainer_for

IGNORE = 9
# left and top of the first picture of a sheet, and the distance to the next one
LEFT, TOP, STEP = 14, 60, 160 + 14


class Masks(Dataset[Any]):
    """Random images, and masks that are computed from the values of their channels."""

    def __init__(self, size: int, kind: str, side: int = 20) -> None:
        generator = torch.Generator().manual_seed(1)
        self.images = torch.rand(size, 3, side, side, generator=generator)
        red, green, blue = self.images.unbind(1)
        self.targets = {
            "classes": (red * 3).long(),
            "labels": torch.stack([red > 0.5, green > 0.8, blue > 2], dim=1).float(),
            "binary": (red > 0.6).long(),
        }[kind]
        self.targets[:, ..., : side // 4, :] = IGNORE
        self.paths = [Path(f"photos/{i}.png") for i in range(size)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.images[i], self.targets[i]


class Segmenter(lh.TransferModule):
    class_names = ("grass", "tree", "house")
    ignore_index = IGNORE

    def __init__(self, kind: str) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(3, 1 if kind == "binary" else 3, 1), nn.CrossEntropyLoss(ignore_index=IGNORE))
        nn.init.normal_(self.model.weight, std=3)
        self.model.bias.data = -self.model.weight.detach().sum(dim=(1, 2, 3)) / 2
        self.kind, self.multilabel = kind, kind == "labels"
        if kind != "classes":
            self.criterion = _Mean()

    def activation(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(dim=1) if self.kind == "classes" else outputs.sigmoid()


class _Mean(nn.Module):
    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        return outputs.mean()


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Row]]:
    """Records the rows of every sheet that is drawn, by its title."""
    drawn: dict[str, list[Row]] = {}
    draw = sample_plot.draw_sheet

    def record(title: str, columns: Any, rows: list[Row]) -> Image.Image:
        drawn[title] = rows
        return draw(title, columns, rows)

    monkeypatch.setattr(sample_plot, "draw_sheet", record)
    return drawn


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file)


def _expected(task: Segmenter, data: Masks) -> list[float]:
    """Mean IoU of each image, by scikit-learn."""
    with torch.inference_mode():
        predictions = task.activation(task(data.images))
    scores = []
    for prediction, target in zip(predictions.numpy(), data.targets.numpy(), strict=True):
        if task.kind == "classes":
            kept = target != IGNORE
            scores.append(jaccard_score(target[kept], prediction.argmax(0)[kept], average="macro"))
            continue
        parts = []
        for true, guess in zip(np.broadcast_to(target, prediction.shape), prediction > 0.5, strict=True):
            kept = true != IGNORE
            if (true[kept] > 0).any() or guess[kept].any():
                parts.append(jaccard_score(true[kept] > 0, guess[kept]))
        scores.append(np.mean(parts))
    return scores


@pytest.mark.parametrize("kind", ["classes", "labels", "binary"])
def test_the_worst_and_the_fixed_samples_are_drawn(tmp_path: Path, kind: str, sheets: dict[str, list[Row]]) -> None:
    data, task = Masks(11, kind), Segmenter(kind)
    trainer_for(tmp_path, [MaskPlot(count=3)]).test(task, DataLoader(data, 4), verbose=False)
    scores = _expected(task, data)
    assert len({*scores}) > 8
    worst = sorted(range(11), key=scores.__getitem__)[:3]
    for which, expected in (("worst", worst), ("fixed", [0, 3, 7])):
        rows = sheets[f"test masks, {which}"]
        assert [row.captions for row in rows] == [[f"photos/{i}.png", "", f"IoU {scores[i]:.3f}"] for i in expected]
        assert min(_read(tmp_path / "pictures" / f"test_masks_{which}.png").shape[:2]) > 3 * 160
    assert len([*tmp_path.rglob("*.png")]) == 2
    assert not [*tmp_path.rglob("*.partial")]


@pytest.mark.parametrize("kind", ["classes", "binary"])
def test_pixels_have_the_colors_of_their_class(tmp_path: Path, kind: str) -> None:
    data, task = Masks(1, kind), Segmenter(kind)
    palette = [[0, 0, 0], [200, 0, 0], [0, 200, 0], [0, 0, 200]]
    trainer_for(tmp_path, [MaskPlot(tmp_path, 1, palette)]).test(task, DataLoader(data), verbose=False)
    sheet = _read(tmp_path / "test_masks_worst.png").astype(float)
    image = (data.images[0].permute(1, 2, 0).numpy() * 255).round()
    with torch.inference_mode():
        predictions = task.activation(task(data.images))[0].numpy()
    shown = [sheet[TOP + 4 : TOP + 160 : 8, LEFT + 4 + i * STEP : LEFT + 160 + i * STEP : 8] for i in range(3)]
    for i, picture in enumerate(shown):  # every pixel is 8 by 8 equal ones, but for the hatching
        whole = sheet[TOP + 40 * (i == 1) : TOP + 160, LEFT + i * STEP : LEFT + 160 + i * STEP]
        assert (whole == picture[5 * (i == 1) :].repeat(8, 0).repeat(8, 1)).all()
    assert (shown[0] == image).all()
    guess = predictions.argmax(0) if kind == "classes" else (predictions[0] > 0.5).astype(int)
    for picture, mask in ((shown[1][5:], data.targets[0].numpy()[5:]), (shown[2], guess)):
        background = image[-len(picture) :]
        tinted = (background * 0.45 + np.array(palette)[mask] * 0.55).round()
        untouched = (mask == 0)[..., None] & (kind == "binary")
        assert np.abs(picture - np.where(untouched, background, tinted)).max() <= 1
    hatched = sheet[TOP : TOP + 40, LEFT + STEP : LEFT + STEP + 160]
    assert np.abs(hatched - hatched.mean(axis=2, keepdims=True)).max() < 60  # grayish
    assert hatched.std() > 20


def test_the_legend_has_the_classes_that_are_drawn(tmp_path: Path, sheets: dict[str, list[Row]]) -> None:
    data, task = Masks(2, "labels"), Segmenter("labels")
    torch.nn.init.constant_(task.model.bias[2], -100)  # the last label is neither true nor predicted
    trainer_for(tmp_path, [MaskPlot(tmp_path, 1)]).test(task, DataLoader(data), verbose=False)
    entries = {name: color for _, name, color in sheets["test masks, fixed"][0].legend}
    assert entries == {"grass": default_palette()[1], "tree": default_palette()[2], "ignored": None}
    sheet = _read(tmp_path / "test_masks_fixed.png")
    for color in (default_palette()[1], default_palette()[2]):
        assert (sheet[TOP + 160 :] == color).all(axis=2).sum() > 100


class Memory(MaskPlot):
    most = 0  # samples kept at once

    def on_validation_batch_end(self, *args: Any) -> None:
        super().on_validation_batch_end(*args)
        self.most = max(self.most, sum(len(each.worst) + len(each.fixed) for each in self._selections))


def test_every_epoch_is_drawn_and_logged_with_bounded_memory(tmp_path: Path) -> None:
    data, task = Masks(30, "classes"), Segmenter("classes")
    plot, loggers = Memory(tmp_path, 2), [ImageLogger(), ExperimentLogger(), CSVLogger(tmp_path)]
    trainer = trainer_for(tmp_path, [plot], 2, logger=loggers, log_every_n_steps=1)
    trainer.fit(task, DataLoader(Masks(4, "classes"), 2), DataLoader(data, 3))
    names = [f"val_masks_{which}_epoch_00{epoch}.png" for which in ("fixed", "worst") for epoch in (0, 1)]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == names
    expected = [(f"val_masks_{which}", step) for step in (2, 4) for which in ("worst", "fixed")]
    assert loggers[0].tags == loggers[1].tags == expected
    assert plot.most == 4


def test_sanity_checking_draws_nothing(tmp_path: Path) -> None:
    logger = ImageLogger()
    trainer = trainer_for(tmp_path, [MaskPlot(tmp_path)], 1, logger=logger, limit_train_batches=0)
    loader = DataLoader(Masks(4, "classes"), 2)
    trainer.fit(Segmenter("classes"), loader, loader)
    assert logger.tags == []
    assert not [*tmp_path.glob("*.png")]


def test_a_validation_after_a_fit_uses_its_own_data_loader(tmp_path: Path, sheets: dict[str, list[Row]]) -> None:
    trainer = trainer_for(tmp_path, [MaskPlot(tmp_path, 1)], 1, log_every_n_steps=1)
    task, other = Segmenter("classes"), Masks(3, "classes")
    other.paths = [Path(f"other/{i}.png") for i in range(3)]
    trainer.fit(task, DataLoader(Masks(4, "classes"), 2), DataLoader(Masks(4, "classes"), 2))
    trainer.validate(task, DataLoader(other, 2), verbose=False)
    assert sheets["val masks, fixed, epoch 1"][0].captions[0] == "other/0.png"


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(Masks(6, "classes"))


def test_limited_batches_and_iterable_data_sets_are_drawn(tmp_path: Path, sheets: dict[str, list[Row]]) -> None:
    data, task = Masks(12, "classes"), Segmenter("classes")
    trainer = trainer_for(tmp_path, [MaskPlot(tmp_path, 2)], limit_test_batches=2)
    trainer.test(task, DataLoader(data, 3), verbose=False)
    assert [row.captions[0] for row in sheets["test masks, fixed"]] == ["photos/0.png", "photos/3.png"]
    trainer.test(task, DataLoader(Stream(), 2), verbose=False)
    assert [row.captions[0] for row in sheets["test masks, fixed"]] == ["0", "1"]


def test_steps_without_predictions_draw_nothing(tmp_path: Path) -> None:
    class Other(Segmenter):
        def test_step(self, batch: Any, batch_idx: int) -> Any:
            return super().test_step(batch, batch_idx)["loss"]

    trainer_for(tmp_path, [MaskPlot(tmp_path)]).test(Other("classes"), DataLoader(Masks(2, "classes")), verbose=False)
    assert not [*tmp_path.glob("*.png")]


@pytest.mark.parametrize(
    ("height", "width", "drawn"), [(20, 10, (160, 80)), (600, 1024, (300, 512)), (200, 100, (200, 100))]
)
def test_sizes_of_pictures(height: int, width: int, drawn: tuple[int, int]) -> None:
    row = MaskPlot().draw(
        Segmenter("classes"),
        torch.rand(3, height, width),
        torch.rand(3, height, width),
        torch.ones(height, width),
        0.5,
        "",
    )
    assert {picture.shape for picture in row.pictures} == {(*drawn, 3)}


def test_the_iou_of_a_sample_without_valid_pixels_is_one() -> None:
    target = torch.full((2, 4, 4), IGNORE)
    target[1] = 1
    assert MaskPlot().scores(Segmenter("classes"), torch.rand(2, 3, 4, 4), target)[0] == 1
    binary = MaskPlot().scores(Segmenter("binary"), torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4))
    assert binary.tolist() == [1]


def test_a_shuffled_loader_is_refused(tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path, [MaskPlot(tmp_path)])
    with (
        pytest.warns(UserWarning, match="shuffling"),
        pytest.raises(ValueError, match="Expected a data loader that does not shuffle"),
    ):
        trainer.test(Segmenter("classes"), DataLoader(Masks(4, "classes"), shuffle=True), verbose=False)


class Reversed(BatchSampler):
    def __iter__(self) -> Iterator[list[int]]:
        return reversed([*super().__iter__()])


SIX, SHUFFLED = Masks(6, "classes"), SubsetRandomSampler(range(6))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"sampler": SHUFFLED}, "SubsetRandomSampler"),
        ({"sampler": WeightedRandomSampler([1.0] * 6, 6)}, "WeightedRandomSampler"),
        ({"sampler": DistributedSampler(SIX, 2, 0)}, "DistributedSampler"),
        ({"sampler": DistributedSamplerWrapper(SHUFFLED, 2, 0, shuffle=False)}, "DistributedSamplerWrapper"),
        ({"batch_sampler": BatchSampler(SHUFFLED, 2, False)}, "SubsetRandomSampler"),
        ({"batch_sampler": Reversed(SequentialSampler(SIX), 2, False)}, "Reversed"),
        ({"batch_size": None, "sampler": SHUFFLED}, "SubsetRandomSampler"),
    ],
)
def test_samplers_that_change_the_order_are_refused(tmp_path: Path, settings: dict[str, Any], name: str) -> None:
    trainer = trainer_for(tmp_path, [MaskPlot(tmp_path)])
    with pytest.raises(ValueError, match=f"does not shuffle, .* but its sampler is {name}"):
        trainer.test(Segmenter("classes"), DataLoader(SIX, **settings), verbose=False)


@pytest.mark.parametrize(
    ("settings", "files"),
    [
        ({"batch_size": 2, "sampler": DistributedSampler(SIX, 2, 1, shuffle=False)}, ["photos/1.png", "photos/3.png"]),
        ({"batch_sampler": BatchSampler(SequentialSampler(SIX), 4, False)}, ["photos/0.png", "photos/3.png"]),
        ({"sampler": [5, 2, 3]}, ["photos/2.png", "photos/5.png"]),
        ({"batch_sampler": [[5, 2], [3]]}, ["photos/2.png", "photos/5.png"]),
        ({"dataset": Subset(SIX, [4, 1])}, ["photos/4.png", "photos/1.png"]),
    ],
)
@pytest.mark.filterwarnings("ignore:Using `DistributedSampler`")
def test_samplers_that_keep_the_order_name_their_files(
    tmp_path: Path, settings: dict[str, Any], files: list[str], sheets: dict[str, list[Row]]
) -> None:
    trainer_for(tmp_path, [MaskPlot(tmp_path, 2)]).test(
        Segmenter("classes"), DataLoader(**{"dataset": SIX, **settings}), verbose=False
    )
    assert [row.captions[0] for row in sheets["test masks, fixed"]] == files


def test_each_loader_has_pictures(tmp_path: Path, sheets: dict[str, list[Row]]) -> None:
    class Two(Segmenter):
        def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
            return super().test_step(batch, batch_idx)

    loaders = [DataLoader(SIX, 4), DataLoader(Subset(SIX, [5]))]
    trainer_for(tmp_path, [MaskPlot(tmp_path, 2)]).test(Two("classes"), loaders, verbose=False)
    names = [f"test_masks_{which}_{number}.png" for which in ("fixed", "worst") for number in (0, 1)]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == names
    assert [row.captions[0] for row in sheets["test masks, fixed of loader 0"]] == ["photos/0.png", "photos/3.png"]
    assert [row.captions[0] for row in sheets["test masks, worst of loader 1"]] == ["photos/5.png"]


def test_test_time_augmentation_uses_the_ignore_index_of_its_task(tmp_path: Path, sheets: dict[str, list[Row]]) -> None:
    data, task = Masks(4, "labels"), Segmenter("labels")
    for module in (task, lh.TestTimeAugmentation(task, "flips", beta=1.0)):
        trainer_for(tmp_path, [MaskPlot(tmp_path, 4)]).test(module, DataLoader(data, 2), verbose=False)
        captions = [row.captions[2] for row in sheets.pop("test masks, fixed")]
        assert captions == [f"IoU {score:.3f}" for score in _expected(task, data)]


@pytest.mark.parametrize(
    ("count", "multilabel", "palette", "message"),
    [
        (257, False, None, "257 colors, one a class, but the default one has 256"),
        (256, True, None, "257 colors, one a class, but the default one has 256"),
        (3, False, [[0, 0, 0]] * 2, "3 colors, one a class, but got 2"),
    ],
)
def test_too_many_classes_are_refused_before_training(
    tmp_path: Path, count: int, multilabel: bool, palette: list[list[int]] | None, message: str
) -> None:
    task = Segmenter("classes")
    task.class_names, task.multilabel = tuple(map(str, range(count))), multilabel
    trainer = trainer_for(tmp_path, [MaskPlot(tmp_path, palette=palette)], 1, num_sanity_val_steps=0)
    with pytest.raises(ValueError, match=f"Expected `palette` to have {message}"):
        trainer.fit(task, DataLoader(SIX, 2), DataLoader(SIX, 2))
    assert trainer.global_step == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "Expected `count` to be at least 1, but got 0"),
        ({"palette": [[0, 0]]}, r"red, green and blue in 0..255, but got \[0, 0\]"),
        ({"palette": [[0, 0, 256]]}, "red, green and blue in 0..255, but got"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskPlot(**settings)


def test_a_short_palette_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected `palette` to have 3 colors, one a class, but got 1"):
        class_colors([[0, 0, 0]], 3)


def _lab(colors: Sequence[Sequence[int]]) -> np.ndarray:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = np.asarray(ImageCms.applyTransform(Image.fromarray(np.array([colors], np.uint8)), to_lab))[0].astype(float)
    lab[:, 0] *= 100 / 255
    lab[:, 1:] = (lab[:, 1:] + 128) % 256
    return lab


@pytest.mark.parametrize(("count", "distance"), [(8, 25), (32, 11), (64, 9), (256, 4)])
def test_colors_are_distinguishable(count: int, distance: float) -> None:
    lab = _lab(default_palette()[:count])
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[np.triu_indices(count, 1)]
    assert distances.min() > distance


def _test(folder: Path, world_size: int) -> bool:
    strategy = "ddp" if world_size > 1 else "auto"
    trainer = trainer_for(folder, [MaskPlot(folder / str(world_size), 3)], devices=world_size, strategy=strategy)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.test(Segmenter("classes"), DataLoader(Masks(7, "classes"), 2), verbose=False)
    return trainer.is_global_zero


def test_two_processes_draw_what_one_draws(tmp_path: Path) -> None:
    assert run_processes(_test, 2, tmp_path, tmp_path, 2) == [True, False]
    assert _test(tmp_path, 1)
    worst, fixed = (
        [_read(tmp_path / n / f"test_masks_{which}.png") for n in ("1", "2")] for which in ("worst", "fixed")
    )
    assert (worst[0] == worst[1]).all()
    assert fixed[0].shape == fixed[1].shape
