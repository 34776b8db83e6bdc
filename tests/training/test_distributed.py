"""Training by several processes: what one process with the joined batch would have learnt."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only
from PIL import Image
from torch import nn

from scrd.config import Config
from scrd.detector import Detector
from scrd.errors import ConfigError
from scrd.model import build_model
from scrd.synthesis.settings import NoiseSettings
from scrd.system.devices import make_fabric
from scrd.training.batches import share_of
from scrd.training.log import TrainingError
from scrd.training.loop import train
from scrd.training.sync_norm import JoinedBatchNorm2d

CONFIG = Config(
    image_size=64,
    batch_size=8,
    iterations=20,
    checkpoint_every=15,
    # a larger one lets Adam magnify rounding: then the same batch in reverse order already moves
    # the loss of a later step by 1e-3
    learning_rate=1e-4,
    # larger than 64 pixels would have it: small patches hardly move the loss
    noise=NoiseSettings(min_side=32, max_side_fraction=1.0),
)


def images():
    generator = torch.Generator().manual_seed(1)
    low = torch.rand(20, 1, 8, 8, generator=generator)
    return nn.functional.interpolate(low, size=(64, 64), mode="bilinear")


def network(objective):
    torch.manual_seed(0)
    return build_model("efficientnet_lite0", rectify=False, image_size=64, objective=objective)


NORM = {"scrd": "lesion_head.layers.2", "srd": "bottleneck.fuse2.1", "margin": "bottleneck.fuse2.1"}
"""A BatchNorm that each objective trains."""


def learn(fabric, objective, checkpoint=None, iterations=CONFIG.iterations):
    model = network(objective)
    config = dataclasses.replace(CONFIG, objective=objective, iterations=iterations)
    seen = []
    log = train(model, images(), config, fabric=fabric, checkpoint=checkpoint, on_log=seen.append)
    return model, log, seen


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for i, image in enumerate((255 * images()).byte().squeeze(1).numpy()):
        Image.fromarray(image).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def joined(data, tmp_path_factory):
    """What two processes under torchrun found: this file, run as a program."""
    folder = tmp_path_factory.mktemp("two")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    found = subprocess.run(
        [sys.executable, *launch, __file__, str(folder), str(data)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("objective", NORM)
def test_two_processes_learn_what_one_does(joined, objective):
    model, log, _ = learn(make_fabric("32-true", "cpu"), objective)
    expected = [entry.loss for entry in log]
    for rank in joined:
        assert rank[objective]["losses"] == pytest.approx(expected, rel=1e-3)
    assert joined[0][objective]["digest"] == joined[1][objective]["digest"]
    running = model.get_submodule(NORM[objective]).running_mean
    assert joined[0][objective]["running_mean"] == pytest.approx(running.tolist(), abs=1e-3)


def test_the_first_process_alone_reports_and_writes(joined):
    assert [rank["scrd"]["reports"] for rank in joined] == [2, 0]
    assert joined[0]["files"] == ["checkpoint.safetensors"]


def test_two_processes_fit_the_detector_of_one(joined, data):
    alone = fitted(data)
    assert joined[0]["detector"] == joined[1]["detector"]
    assert joined[0]["detector"]["processes"] == 2 and alone["processes"] == 1
    assert joined[0]["detector"]["scores"] == pytest.approx(alone["scores"], rel=1e-2, abs=1e-2)


def test_a_checkpoint_of_two_processes_resumes_in_one(joined, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    checkpoint.write_bytes(bytes.fromhex(joined[0]["checkpoint"]))
    _, log, _ = learn(make_fabric("32-true", "cpu"), "scrd", checkpoint)
    assert [entry.iteration for entry in log] == [10, 20]
    expected = joined[0]["scrd"]["losses"]
    assert [entry.loss for entry in log] == pytest.approx(expected, rel=1e-3)


def test_joined_norms_are_those_of_the_joined_batch(joined):
    found = [rank["norm"] for rank in joined]
    shares, norm = norm_case(), nn.BatchNorm2d(3)
    x = torch.cat(shares).requires_grad_()
    y = norm(x)
    (y * torch.cat([weighing(s) for s in shares])).sum().backward()
    for rank, share in enumerate(found):
        rows = slice(4 * rank, 4 * rank + 4)
        torch.testing.assert_close(torch.tensor(share["output"]), y[rows].detach())
        torch.testing.assert_close(torch.tensor(share["gradient"]), x.grad[rows])
        for name in ("running_mean", "running_var"):
            torch.testing.assert_close(torch.tensor(share[name]), norm.get_buffer(name))
    for name in ("weight", "bias"):
        total = sum(torch.tensor(share[name]) for share in found)
        torch.testing.assert_close(total, norm.get_parameter(name).grad, rtol=1e-5, atol=1e-4)


def test_a_batch_that_cannot_be_shared_is_refused():
    class Three:
        world_size, global_rank = 3, 1

    assert share_of(Three, 12) == slice(4, 8)
    with pytest.raises(TrainingError, match="3 processes cannot share a batch of 16"):
        share_of(Three, 16)


def test_there_is_no_training_on_no_device():
    with pytest.raises(ConfigError, match="0 devices"):
        make_fabric(devices=0)


def test_torchrun_says_how_many(monkeypatch):
    # Lightning keeps the rank for the whole process, and loggers ask it
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    for name, value in (("RUN_ID", "x"), ("MAX_RESTARTS", "0")):
        monkeypatch.setenv(f"TORCHELASTIC_{name}", value)
    for name, value in (
        ("LOCAL_WORLD_SIZE", "2"),
        ("WORLD_SIZE", "6"),
        ("RANK", "3"),
        ("LOCAL_RANK", "1"),
        ("GROUP_RANK", "1"),
        ("MASTER_ADDR", "localhost"),
        ("MASTER_PORT", "0"),
    ):
        monkeypatch.setenv(name, value)
    fabric = make_fabric("32-true", "cpu", devices=1)
    assert (fabric.world_size, fabric.global_rank, fabric.local_rank) == (6, 3, 1)


def norm_case():
    """The shares of two processes, with means far apart."""
    generator = torch.Generator().manual_seed(2)
    shift = torch.tensor([0.0, 5.0, -3.0]).view(1, 3, 1, 1)
    return [k * shift + torch.randn(4, 3, 5, 6, generator=generator) for k in (1, 2)]


def weighing(x):
    """Weights of a loss, so that its gradient is not zero."""
    return torch.linspace(-1, 1, x.numel()).view_as(x) * x.sign()


def fitted(data):
    config = dataclasses.replace(CONFIG, objective="scrd", iterations=3)
    detector = Detector.fit(data, config, device="cpu")
    return {
        "scores": detector.calibration.scores,
        "processes": detector.provenance["processes"],
    }


def norms(fabric):
    x = norm_case()[fabric.global_rank].requires_grad_()
    norm = JoinedBatchNorm2d(3)
    y = norm(x)
    # DDP takes the mean over processes, here the loss is their sum
    (fabric.world_size * y * weighing(x.detach())).sum().backward()
    scale = 1 / fabric.world_size
    return {
        "output": y.tolist(),
        "gradient": (x.grad * scale).tolist(),
        "weight": (norm.weight.grad * scale).tolist(),
        "bias": (norm.bias.grad * scale).tolist(),
        "running_mean": norm.running_mean.tolist(),
        "running_var": norm.running_var.tolist(),
    }


def losses(fabric, folder):
    found = {}
    for objective in NORM:
        # that of iteration 15 stays
        checkpoint = folder / "work" / "checkpoint.safetensors" if objective == "scrd" else None
        if checkpoint is not None:
            checkpoint.parent.mkdir(exist_ok=True)
        model, log, seen = learn(fabric, objective, checkpoint)
        weights = b"".join(v.contiguous().numpy().tobytes() for v in model.state_dict().values())
        found[objective] = {
            "losses": [entry.loss for entry in log],
            "reports": len(seen),
            "digest": hashlib.sha256(weights).hexdigest(),
            "running_mean": model.get_submodule(NORM[objective]).running_mean.tolist(),
        }
        assert type(model.get_submodule(NORM[objective])) is nn.BatchNorm2d
    fabric.barrier()
    found["files"] = sorted(p.name for p in (folder / "work").iterdir())
    found["checkpoint"] = (folder / "work" / "checkpoint.safetensors").read_bytes().hex()
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    fabric = make_fabric("32-true", "cpu")
    fabric.launch()
    found = {**losses(fabric, folder), "norm": norms(fabric), "detector": fitted(Path(sys.argv[2]))}
    (folder / f"{fabric.global_rank}.json").write_text(json.dumps(found))
