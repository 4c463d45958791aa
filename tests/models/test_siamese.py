"""The Siamese model, compared with that of fastai's book, built from fastai's body and head."""

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from lightning_heads import Encoder, create_head
from lightning_heads.models import SiameseModel
from tests.models.exports import NAMED, check_export

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastai.vision.learner import create_body
    from fastai.vision.learner import create_head as fastai_head


class Book(nn.Module):
    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        out: Tensor = self.head(torch.cat([self.encoder(first), self.encoder(second)], dim=1))
        return out


def _tiny(**options: Any) -> SiameseModel:
    return SiameseModel(Encoder("test_resnet", pretrained=False), ps=0.0, **options)


@pytest.mark.parametrize("own_head", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_equals_the_books_model(own_head: bool, training: bool) -> None:
    torch.manual_seed(0)
    resnet = resnet18(weights=None)
    head = fastai_head(512 * 2, 2, ps=0.0)
    book = Book(create_body(copy.deepcopy(resnet), cut=-2), head).double().train(training)
    encoder = Encoder(resnet, normalize=False, channels_last=False)
    if own_head:
        ours = SiameseModel(encoder, copy.deepcopy(head), two_pass=True)
    else:
        ours = SiameseModel(encoder, ps=0.0, two_pass=True)
        weights = [*head.state_dict().values()]
        ours.head.load_state_dict(dict(zip(ours.head.state_dict(), weights, strict=True)))
    ours.double().train(training)
    first, second = torch.rand(2, 4, 3, 64, 96, dtype=torch.double)
    torch.testing.assert_close(ours(first, second), book(first, second), atol=1e-6, rtol=0)
    if training:
        for model in (ours, book):
            model(first, second)[:, 0].sum().backward()
        got, expected = (model.encoder.parameters() for model in (ours, book))
        gradients = [(a.grad, b.grad) for a, b in zip(got, expected, strict=True)]
        for a, b in gradients:
            torch.testing.assert_close(a, b)


def test_one_pass_equals_two_in_evaluation_but_not_in_training() -> None:
    model = _tiny()
    other = copy.deepcopy(model)
    other.two_pass = True
    first, second = torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32) / 4
    torch.testing.assert_close(model.eval()(first, second), other.eval()(first, second), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(model.train()(first, second), other.train()(first, second), atol=1e-3)


@pytest.mark.parametrize("comparison", ["concatenation", "difference", "product", "all"])
@pytest.mark.parametrize("concat_pool", [True, False])
def test_comparisons(comparison: Any, concat_pool: bool) -> None:
    model = _tiny(comparison=comparison, concat_pool=concat_pool).eval()
    first, second = torch.rand(2, 3, 3, 32, 32)
    a, b = (model.encoder(x) for x in (first, second))
    pools = [x.amax((2, 3)) for x in (a, b)], [x.mean((2, 3)) for x in (a, b)]
    parts: list[Tensor] = []
    for x, y in pools if concat_pool else pools[1:]:
        parts += [x, y] if comparison in ("concatenation", "all") else []
        parts += [(x - y).abs()] if comparison in ("difference", "all") else []
        parts += [x * y] if comparison in ("product", "all") else []
    pooling = 2
    expected = nn.Sequential(*[*model.head][pooling:])(torch.cat(parts, dim=1))
    torch.testing.assert_close(model(first, second), expected, atol=1e-5, rtol=1e-5)


def test_cosine_compares_embeddings() -> None:
    model = _tiny(comparison="cosine", embedding_size=8).eval()
    first, second = torch.rand(2, 3, 3, 32, 32)
    a, b = (model.head(model.encoder(x)) for x in (first, second))
    same = model.head.log_scale.exp() * (nn.functional.cosine_similarity(a, b) - model.head.threshold)
    assert a.shape == (3, 8)
    outputs = model(first, second)
    torch.testing.assert_close(outputs.softmax(1)[:, 1], same.sigmoid())
    torch.testing.assert_close(model(second, first), outputs)
    both = torch.cat([a, b])
    cosines = nn.functional.cosine_similarity(both[:, None], both, dim=2)
    expected = model.head.log_scale.exp() * (cosines - model.head.threshold)
    torch.testing.assert_close(model(first, second, all_pairs=True), expected, atol=1e-4, rtol=1e-4)
    # images of two sizes, and a head that does not pool
    assert model(first, torch.rand(3, 3, 64, 48)).shape == (3, 2)
    head = nn.Sequential(nn.Conv2d(model.encoder.num_features, 4, 1), nn.Flatten())
    assert SiameseModel(model.encoder, head, comparison="cosine").eval()(first, second).shape == (3, 2)


def test_similarities_of_all_pairs_are_precise_under_autocast() -> None:
    model = _tiny(comparison="cosine").eval()
    features = model.features(torch.rand(4, 3, 32, 32))
    expected = model.from_features(features, features, all_pairs=True)
    with torch.autocast("cpu", torch.bfloat16):
        got = model.from_features(features, features, all_pairs=True)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.diagonal(), expected.diagonal(), atol=1e-4, rtol=0)


def test_symmetric_outputs_do_not_depend_on_the_order() -> None:
    model = _tiny(symmetric=True).eval()
    first, second = torch.rand(2, 3, 3, 32, 32)
    torch.testing.assert_close(model(first, second), model(second, first))
    model.symmetric = False
    assert not torch.allclose(model(first, second), model(second, first), atol=1e-4)


def test_outputs_can_be_computed_from_features() -> None:
    model = _tiny().eval()
    first, second = torch.rand(2, 3, 3, 32, 32)
    features = model.features(first), model.features(second)
    assert features[0].shape == (3, 2 * model.encoder.num_features)
    torch.testing.assert_close(model.from_features(*features), model(first, second), atol=1e-5, rtol=1e-5)


def test_images_of_two_sizes_and_a_head_that_does_not_pool() -> None:
    model = _tiny().eval()
    assert model(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 64, 48)).shape == (2, 2)
    width = model.encoder.num_features
    head = nn.Sequential(nn.Conv2d(2 * width, 8, 1), nn.ReLU(), *create_head(8, 2, []))
    model = SiameseModel(model.encoder, head).eval()
    first, second = torch.rand(2, 3, 3, 32, 32)
    maps = torch.cat([model.encoder(first), model.encoder(second)], dim=1)
    torch.testing.assert_close(model(first, second), head(maps), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("comparison", ["all", "cosine"])
def test_groups_and_gradients_of_all_parameters(comparison: Any) -> None:
    model = _tiny(comparison=comparison, symmetric=True).train()
    groups = model.param_groups()
    assert len(groups) == 3
    assert {id(p) for group in groups for p in group} == {id(p) for p in model.parameters()}
    assert {id(p) for p in groups[-1]}.isdisjoint(id(p) for p in model.encoder.parameters())
    model(*torch.rand(2, 4, 3, 32, 32)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_exports_with_named_sizes() -> None:
    model = _tiny(comparison="all", symmetric=True, two_pass=True).eval()
    check_export(model, {"first": NAMED, "second": NAMED}, inputs=2)


def test_compiles() -> None:
    model = _tiny(symmetric=True).eval()
    first, second = torch.rand(2, 2, 3, 32, 32)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(first, second), model(first, second), atol=1e-5, rtol=1e-5)


def test_all_pairs_of_another_comparison_are_refused() -> None:
    with pytest.raises(ValueError, match="`all_pairs` only with the comparison cosine, but it is concatenation"):
        _tiny()(*torch.rand(2, 2, 3, 32, 32), all_pairs=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"comparison": "sum"}, "`comparison` to be concatenation or .*, but got 'sum'"),
        ({"comparison": "cosine", "num_outputs": 3}, "`num_outputs` to be 2 for the comparison cosine, but got 3"),
        ({"comparison": "cosine", "embedding_size": 0}, "`embedding_size` to be at least 1, but got 0"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _tiny(**options)
