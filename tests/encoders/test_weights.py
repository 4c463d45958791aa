from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

import lightning_heads as lh


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return timm.create_model("test_resnet", pretrained=False).state_dict()


def _check(path: Path, state: dict[str, torch.Tensor]) -> None:
    body = lh.Encoder("test_resnet", weights=path).backbone.body
    own = body.state_dict()
    assert own
    for name, value in own.items():
        torch.testing.assert_close(value, state[name].to(value.dtype), atol=0, rtol=0)


def test_loads_safetensors_and_state_dicts(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")
    torch.save({"state_dict": state}, tmp_path / "c.ckpt")
    for name in ("a.safetensors", "b.pth", "c.ckpt"):
        _check(tmp_path / name, state)


def test_classifier_of_another_shape_is_ignored(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state | {"fc.weight": torch.zeros(7, 3), "fc.bias": torch.zeros(7)}, tmp_path / "a.pth")
    _check(tmp_path / "a.pth", state)


def test_mismatched_weights_are_named(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    wrong = dict(state)
    del wrong["layer1.0.conv1.weight"]
    wrong["other"] = torch.zeros(1)
    wrong["bn1.weight"] = torch.zeros(5)
    torch.save(wrong, tmp_path / "a.pth")
    with pytest.raises(
        ValueError, match=r"1 missing \(layer1.0.conv1.weight\), 1 unexpected \(other\), 1 of another shape"
    ):
        lh.Encoder("test_resnet", weights=tmp_path / "a.pth")


def test_files_that_hold_no_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is none at"):
        lh.Encoder("test_resnet", weights=tmp_path / "none.pth")
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "text.pth").write_text("no weights")
    for name in ("text.safetensors", "text.pth"):
        with pytest.raises(ValueError, match="a safetensors file or a state dict"):
            lh.Encoder("test_resnet", weights=tmp_path / name)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(1, 1), tmp_path / "module.pth")
    with pytest.raises(ValueError, match="a safetensors file or a state dict"):
        lh.Encoder("test_resnet", weights=tmp_path / "module.pth")


def test_user_module_loads_all_of_its_layers(tmp_path: Path) -> None:
    def module() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 8, 3))

    state = module().state_dict()
    torch.save(state, tmp_path / "a.pth")
    body = lh.Encoder(module(), weights=tmp_path / "a.pth").backbone.body
    for name, value in body.state_dict().items():
        torch.testing.assert_close(value, state[name], atol=0, rtol=0)


def test_weights_of_another_architecture_are_refused_naming_their_file(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    for name in ("convnext_atto", "test_vit", "torchvision/resnet18"):
        with pytest.raises(ValueError, match=r"other\.pth to hold the weights of"):
            lh.Encoder(name, weights=tmp_path / "other.pth")
