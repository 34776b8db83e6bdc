"""What the benchmarks of speed measure beside scrd still does what they say."""

import pytest
import torch


@pytest.fixture(scope="module")
def peers(benchmark_module):
    pytest.importorskip("anomalib", reason="anomalib is an extra")
    return benchmark_module("peers")


def test_reverse_distillation_trains_and_answers(peers):
    model = peers.reverse_distillation("wide_resnet50_2", 64)
    before = model.decoder.layer1[0].conv1.weight.detach().clone()
    teacher = {k: v.clone() for k, v in model.encoder.state_dict().items()}
    assert peers.train_anomalib(model, torch.rand(4, 1, 64, 64), steps=1, batch=2) > 0
    assert not torch.equal(before, model.decoder.layer1[0].conv1.weight)
    assert all(torch.equal(v, teacher[k]) for k, v in model.encoder.state_dict().items())
    answer = model.eval()(torch.rand(2, 3, 64, 64))
    assert answer.pred_score.numel() == 2 and answer.anomaly_map.shape == (2, 1, 64, 64)


@pytest.mark.parametrize("teacher", ["efficientnet_lite0", "wide_resnet50_2"])
def test_patchcore_remembers_what_scrd_s_own_would(peers, teacher):
    images = torch.rand(4, 3, 64, 64)
    model = peers.patchcore(teacher, 100, images)
    assert len(model.memory_bank) == 100
    answer = model(images[:2])
    assert answer.pred_score.numel() == 2 and answer.anomaly_map.shape == (2, 1, 64, 64)


def test_it_is_timed_beside_the_plain_step_and_ours(peers, benchmark_module):
    variants = benchmark_module("training_step").variants
    sides = [v.side for v in variants("wide_resnet50_2", ["rd"], "cpu")]
    assert sides == ["yardstick", "scrd", "scrd", "scrd", "anomalib"]
    assert "anomalib" not in [v.side for v in variants("efficientnet_lite0", ["rd"], "cpu")]
