"""Every architecture that timm lists, on the meta device: shapes without weights or arithmetic."""

from collections import Counter

import pytest
import timm
import torch

from lightning_heads.models import DynamicUnet, ImageModel


@pytest.mark.slow
def test_nearly_every_timm_architecture_classifies(capsys: pytest.CaptureFixture[str]) -> None:
    works, refused, failed = [], {}, {}
    for name in timm.list_models():
        try:
            with torch.device("meta"):
                model = ImageModel(name, 5, pretrained=False)
                height, width = model.encoder.meta.input_size
                out = model(torch.zeros(2, 3, height, width))
                maps = model.encoder.pyramid(torch.zeros(2, 3, height, width))
            assert out.shape == (2, 5)
            assert tuple(m.shape[1] for m in maps) == model.encoder.channels
            sizes = [m.shape[-2] for m in maps]
            assert sizes == sorted(sizes, reverse=True)
            own = {id(p) for p in model.parameters()}
            grouped = [id(p) for group in model.param_groups() for p in group]
            assert len(grouped) == len(own)
            assert set(grouped) == own
            works.append(name)
        except ValueError as error:
            refused[name] = str(error)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    with capsys.disabled():
        print(f"\n{len(works)} of {len(works) + len(refused) + len(failed)} timm architectures classify")
        for name, reason in (refused | failed).items():
            print(f"  {name}: {' '.join(reason.split())[:200]}")
        print(f"  families refused: {Counter(name.split('_')[0] for name in refused)}")
    assert not failed
    if len(timm.list_models()) >= 1371:
        assert len(works) >= 1360
    else:
        assert len(works) >= 0.99 * len(timm.list_models())


@pytest.mark.slow
def test_nearly_every_timm_architecture_segments(capsys: pytest.CaptureFixture[str]) -> None:
    works, fixed, failed = [], [], {}
    for name in timm.list_models():
        try:
            with torch.device("meta"):
                model = DynamicUnet(name, 5, pretrained=False)
                meta = model.encoder.meta
                size = meta.input_size if meta.fixed_size else (97, 131)
                out = model(torch.zeros(2, 3, *size))
            assert out.shape == (2, 5, *size)
            own = {id(p) for p in model.parameters()}
            grouped = [id(p) for group in model.param_groups() for p in group]
            assert len(grouped) == len(own)
            assert set(grouped) == own
            works.append(name)
            fixed += [name] if meta.fixed_size else []
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    with capsys.disabled():
        print(
            f"\n{len(works)} of {len(works) + len(failed)} timm architectures segment, {len(fixed)} at one size alone"
        )
        for name, reason in failed.items():
            print(f"  {name}: {' '.join(reason.split())[:200]}")
        print(f"  families that fail: {Counter(name.split('_')[0] for name in failed)}")
    if len(timm.list_models()) >= 1371:
        assert len(works) >= 1355
    else:
        assert len(works) >= 0.98 * len(timm.list_models())
