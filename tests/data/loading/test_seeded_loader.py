import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from lightning_heads.data.loading.seeded_loader import SeededLoader


class Noisy(Dataset[Any]):
    """Samples that draw from all three generators."""

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index, float(torch.rand(())), random.random(), np.random.rand()])


def _epochs(count: int, **settings: Any) -> list[torch.Tensor]:
    loader = SeededLoader(Noisy(), 3, **{"seed": 5, **settings})
    epochs = []
    for epoch in range(count):
        loader.sampler.set_epoch(epoch)
        epochs.append(torch.cat([*loader]))
    return epochs


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("persistent", [False, True])
def test_batches_do_not_depend_on_workers(workers: int, persistent: bool) -> None:
    alone = _epochs(2)
    shared = _epochs(2, num_workers=workers, persistent_workers=persistent)
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))


def test_samples_do_not_depend_on_processes() -> None:
    alone = _epochs(1)[0]
    parts = torch.cat([_epochs(1, num_replicas=2, rank=rank)[0] for rank in range(2)])
    rows = {int(row[0]): row for row in alone}
    assert len(parts) == 12  # one sample twice, so that both processes have equally many
    assert all(torch.equal(rows[int(row[0])], row) for row in parts)


def test_epochs_and_seeds_differ_and_cover_everything() -> None:
    first, second = _epochs(2)
    assert sorted(first[:, 0].tolist()) == sorted(second[:, 0].tolist()) == [*range(11)]
    assert not torch.equal(first, second)
    assert not torch.equal(first, _epochs(1, seed=6)[0])
    assert _epochs(1, shuffle=False)[0][:, 0].tolist() == [*range(11)]


def test_global_generators_are_left_alone() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    _epochs(1)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("done", [0, 1, 3])
def test_resumes_in_the_middle_of_an_epoch(done: int, workers: int) -> None:
    expected = _epochs(2)
    loader = SeededLoader(Noisy(), 3, seed=5, num_workers=workers)
    loader.sampler.set_epoch(0)
    batches = iter(loader)
    seen = [next(batches) for _ in range(done)]
    resumed = SeededLoader(Noisy(), 3, num_workers=workers)
    resumed.load_state_dict(loader.state_dict())
    seen += [*resumed]
    assert torch.equal(torch.cat(seen), expected[0])
    resumed.sampler.set_epoch(1)
    assert torch.equal(torch.cat([*resumed]), expected[1])
