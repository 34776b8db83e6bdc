"""Scoring on a GPU that is not there: what lies where, and whether all of it can be recorded."""

import pytest
import torch

from fake_gpu import Recording, fake_gpu, moved
from scrd.model import build_model
from scrd.model.scale_head import ScaleHead
from scrd.model.scores import Scores, infer

SIZE = 64


def model_for(objective):
    return build_model("efficientnet_lite0", "deferred", False, SIZE, objective=objective).eval()


def test_what_a_gpu_found_comes_back_to_the_host():
    built = model_for("scrd")
    with fake_gpu():
        model = moved(built)
        found = infer(model, torch.zeros(2, 1, SIZE, SIZE), torch.ones(2, SIZE, SIZE).bool())
    tensors = [found.maps, found.scale_weights, *found.statistics.values()]
    assert {t.device.type for t in tensors} == {"cpu"}


@pytest.mark.parametrize("objective", ["scrd", "srd"])
@pytest.mark.parametrize("channels", [1, 3])
def test_all_of_it_can_be_recorded(channels, objective, monkeypatch):
    monkeypatch.setattr(ScaleHead, "constant", True)  # which reads a value, before the recording
    built = model_for(objective)
    with fake_gpu() as gpu:
        scores = Scores(moved(built))
        images = torch.zeros(2, channels, SIZE, SIZE, device=gpu)
        content = torch.ones(2, SIZE, SIZE, dtype=torch.bool, device=gpu)
        with torch.inference_mode(), Recording():
            found = scores(images, content)
    assert found.maps.device == gpu and found.maps.shape == (2, SIZE, SIZE)
