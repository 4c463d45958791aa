import warnings

import pytest
import torch

from lightning_heads import create_head

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastai.vision.learner import apply_init
    from fastai.vision.learner import create_head as fastai_head

SETTINGS = [
    {},
    {"lin_ftrs": [16, 8]},
    {"lin_ftrs": []},
    {"ps": 0.0},
    {"ps": [0.1, 0.2]},
    {"lin_ftrs": [16, 8], "ps": [0.1, 0.2, 0.3]},
    {"pool": False},
    {"concat_pool": False},
    {"first_bn": False},
    {"bn_final": True},
    {"lin_first": True},
    {"lin_first": True, "lin_ftrs": [16, 8], "ps": [0.1, 0.2, 0.3], "first_bn": False},
    {"y_range": (0.0, 5.5)},
    {"bn_final": True, "y_range": (-1.0, 1.0), "concat_pool": False, "lin_ftrs": [12]},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("training", [False, True])
def test_equals_fastai_for_equal_weights(settings: dict, training: bool) -> None:
    copy = {key: [*value] if isinstance(value, list) else value for key, value in settings.items()}
    reference = fastai_head(6, 3, **copy)
    head = create_head(6, 3, **settings)
    state = reference.state_dict()
    flat = {own: state[key] for own, key in zip(head.state_dict(), state, strict=True)}
    head.load_state_dict(flat)
    x = torch.randn(4, 6) if settings.get("pool") is False else torch.randn(4, 6, 5, 7)
    torch.manual_seed(1)
    expected = reference.train(training)(x)
    torch.manual_seed(1)
    torch.testing.assert_close(head.train(training)(x), expected, atol=1e-6, rtol=0)


def test_initialisation_equals_fastai() -> None:
    torch.manual_seed(3)
    reference = fastai_head(6, 3, lin_first=True)
    apply_init(reference)
    head = create_head(6, 3, lin_first=True)
    for own, theirs in zip(head.parameters(), reference.parameters(), strict=True):
        assert own.shape == theirs.shape
        if own.ndim == 1:
            torch.testing.assert_close(own, theirs)  # biases, and batch norm at 1 and 1e-3
        else:
            assert own.std().item() == pytest.approx((2 / own.shape[1]) ** 0.5, rel=0.25)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ps": [0.1, 0.2, 0.3]}, "`ps` to have 2 entries, one a linear layer, but got 3"),
        ({"ps": [0.1], "lin_ftrs": [8, 8]}, "`ps` to have 3 entries, one a linear layer, but got 1"),
        ({"ps": 1.0}, r"probabilities in \[0, 1\)"),
        ({"lin_ftrs": [0]}, "at least 1"),
        ({"y_range": (1.0, 0.0)}, "from low to high"),
    ],
)
def test_refuses_wrong_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_head(6, 3, **settings)
