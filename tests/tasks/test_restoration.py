import copy
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.functional.image import structural_similarity_index_measure

import lightning_heads as lh
from lightning_heads.losses.ssim import SSIMLoss
from lightning_heads.models.unet.unet import DynamicUnet
from lightning_heads.tasks.restoration import ImageRestorer
from tests.conftest import MakeImage
from tests.helpers import trainer_for

FEATURES: dict[str, Any] = {
    "feature_encoder": "test_resnet",
    "feature_pretrained": False,
    "feature_layers": (1, 2),
    "feature_layer_weights": (1.0, 1.0),
}


def _restorer(num_outputs: int = 3, **settings: Any) -> ImageRestorer:
    return ImageRestorer("test_resnet", num_outputs, **{"pretrained": False, **settings})


def _images(channels: int = 3, n: int = 8) -> Tensor:
    """Smooth random images."""
    return nn.functional.interpolate(torch.rand(n, channels, 4, 4), 32, mode="bilinear")


def _loader(inputs: Tensor, targets: Tensor | None = None) -> DataLoader[Any]:
    noisy = (inputs + 0.1 * torch.randn_like(inputs)).clamp(0, 1)
    return DataLoader(TensorDataset(noisy, inputs if targets is None else targets), 4)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("loss", ["l1", "mse", "ssim", "feature", "style", {"l1": 0.5, "ssim": 2.0}])
def test_every_loss_fits(tmp_path: Path, make_image: MakeImage, loss: Any, channels: int, precision: str) -> None:
    settings = {**FEATURES, "style_image": make_image("style.png"), "style_size": 32} if loss == "style" else FEATURES
    task = _restorer(channels, loss=loss, in_channels=channels, max_width=16, **settings)
    before = copy.deepcopy(task.state_dict())
    loader = _loader(_images(channels, 4))
    trainer = trainer_for(tmp_path, [], epochs=1, precision=precision)
    trainer.fit(task, loader, loader)
    assert {"train_loss", "val_loss", "val_psnr", "val_ssim"} <= set(trainer.callback_metrics)
    assert all(value.isfinite() for value in trainer.callback_metrics.values())
    for name, value in task.state_dict().items():
        if name.startswith("criterion"):  # neither weights nor running statistics of batch norm change
            torch.testing.assert_close(value, before[name].to(value.dtype), atol=0, rtol=0)


@pytest.mark.parametrize("name", ["feature", "style"])
def test_only_the_unet_is_trained(name: str, make_image: MakeImage) -> None:
    style = make_image("style.png") if name == "style" else None
    task = _restorer(loss=name, style_image=style, style_size=32, **FEATURES).train()
    task.criterion(task(_images()), _images()).backward()
    assert all(parameter.grad is not None for parameter in task.model.parameters())
    assert not any(parameter.requires_grad for parameter in task.criterion.parameters())
    grouped = {id(parameter) for group in task.param_groups() for parameter in group}
    assert grouped == {id(parameter) for parameter in task.model.parameters()}


def test_losses_are_weighted_in_a_sum() -> None:
    task = _restorer(loss={"ssim": 2.0, "l1": 0.5, "mse": 3.0})
    x, y = _images(), _images()
    expected = 2 * SSIMLoss()(x, y) + 0.5 * (x - y).abs().mean() + 3 * (x - y).square().mean()
    torch.testing.assert_close(task.criterion(x, y), expected)


def test_metrics_are_of_clamped_predictions(tmp_path: Path) -> None:
    task = _restorer(residual=False)
    nn.init.constant_(task.model.decoder.out.bias, 0.8)  # some above 1
    images = _images(n=10)
    noisy = images.flip(0)
    trainer = trainer_for(tmp_path, [])
    loader = DataLoader(TensorDataset(noisy, images), 4)
    logged = trainer.test(task, loader, verbose=False)[0]
    predictions = torch.cat(trainer.predict(task, loader))
    with torch.no_grad():
        outputs = task.eval()(noisy)
    assert outputs.max() > 1
    torch.testing.assert_close(predictions, outputs.clamp(0, 1), atol=1e-5, rtol=1e-5)
    expected = peak_signal_noise_ratio(images.numpy(), predictions.numpy(), data_range=1.0)
    assert logged["test_psnr"] == pytest.approx(expected, rel=1e-4)
    similarity = structural_similarity_index_measure(predictions, images, data_range=1.0)
    assert logged["test_ssim"] == pytest.approx(similarity.item(), rel=1e-4)


def test_color_is_predicted_from_gray(tmp_path: Path) -> None:
    task = _restorer(in_channels=1, loss="feature", y_range=(-0.1, 1.1), **FEATURES)
    color = _images()
    loader = _loader(color.mean(dim=1, keepdim=True), color)
    trainer_for(tmp_path, [], epochs=1).fit(task, loader)
    outputs = task.eval()(color[:, :1])
    assert outputs.shape == color.shape
    assert outputs.min() > -0.1
    assert outputs.max() < 1.1


@pytest.mark.parametrize(
    ("settings", "residual"), [({}, True), ({"in_channels": 1}, False), ({"y_range": (0, 1)}, False)]
)
def test_same_channels_are_residual_by_default(settings: dict[str, Any], residual: bool) -> None:
    model = _restorer(**settings).model
    x = torch.rand(2, settings.get("in_channels", 3), 32, 32)
    assert torch.equal(model.eval()(x), x) == residual
    assert isinstance(model, DynamicUnet) != residual


def test_options_of_the_decoder_are_passed_to_the_unet() -> None:
    options: dict[str, Any] = {"decoder": "fastai", "blur": True, "self_attention": True, "norm": "group"}
    options |= {"upsample": "pixel_shuffle", "last_cross": "full", "act": "gelu", "bottle": True, "max_width": 64}
    task, unet = _restorer(**options), DynamicUnet("test_resnet", 3, pretrained=False, **options)
    assert [*task.model.unet.state_dict()] == [*unet.state_dict()]
    assert str(task.model.unet) == str(unet)


@pytest.mark.parametrize(("in_channels", "num_outputs"), [(3, 3), (1, 1), (1, 3)])
def test_residual_begins_with_the_input(in_channels: int, num_outputs: int) -> None:
    task = _restorer(num_outputs, in_channels=in_channels, residual=True)
    x = _images(in_channels)
    torch.testing.assert_close(task.eval()(x), x.expand(-1, num_outputs, -1, -1), atol=0, rtol=0)
    assert isinstance(task.model.encoder, lh.Encoder)
    assert len(lh.param_groups(task.model)) == 3
    nn.init.ones_(task.model.gain)
    expected = x + task.model.unet(x)
    assert (expected != x).any()
    program = torch.export.export(copy.deepcopy(task.model).eval(), (x,))
    torch.testing.assert_close(program.module()(x), expected)


def test_faded_pictures_are_restored(tmp_path: Path) -> None:
    L.seed_everything(1, verbose=False)
    images = _images(n=32)
    faded = images * 0.5 + 0.3
    loader = DataLoader(TensorDataset(faded, images), 8)
    trainer = trainer_for(tmp_path, [lh.OneCycle()], epochs=8)
    task = _restorer(lr=3e-3)
    trainer.fit(task, loader)
    score = trainer.validate(task, loader, verbose=False)[0]["val_psnr"]
    assert score > peak_signal_noise_ratio(images.numpy(), faded.numpy(), data_range=1.0) + 3


@pytest.mark.parametrize("loss", ["feature", "style"])
def test_checkpoint_loads_without_arguments_and_has_the_same_loss(
    tmp_path: Path, make_image: MakeImage, loss: Any
) -> None:
    import timm

    weights = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), weights)
    settings: dict[str, Any] = {**FEATURES, "feature_weights": weights}
    style = make_image("style.png")
    if loss == "style":
        settings |= {"style_image": style, "style_size": 32}
    task = _restorer(loss=loss, residual=True, weights=weights, **settings)
    trainer = trainer_for(tmp_path, [], epochs=1, enable_checkpointing=True)
    trainer.fit(task, _loader(_images()))
    weights.unlink()  # a checkpoint must load without the files that the task was built from
    style.unlink()
    path = trainer.checkpoint_callback.best_model_path
    loaded = ImageRestorer.load_from_checkpoint(path, weights_only=True)
    x, y = _images(), _images()
    torch.testing.assert_close(loaded.eval()(x), task.eval()(x), atol=0, rtol=0)
    torch.testing.assert_close(loaded.criterion(x, y), task.criterion(x, y), atol=0, rtol=0)
    assert task.hparams["feature_weights"] == str(settings["feature_weights"])
    trainer_for(tmp_path, [], epochs=1).fit(loaded.train(), _loader(_images()))  # nor are they needed to train further


def test_test_time_augmentation_averages_over_transformed_images(tmp_path: Path) -> None:
    task = _restorer()
    images = _images()
    tta = lh.TestTimeAugmentation(task, "dihedral")
    logged = trainer_for(tmp_path, []).validate(tta, _loader(images), verbose=False)[0]
    assert {"val_psnr", "val_ssim"} <= set(logged)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "huber"}, "`loss` to be of l1, mse, ssim, feature, style, but got huber"),
        ({"loss": {}}, "`loss` to be of l1, mse, ssim, feature, style, but got none"),
        ({"loss": {"l1": 1.0, "gram": 2.0}}, "but got l1, gram"),
        ({"loss": "feature", **FEATURES, "feature_layers": (2, 9)}, "from 0 to 4, the maps of test_resnet"),
        ({"loss": "feature", **FEATURES, "feature_layer_weights": (1.0,)}, "layer weights to have 2 entries"),
        ({"style_image": "style.png"}, "`style_image` only with the style loss, but `loss` is l1"),
        (
            {"residual": True, "num_outputs": 1},
            "inputs of 1 channels, as the outputs have, or of one with `residual`, but got 3",
        ),
        ({"residual": True, "y_range": (0, 1)}, "no `y_range` with `residual`"),
        ({"loss": "style", "style_image": "none.png", **FEATURES}, "none.png to be an image"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _restorer(**settings)


def test_style_without_a_picture_is_refused(tmp_path: Path) -> None:
    task = _restorer(loss="style", **FEATURES)
    with pytest.raises(ValueError, match="`style_image` with the style loss, but got None"):
        trainer_for(tmp_path, []).fit(task, _loader(_images()))


@pytest.mark.parametrize("shape", [(8, 3, 64, 64), (8, 1, 32, 32)])
def test_targets_of_another_shape_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"targets of \(4, 3, 32, 32\), but got \(4, "):
        trainer_for(tmp_path, []).fit(_restorer(), _loader(_images(), torch.rand(shape)))


def test_large_images_are_restored_in_tiles() -> None:
    task = ImageRestorer("test_resnet", pretrained=False, tile_size=64).eval()
    sizes = []
    task.model.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[-2:])))
    images = torch.rand(1, 3, 100, 150)
    # the predicted difference is 0 at first, so that the blended tiles equal the input
    torch.testing.assert_close(task.predict_step(images, 0), images)
    assert set(sizes) == {(64, 64)}


def test_an_encoder_of_one_size_restores_images_of_any_size() -> None:
    task = ImageRestorer("gmlp_ti16_224", pretrained=False, image_size=64).eval()
    assert task.predict_step(torch.rand(1, 3, 40, 100), 0).shape == (1, 3, 40, 100)
