import pytest
import torch
from torch import nn
from torch.export import Dim

from lightning_heads import Encoder, ImageModel
from tests.models.exports import EXAMPLE, images


def test_is_its_head_on_its_encoder() -> None:
    model = ImageModel("test_resnet", 3, pretrained=False).eval()
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(model(x), model.head(model.encoder(x)))


def test_takes_a_head_and_an_encoder_of_the_user() -> None:
    encoder = Encoder("test_resnet", pretrained=False, in_channels=4)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(encoder.num_features, 7))
    model = ImageModel(encoder, 7, head=head)
    assert model(torch.rand(2, 4, 64, 64)).shape == (2, 7)
    assert len(model.param_groups()) == 3


def test_pooling_can_be_by_average_only() -> None:
    model = ImageModel("test_resnet", 2, pretrained=False, concat_pool=False)
    assert isinstance(model.head[0], nn.AdaptiveAvgPool2d)


def test_no_outputs_are_refused() -> None:
    with pytest.raises(ValueError, match="`num_outputs` to be at least 1, but got 0"):
        ImageModel("test_resnet", 0, pretrained=False)


def test_refuses_arguments_of_an_encoder_with_one_that_is_built() -> None:
    for given in ({"in_channels": 1}, {"hypercolumns": True}):
        with pytest.raises(ValueError, match="with an encoder's name"):
            ImageModel(Encoder("test_resnet", pretrained=False), 2, **given)


def test_an_empty_head_is_kept() -> None:
    encoder = Encoder("test_resnet", pretrained=False)
    assert len(ImageModel(encoder, 2, head=nn.Sequential()).head) == 0


def test_exports_with_multiples_where_the_encoder_takes_no_others() -> None:
    model = ImageModel("test_vit", 2, pretrained=False).eval()
    height, width = (16 * Dim(name, min=4, max=32) for name in ("rows", "columns"))
    exported = torch.export.export(model, images(*EXAMPLE), dynamic_shapes={"x": {2: height, 3: width}}).module()
    (x,) = images(2, 64, 160)
    torch.testing.assert_close(exported(x), model(x), atol=1e-4, rtol=1e-4)
