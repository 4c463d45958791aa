"""Training on cached features gives the same heads as on images, and the encoder encodes each image once."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

import lightning_heads as lh
from lightning_heads.data.images.reading import read_image
from tests.helpers import run_processes, trainer_for

FROZEN = 3


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.rand(3, 32, 32), 0)] * 8)


class Batches:
    """An iterable of batches that is no `DataLoader`, which Lightning accepts too."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]))])


class Count(L.Callback):
    """Counts the images that the encoder has encoded by the end of each epoch."""

    def __init__(self) -> None:
        self.seen, self.epochs = 0, list[int]()

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        model: Any = pl_module.model
        model.encoder.register_forward_pre_hook(self._add)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epochs.append(self.seen)

    def _add(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.seen += len(args[0])


@pytest.fixture
def photos(make_image: Callable[..., Path], tmp_path: Path) -> Path:
    for i in range(20):
        make_image(f"levels/{i % 2}/{i}.png", level=70 + 100 * (i % 2), seed=i)
    return tmp_path / "levels"


def _data(kind: str, photos: Path, num_workers: int = 0) -> L.LightningDataModule:
    options: dict[str, Any] = {"image_size": 32, "batch_size": 4, "num_workers": num_workers, "augment": False}
    if kind == "pairs":
        return lh.PairFolderData(photos, resize="squish", **options)
    images_per_class = 2 if kind == "embeddings" else None
    return lh.ImageFolderData(photos, resize="squish", images_per_class=images_per_class, **options)


def _task(kind: str) -> lh.TransferModule:
    torch.manual_seed(0)
    if kind == "images":
        return lh.ImageClassifier("test_resnet", 2, pretrained=False, ps=0.0, lr=1e-2)
    if kind == "hypercolumns":
        return lh.ImageClassifier("test_resnet", 2, pretrained=False, ps=0.0, lr=1e-2, hypercolumns=True)
    if kind == "embeddings":
        return lh.ImageEmbedder("test_resnet", 8, pretrained=False, lr=1e-2)
    return lh.PairClassifier("test_resnet", pretrained=False, ps=0.0, lr=1e-2)


def _phases() -> lh.Phases:
    return lh.Phases([lh.Phase(FROZEN, train_from=-1, norm="eval"), lh.Phase(1, lr=1e-4)])


@pytest.mark.parametrize("kind", ["images", "hypercolumns", "pairs", "embeddings"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_trains_the_same_head_as_on_images(kind: str, num_workers: int, photos: Path, tmp_path: Path) -> None:
    heads, losses, counts = [], [], []
    for extra in ([], [lh.FeatureCache(progress=False)]):
        L.seed_everything(1, verbose=False)
        task, count = _task(kind), Count()
        frozen = lh.Phases([lh.Phase(FROZEN, train_from=-1, norm="eval")])
        trainer = trainer_for(tmp_path, [frozen, count, *extra], epochs=FROZEN)
        trainer.fit(task, _data(kind, photos, num_workers))
        assert not task.takes_features
        heads.append([*task.model.head.state_dict().values()])
        losses.append(trainer.callback_metrics["val_loss"])
        counts.append(count.epochs)
    for live, cached in zip(*heads, strict=True):
        torch.testing.assert_close(cached, live, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(losses[1], losses[0], atol=1e-5, rtol=1e-5)
    sanity = 8 if kind == "pairs" else 4
    # the sanity check encodes a batch of images, and one image of each set is encoded first for the features' shape
    assert counts[1] == [sanity + 20 + 2] * FROZEN
    assert counts[0][0] >= sanity + (40 if kind == "pairs" else 20)


def test_images_are_used_again_when_the_encoder_trains(photos: Path, tmp_path: Path) -> None:
    states = []
    for extra in ([], [lh.FeatureCache(progress=False)]):
        L.seed_everything(1, verbose=False)
        task, count = _task("images"), Count()
        trainer_for(tmp_path, [_phases(), *extra, count], epochs=FROZEN + 1).fit(task, _data("images", photos))
        states.append({name: value.clone() for name, value in task.model.state_dict().items()})
    assert count.epochs[-1] == count.epochs[FROZEN - 1] + 20  # those of the last epoch, and its validation
    for name, live in states[0].items():
        torch.testing.assert_close(states[1][name], live, atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize("norm", ["train", "stats"])
def test_an_encoder_that_changes_is_not_cached(norm: Any, photos: Path, tmp_path: Path) -> None:
    count = Count()
    phases = lh.Phases([lh.Phase(2, train_from=-1, norm=norm)])
    trainer = trainer_for(tmp_path, [phases, lh.FeatureCache(progress=False), count], epochs=2)
    with pytest.warns(UserWarning, match="No phase trains the head alone"):
        trainer.fit(_task("images"), _data("images", photos))
    assert count.epochs[1] == count.epochs[0] + 20


def test_an_epoch_that_unfreezes_is_trained_on_images(photos: Path, tmp_path: Path) -> None:
    count = Count()
    phases = lh.Phases([lh.Phase(1.5, train_from=-1, norm="eval"), lh.Phase(0.5)])
    trainer = trainer_for(tmp_path, [phases, lh.FeatureCache(progress=False), count], epochs=2)
    trainer.fit(_task("images"), _data("images", photos))
    assert count.epochs[1] == count.epochs[0] + 20


def test_views_are_augmented_and_drawn(photos: Path, tmp_path: Path) -> None:
    seen: list[Tensor] = []

    class Keep(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, i: int) -> None:
            seen.append(batch[0])

    count = Count()
    phases = lh.Phases([lh.Phase(8, train_from=-1, norm="eval")])
    trainer = trainer_for(
        tmp_path, [phases, lh.FeatureCache(views=3, progress=False), count, Keep()], epochs=8, limit_val_batches=0
    )
    data = lh.ImageFolderData(photos, image_size=32, batch_size=16, num_workers=0)
    trainer.fit(_task("images"), data)
    assert count.seen == 3 * 16 + 1
    assert len(torch.unique(torch.cat(seen), dim=0)) > 2 * 16


@pytest.mark.parametrize("num_workers", [0, 2])
def test_files_are_read_once_for_all_views(
    num_workers: int, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "read.txt"

    def counted(path: Path, **reading: Any) -> Tensor:
        with log.open("a") as file:  # workers write it too
            file.write(f"{path}\n")
        return read_image(path, **reading)

    monkeypatch.setattr("lightning_heads.data.images.dataset.read_image", counted)
    phases = lh.Phases([lh.Phase(2, train_from=-1, norm="eval")])
    trainer = trainer_for(tmp_path, [phases, lh.FeatureCache(views=3, progress=False)], epochs=2, limit_val_batches=0)
    trainer.fit(_task("images"), lh.ImageFolderData(photos, image_size=32, batch_size=4, num_workers=num_workers))
    read = log.read_text().splitlines()
    assert len(set(read)) == 16
    assert len(read) <= 16 + 1  # another worker reads one of them first, for the features' shape


def test_a_second_frozen_phase_encodes_again(photos: Path, tmp_path: Path) -> None:
    states = []
    for extra in ([], [lh.FeatureCache(progress=False)]):
        L.seed_everything(1, verbose=False)
        task = _task("images")
        frozen = lh.Phase(1, train_from=-1, norm="eval")
        trainer_for(tmp_path, [lh.Phases([frozen, lh.Phase(1, lr=1e-2), frozen]), *extra]).fit(
            task, _data("images", photos)
        )
        states.append(task.model.state_dict())
    for name, live in states[0].items():
        torch.testing.assert_close(states[1][name], live, atol=1e-4, rtol=1e-4, msg=name)


def test_resuming_in_an_epoch_that_unfreezes_gives_equal_weights(photos: Path, tmp_path: Path) -> None:
    def run(callbacks: list[L.Callback], path: Path | None = None) -> lh.TransferModule:
        L.seed_everything(1, verbose=False)
        task = _task("images")
        phases = lh.Phases([lh.Phase(1.5, train_from=-1, norm="eval"), lh.Phase(0.5)])
        data = lh.ImageFolderData(photos, image_size=32, batch_size=4, num_workers=0)
        trainer_for(tmp_path, [phases, lh.FeatureCache(progress=False), *callbacks], 2).fit(task, data, ckpt_path=path)
        return task

    uninterrupted = run([_Save(4, tmp_path / "half.ckpt")])
    resumed = run([], tmp_path / "half.ckpt")
    for name, value in uninterrupted.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, atol=1e-5, rtol=1e-5, msg=name)


def test_an_encoder_that_trains_beside_cached_features_is_an_error(photos: Path, tmp_path: Path) -> None:
    class Unfreeze(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
            pl_module.requires_grad_(True)

    frozen = lh.Phases([lh.Phase(1, train_from=-1, norm="eval")])
    with pytest.raises(RuntimeError, match="Expected the encoder to be frozen"):
        trainer_for(tmp_path, [frozen, Unfreeze(), lh.FeatureCache(progress=False)], 1).fit(
            _task("images"), _data("images", photos)
        )


class Labeled(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.rand(3, 32, 32), torch.tensor(index % 2)


def test_targets_from_workers_keep_no_shared_memory_open(tmp_path: Path) -> None:
    shared: list[bool] = []

    class Look(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
            loop: Any = trainer.fit_loop
            dataset = loop._combined_loader.flattened[0].dataset
            shared.extend(dataset[i][1].is_shared() for i in range(len(dataset)))

    frozen = lh.Phases([lh.Phase(1, train_from=-1, norm="eval")])
    trainer = trainer_for(tmp_path, [frozen, lh.FeatureCache(progress=False), Look()], 1)
    trainer.fit(_task("images"), DataLoader(Labeled(), 4, num_workers=1))
    assert shared
    assert not any(shared)


def test_loaders_of_the_user_yield_images_after_the_run(tmp_path: Path) -> None:
    loaders = CombinedLoader([DataLoader(Labeled(), 4)], "sequential")
    frozen = lh.Phases([lh.Phase(1, train_from=-1, norm="eval")])
    trainer = trainer_for(tmp_path, [frozen, lh.FeatureCache(progress=False)], 1)
    trainer.fit(_task("images"), DataLoader(Labeled(), 4), loaders)
    assert next(iter(loaders))[0][0].shape == (4, 3, 32, 32)


def test_averaged_weights_are_evaluated_on_images(photos: Path, tmp_path: Path) -> None:
    losses = []
    for extra in ([], [lh.FeatureCache(progress=False)]):
        L.seed_everything(1, verbose=False)
        frozen = lh.Phase(1, train_from=-1, norm="eval")
        phases = lh.Phases([frozen, lh.Phase(1, lr=1e-2), frozen])
        trainer = trainer_for(tmp_path, [phases, *extra, lh.EMA(0.9)])
        trainer.fit(_task("images"), _data("images", photos))
        losses.append(trainer.callback_metrics["val_loss"])
    torch.testing.assert_close(losses[1], losses[0], atol=1e-5, rtol=1e-5)


def test_other_precisions(photos: Path, tmp_path: Path) -> None:
    for precision in ("bf16-true", "bf16-mixed", "64-true"):
        phases = lh.Phases([lh.Phase(1, train_from=-1, norm="eval")])
        trainer = trainer_for(tmp_path, [phases, lh.FeatureCache(progress=False)], 1, precision=precision)
        trainer.fit(_task("images"), _data("images", photos))
        assert torch.isfinite(trainer.callback_metrics["val_loss"])


def test_any_loader_is_cached(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(torch.rand(10, 3, 32, 32), torch.arange(10) % 2), 4, shuffle=True)
    count = Count()
    phases = lh.Phases([lh.Phase(3, train_from=-1, norm="eval")])
    trainer = trainer_for(tmp_path, [phases, lh.FeatureCache(progress=False), count], epochs=3)
    trainer.fit(_task("images"), loader)
    assert count.epochs == [11, 11, 11]


@pytest.mark.parametrize("step", [4, 6, 8, 10, 12, 13])  # an epoch has 4 steps
@pytest.mark.parametrize("norm_images", [0, 8])
def test_a_resumed_run_gives_equal_weights(step: int, norm_images: int, photos: Path, tmp_path: Path) -> None:
    def run(callbacks: list[L.Callback], path: Path | None = None) -> lh.TransferModule:
        L.seed_everything(1, verbose=False)
        task = _task("images")
        cache = lh.FeatureCache(views=2, norm_images=norm_images, progress=False)
        data = lh.ImageFolderData(photos, image_size=32, batch_size=4, num_workers=0)
        trainer_for(tmp_path, [_phases(), cache, *callbacks], epochs=FROZEN + 1).fit(task, data, ckpt_path=path)
        return task

    uninterrupted = run([_Save(step, tmp_path / "half.ckpt")])
    resumed = run([], tmp_path / "half.ckpt")
    for name, value in uninterrupted.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("step", [2, 6])
def test_resuming_from_a_checkpoint_saved_on_exception_is_exact(step: int, photos: Path, tmp_path: Path) -> None:
    class Fail(lh.ImageClassifier):
        fails = False

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if self.fails and self.trainer.global_step == step:
                raise RuntimeError("out of memory")
            return super().training_step(batch, batch_idx)

    class Save(L.Callback):
        def on_exception(self, trainer: L.Trainer, *args: Any) -> None:
            trainer.save_checkpoint(tmp_path / "stopped.ckpt")

    def run(fails: bool, path: Path | None = None) -> lh.TransferModule:
        L.seed_everything(1, verbose=False)
        task = Fail("test_resnet", 2, pretrained=False, lr=1e-2)
        task.fails = fails
        data = lh.ImageFolderData(photos, image_size=32, batch_size=4, num_workers=0)
        callbacks = [_phases(), lh.FeatureCache(views=2, progress=False), Save()]
        trainer_for(tmp_path, callbacks, FROZEN + 1).fit(task, data, ckpt_path=path, weights_only=True)
        return task

    with pytest.raises(RuntimeError, match="out of memory"):
        run(True)
    resumed, uninterrupted = run(False, tmp_path / "stopped.ckpt"), run(False)
    for name, value in uninterrupted.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, atol=1e-5, rtol=1e-5, msg=name)


class _Save(L.Callback):
    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def _fit_rank(photos: Path, world_size: int) -> tuple[list[int], dict[str, Tensor], float]:
    L.seed_everything(1, verbose=False)
    task, count = _task("pairs"), Count()
    frozen = lh.Phases([lh.Phase(FROZEN, train_from=-1, norm="eval")])
    callbacks = [frozen, lh.FeatureCache(progress=False), count]
    strategy: Any = {"strategy": DDPStrategy(), "devices": world_size} if world_size > 1 else {}
    trainer = trainer_for(photos, callbacks, FROZEN, num_sanity_val_steps=0, **strategy)
    trainer.fit(task, _data("pairs", photos))
    return (
        count.epochs,
        {k: v.clone() for k, v in task.model.head.named_parameters()},
        float(trainer.callback_metrics["val_loss"]),
    )


def test_each_rank_encodes_a_part_of_the_images(photos: Path, tmp_path: Path) -> None:
    ranks = run_processes(_fit_rank, 2, tmp_path, photos, 2)
    assert ranks is not None
    (seen, head, loss), (other_seen, other_head, other_loss) = ranks
    assert seen == other_seen == [12] * FROZEN
    assert loss == other_loss
    for name, value in head.items():
        torch.testing.assert_close(other_head[name], value, atol=0, rtol=0)


def test_unsupported_runs_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`views` to be at least 1, but got 0"):
        lh.FeatureCache(views=0)
    with pytest.raises(ValueError, match=r"a schedule, such as `FineTune.norm=.eval..`, before `FeatureCache`"):
        trainer_for(tmp_path, [lh.FeatureCache()]).fit(_task("images"), _data("images", photos))
    pairs = DataLoader(TensorDataset(*torch.rand(2, 4, 3, 32, 32), torch.arange(4) % 2), 4)
    frozen = lh.Phases([lh.Phase(1, train_from=-1, norm="eval")])
    with pytest.raises(ValueError, match=r"loaders of `PairedImages`.*, but got TensorDataset"):
        trainer_for(tmp_path, [frozen, lh.FeatureCache(progress=False)], epochs=1).fit(_task("pairs"), pairs)
    cache = [_phases(), lh.FeatureCache(progress=False)]
    refused: list[tuple[list[L.Callback], dict[str, Any], str]] = [
        ([*cache, lh.MixUpCutMix()], {}, "no `MixUpCutMix` with `FeatureCache`"),
        (cache, {"reload_dataloaders_every_n_epochs": 1}, "`reload_dataloaders_every_n_epochs` to be 0"),
    ]
    refused += [
        (
            [lh.Phases(_phases().phases, plateau=lh.Plateau("val_loss")), cache[1]],
            {"val_check_interval": every},
            f"`val_check_interval` to be 1.0 with `FeatureCache`.*, but got {every}",
        )
        for every in (0.5, 1)
    ]
    for callbacks, settings, message in refused:
        with pytest.raises(ValueError, match=message):
            trainer_for(tmp_path, callbacks, FROZEN + 1, **settings).fit(_task("images"), _data("images", photos))
    flipped = DataLoader(TensorDataset(torch.rand(4, 3, 32, 32), torch.arange(4) % 2), 2, collate_fn=default_collate)
    flipped.collate_fn = lambda batch: default_collate(batch[::-1])
    with pytest.raises(ValueError, match="without a `collate_fn` of their own"):
        trainer_for(tmp_path, cache, FROZEN + 1).fit(_task("images"), flipped)
    for idle in (lh.FineTune(), lh.Phases([lh.Phase(train_from=1, norm="eval")])):
        with pytest.warns(UserWarning, match="No phase trains the head alone with norm"):
            trainer_for(tmp_path, [idle, lh.FeatureCache()], 2).fit(_task("images"), _data("images", photos))
    stream = DataLoader(Stream(), 4)
    steps = [lh.Phases([lh.Phase(steps=2, train_from=-1, norm="eval")]), cache[1]]
    with pytest.raises(ValueError, match="loaders of known length"):
        trainer_for(tmp_path, steps, -1, max_steps=2).fit(_task("images"), stream)
    for strategy in (object(), object.__new__(DeepSpeedStrategy)):
        sharded: Any = SimpleNamespace(strategy=strategy, num_nodes=1)
        name = type(strategy).__name__
        with pytest.raises(ValueError, match=rf"a single device or `ddp` on one node, .*, but got {name} on 1 nodes"):
            lh.FeatureCache().on_fit_start(sharded, _task("images"))
    with pytest.raises(ValueError, match=r"Expected `DataLoader`s that make batches .*, but got Batches"):
        trainer_for(tmp_path, cache, FROZEN + 1).fit(_task("images"), Batches())
    segmenter = lh.ImageSegmenter("test_resnet", 2, pretrained=False)
    with pytest.raises(
        TypeError, match=r"whose model has pooled features to cache, .*, but got DynamicUnet\. The feature maps"
    ):
        trainer_for(tmp_path, [_phases(), lh.FeatureCache()]).fit(segmenter, _data("images", photos))


def test_an_overridden_forward_is_refused(photos: Path, tmp_path: Path) -> None:
    class Shifted(lh.ImageClassifier):
        def forward(self, *inputs: Tensor) -> Tensor:
            return super().forward(inputs[0] * 2 - 1)

    class ShiftedModel(lh.ImageModel):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * 2 - 1)

    tasks = [
        Shifted("test_resnet", 2, pretrained=False),
        lh.TransferModule(ShiftedModel("test_resnet", 2, pretrained=False), nn.CrossEntropyLoss()),
    ]
    for task, owner, name in zip(tasks, ("TransferModule", "ImageModel"), ("Shifted", "ShiftedModel"), strict=True):
        with pytest.raises(ValueError, match=rf"the `forward` of {owner}, .*, but {name} overrides it"):
            trainer_for(tmp_path, [_phases(), lh.FeatureCache()], FROZEN + 1).fit(task, _data("images", photos))


class Opened(Dataset[Any]):
    """A data set that can be read only in a worker, which opens it."""

    is_open = False

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        assert self.is_open
        return torch.full((3, 32, 32), index / 8), index % 2


def _open(worker: int) -> None:
    Opened.is_open = True


def test_images_are_read_with_the_settings_of_the_loader(tmp_path: Path) -> None:
    count = Count()
    loader = DataLoader(Opened(), 4, num_workers=1, worker_init_fn=_open, multiprocessing_context="fork")
    phases = lh.Phases([lh.Phase(2, train_from=-1, norm="eval")])
    trainer_for(tmp_path, [phases, lh.FeatureCache(progress=False), count], 2).fit(_task("images"), loader)
    assert count.epochs == [9, 9]


def _fail_rank(photos: Path, world_size: int) -> str:
    torch.manual_seed(0)
    data = lh.ImageFolderData(photos, image_size=32, batch_size=4, num_workers=0, valid_fraction=0)
    callbacks = [lh.Phases([lh.Phase(2, train_from=-1, norm="eval")]), lh.FeatureCache(progress=False)]
    trainer = trainer_for(photos, callbacks, 2, strategy=DDPStrategy(), devices=world_size)
    try:
        trainer.fit(_task("images"), data)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def test_an_error_on_one_rank_is_raised_on_all(photos: Path, tmp_path: Path) -> None:
    (photos / "1/7.png").write_bytes(b"no image")
    ranks = run_processes(_fail_rank, 2, tmp_path, photos, 2)
    assert ranks is not None
    assert sorted(rank.split(":")[0] for rank in ranks) == ["ImageReadError", "RuntimeError"]
    assert any("7.png" in rank for rank in ranks)


def test_the_task_takes_images_after_a_failure(photos: Path, tmp_path: Path) -> None:
    class Fail(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
            raise RuntimeError("out of luck")

    task = _task("images")
    before = copy.deepcopy(task.model.encoder.state_dict())
    with pytest.raises(RuntimeError, match="out of luck"):
        trainer_for(tmp_path, [_phases(), lh.FeatureCache(progress=False), Fail()], epochs=FROZEN + 1).fit(
            task, _data("images", photos)
        )
    assert not task.takes_features
    for name, value in task.model.encoder.state_dict().items():
        torch.testing.assert_close(value, before[name])
