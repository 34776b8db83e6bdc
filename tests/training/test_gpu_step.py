"""The step on a GPU that is not there, and what it is resumed from."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from fake_gpu import Recording, fake_gpu, moved, there
from scrd.config import Config
from scrd.model import build_model
from scrd.objectives import OBJECTIVES
from scrd.synthesis.lesions import sample_lesions
from scrd.synthesis.perturbation import sample_perturbation
from scrd.synthesis.settings import NoiseSettings
from scrd.training.checkpoint import load_checkpoint, save_checkpoint, trainable_parameters
from scrd.training.setup import Run
from scrd.training.step import Inputs, compute
from scrd.training.teacher_features import cached_features

SIZE, BATCH = 128, 4


def model_of(objective):
    built = build_model("efficientnet_lite0", "deferred", False, SIZE, objective=objective)
    return built.train()


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("objective", ["scrd", "srd", "paper", "margin"])
def test_from_images_to_loss_can_be_recorded(objective, cached, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**40, 2**40))
    noise = NoiseSettings(kind="gaussian")
    config = Config(objective=objective, image_size=SIZE, batch_size=BATCH, noise=noise)
    drawn = None
    if OBJECTIVES[objective].lesions:
        drawn = sample_lesions(BATCH, torch.Generator())[::2]
    elif OBJECTIVES[objective].contrastive:
        drawn = sample_perturbation(BATCH, (SIZE, SIZE), noise, torch.Generator())
    built = model_of(objective)
    with fake_gpu() as gpu:
        model = moved(built)
        images = torch.zeros(6, 1, SIZE, SIZE, device=gpu)
        drawn = drawn.each(there) if drawn is not None else None
        run = Run(
            model=model,
            network=model,
            optimizer=SimpleNamespace(zero_grad=lambda set_to_none: None, step=lambda: None),
            images=images,
            cache=cached_features(model, images, gpu, 4.0) if cached else None,
            on_device=images,
            objective=OBJECTIVES[objective],
            config=config,
            fabric=SimpleNamespace(
                device=gpu, world_size=1, autocast=nullcontext, backward=lambda loss: None
            ),
            share=slice(0, BATCH),
            start=0,
            log=[],
        )
        assert (run.cache is not None) == cached
        own = torch.zeros(BATCH, dtype=torch.long, device=gpu)
        with Recording():
            loss, scale_weights = compute(run, Inputs(own, None, drawn))
    assert loss.shape == () and loss.device == gpu and len(scale_weights) == BATCH


def test_moments_are_laid_out_like_their_parameters(tmp_path):
    model = model_of("rd").to(memory_format=torch.channels_last)
    parameters = trainable_parameters(model)
    optimizer = torch.optim.Adam(parameters.values())
    for p in parameters.values():
        p.grad = torch.randn_like(p)
    optimizer.step()
    save_checkpoint(tmp_path / "c", model, optimizer, [], 1, "{}")
    resumed = torch.optim.Adam(parameters.values())
    load_checkpoint(tmp_path / "c", model, resumed, "{}")
    for name, p in parameters.items():
        for moment in ("exp_avg", "exp_avg_sq"):
            found = resumed.state[p][moment]
            assert torch.equal(found, optimizer.state[p][moment])
            assert found.stride() == p.stride(), name  # a fused Adam refuses all else
