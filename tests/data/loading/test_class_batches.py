from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import Dataset

import lightning_heads as lh
from lightning_heads.data.loading.class_batches import ClassBatches

LABELS = [0] * 9 + [1] * 6 + [2] * 5 + [3] * 3 + [4]


class Noisy(Dataset[Any]):
    """Samples of an index and a random number."""

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index, float(torch.rand(()))])


def _loader(batch_size: int = 6, images_per_class: int = 2, **settings: Any) -> lh.SeededLoader:
    batches = ClassBatches(LABELS, batch_size, images_per_class)
    return lh.SeededLoader(Noisy(), batch_size, batches=batches, **{"seed": 3, **settings})


def _epochs(count: int, **settings: Any) -> list[list[torch.Tensor]]:
    loader, epochs = _loader(**settings), []
    for epoch in range(count):
        loader.sampler.set_epoch(epoch)
        epochs.append([*loader])
        assert len(epochs[-1]) == len(loader)
    return epochs


@pytest.mark.parametrize(("batch_size", "images_per_class"), [(4, 2), (6, 2), (8, 4), (10, 2), (15, 3), (20, 5)])
def test_each_batch_has_equally_many_images_of_each_of_its_classes(batch_size: int, images_per_class: int) -> None:
    make = ClassBatches(LABELS, batch_size, images_per_class)
    for seed in range(10):
        batches = make(seed)
        assert len(batches) == 24 // batch_size
        for batch in batches:
            counts = Counter(LABELS[i] for i in batch)
            assert [*counts.values()] == [images_per_class] * (batch_size // images_per_class)
            for label in counts:
                distinct = len({i for i in batch if LABELS[i] == label})
                assert distinct == min(images_per_class, LABELS.count(label))


def test_balanced_classes_show_every_image_once_per_epoch() -> None:
    labels = [0, 1, 2] * 8
    make = ClassBatches(labels, 6, 2)
    orders = [[i for batch in make(seed) for i in batch] for seed in range(3)]
    assert all(sorted(order) == [*range(24)] for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert make(0) == make(0)


def test_classes_are_drawn_equally_often_whatever_their_size() -> None:
    labels = [0] * 60 + [1] * 20 + [2] * 10 + [3] * 6
    counts = Counter(labels[i] for batch in ClassBatches(labels, 4, 2)(0) for i in batch)
    assert counts == dict.fromkeys(range(4), 24)


@pytest.mark.parametrize(
    ("batch_size", "images_per_class", "message"),
    [
        (8, 1, "`images_per_class` to be 2 or more and to divide the batch size of 8, but got 1"),
        (8, 3, "to divide the batch size of 8, but got 3"),
        (12, 2, "6 classes for batches of 12 with 2 images of each, but there are 5"),
    ],
)
def test_impossible_batches_are_refused(batch_size: int, images_per_class: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassBatches(LABELS, batch_size, images_per_class)


def test_epochs_and_seeds_differ() -> None:
    first, second = _epochs(2)
    other = _epochs(1, seed=4)[0]
    assert not torch.equal(torch.stack(first), torch.stack(second))
    assert not torch.equal(torch.stack(first), torch.stack(other))


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")
@pytest.mark.parametrize("workers", [2, 4])
def test_batches_do_not_depend_on_workers(workers: int) -> None:
    for alone, shared in zip(_epochs(2), _epochs(2, num_workers=workers), strict=True):
        assert torch.equal(torch.stack(alone), torch.stack(shared))


@pytest.mark.parametrize(("replicas", "extra"), [(2, 0), (3, 2), (5, 1), (9, 5)])
def test_processes_take_whole_batches_in_turn(replicas: int, extra: int) -> None:
    alone = _epochs(1)[0]
    parts = [_epochs(1, num_replicas=replicas, rank=rank)[0] for rank in range(replicas)]
    interleaved = [batch for step in zip(*parts, strict=True) for batch in step]
    assert len(interleaved) == len(alone) + extra  # some batches twice, so that all processes have equally many
    assert all(torch.equal(a, b) for a, b in zip(alone, interleaved, strict=False))
    assert all(torch.equal(interleaved[i][:, 0], alone[i % 4][:, 0]) for i in range(len(interleaved)))


def test_an_image_that_is_repeated_in_a_batch_is_augmented_anew() -> None:
    batches = torch.stack([batch for epoch in _epochs(4, images_per_class=3) for batch in epoch])
    single = batches[..., 0] == LABELS.index(4)
    assert (single.sum(dim=1) == 3).any()
    draws = batches[..., 1][single]
    assert len(draws.unique()) == len(draws)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("done", [1, 3])
def test_resumes_in_the_middle_of_an_epoch(done: int, workers: int) -> None:
    expected = _epochs(2)
    loader = _loader(num_workers=workers)
    batches = iter(loader)
    seen = [next(batches) for _ in range(done)]
    resumed = _loader(seed=None, num_workers=workers)
    resumed.load_state_dict(loader.state_dict())
    seen += [*resumed]
    assert torch.equal(torch.stack(seen), torch.stack(expected[0]))
    resumed.sampler.set_epoch(1)
    assert torch.equal(torch.stack([*resumed]), torch.stack(expected[1]))


def test_batches_are_not_split_if_a_resumed_run_has_another_batch_size() -> None:
    loader = _loader(batch_size=6)
    batches = iter(loader)
    next(batches)
    resumed = _loader(batch_size=4)
    resumed.load_state_dict(loader.state_dict())
    rest = [*resumed]
    assert len(rest) == 5
    for batch in rest:
        assert sorted(Counter(LABELS[int(i)] for i in batch[:, 0]).values()) == [2, 2]


def _data(root: Path, **settings: Any) -> lh.ImageFolderData:
    return lh.ImageFolderData(
        root, image_size=16, num_workers=0, **{"batch_size": 4, "images_per_class": 2, **settings}
    )


def test_image_data_gives_batches_of_classes(class_folder: Path, make_image: Callable[..., Path]) -> None:
    for i in range(30):
        make_image(f"photos/many/{i}.png")
    batches = [*_data(class_folder, valid_fraction=0).train_dataloader()]
    assert len(batches) == 12
    assert all(sorted(Counter(targets.tolist()).values()) == [2, 2] for _, targets in batches)


def test_only_tables_of_one_class_per_image_give_batches_of_classes(class_folder: Path) -> None:
    rows = [f"{kind}/{i}.png,{kind},{i}" for kind in ("bright", "dark") for i in range(10)]
    (class_folder / "table.csv").write_text("\n".join(["path,kind,x", *rows]))
    settings: dict[str, Any] = {"image_size": 16, "num_workers": 0, "batch_size": 4, "images_per_class": 2}
    data = lh.ImageTableData(class_folder / "table.csv", label="kind", **settings)
    assert all(sorted(targets.tolist()) == [0, 0, 1, 1] for _, targets in data.train_dataloader())
    with pytest.raises(ValueError, match="class index per image with `images_per_class`, but got targets of another"):
        lh.ImageTableData(class_folder / "table.csv", values=["x"], **settings)


def test_impossible_batches_are_refused_before_training(class_folder: Path) -> None:
    with pytest.raises(ValueError, match="4 classes for batches of 8 with 2 images of each, but there are 2"):
        _data(class_folder, batch_size=8)


@pytest.mark.parametrize("overfit", [0, 2])
def test_a_trainer_gets_batches_of_classes(class_folder: Path, overfit: int) -> None:
    seen = []

    class Seen(lh.ImageClassifier):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            seen.append(sorted(batch[1].tolist()))
            return super().training_step(batch, batch_idx)

    settings: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        enable_model_summary=False,
        limit_val_batches=0,
        overfit_batches=overfit,
        **settings,
    )
    trainer.fit(Seen("test_resnet", num_classes=2, pretrained=False), _data(class_folder))
    assert seen == [[0, 0, 1, 1]] * (4 if overfit else 8)
