import warnings

import pytest
import torch

from lightning_heads import create_head
from lightning_heads.heads.dense import create_dense_head

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


def test_initialization_equals_fastai() -> None:
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


@pytest.mark.parametrize("upsample", ["nearest", "bilinear", "transposed", "pixel_shuffle"])
@pytest.mark.parametrize(("reduction", "scale"), [(1, 1), (2, 2), (8, 8), (14, 16), (32, 32)])
def test_dense_head_doubles_until_the_reduction_is_reached(upsample: str, reduction: int, scale: int) -> None:
    head = create_dense_head(12, 3, reduction, upsample=upsample, width=20)
    out = head(torch.randn(2, 12, 3, 2))
    assert out.shape == (2, 3, 3 * scale, 2 * scale)
    out.square().sum().backward()
    assert all(p.grad is not None for p in head.parameters())


def test_dense_head_halves_its_width_down_to_16() -> None:
    widths = [m.num_features for m in create_dense_head(64, 2, 64, width=100).modules() if hasattr(m, "num_features")]
    assert widths == [100, 50, 25, 16, 16, 16]
    narrow = [m.num_features for m in create_dense_head(64, 2, 8, width=8).modules() if hasattr(m, "num_features")]
    assert narrow == [8, 8, 8]


def test_dense_head_with_unit_weights_is_interpolation() -> None:
    head = create_dense_head(1, 1, 4, upsample="bilinear", width=1).eval()
    for module in head.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.dirac_(module.weight)
    x = torch.rand(1, 1, 5, 6)
    half = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
    expected = torch.nn.functional.interpolate(half, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(head(x), expected, atol=1e-3, rtol=1e-3)


def test_dense_head_stays_in_y_range() -> None:
    out = create_dense_head(4, 1, 2, width=4, y_range=(1.0, 2.0))(100 * torch.randn(2, 4, 8, 8))
    assert out.min() >= 1
    assert out.max() <= 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"upsample": "cubic"}, "`upsample` to be nearest, bilinear, transposed or pixel_shuffle, but got 'cubic'"),
        ({"width": 0}, "at least 1, but got 4, 1, 2 and 0"),
        ({"reduction": 0}, "at least 1, but got 4, 1, 0 and 256"),
    ],
)
def test_dense_head_refuses_wrong_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_dense_head(4, 1, **{"reduction": 2, **settings})


def test_without_init_layers_have_torchs_default_initialization() -> None:
    """They equal those of fastai's `create_head` for the same random seed."""
    torch.manual_seed(0)
    reference = [value for value in fastai_head(6, 3).parameters() if value.ndim == 2]
    torch.manual_seed(0)
    own = [value for value in create_head(6, 3, init=False).parameters() if value.ndim == 2]
    for value, expected in zip(own, reference, strict=True):
        torch.testing.assert_close(value, expected)
    torch.manual_seed(0)
    assert not torch.equal(next(v for v in create_head(6, 3).parameters() if v.ndim == 2), reference[0])
