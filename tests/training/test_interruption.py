"""Ctrl-C: the step in hand is saved, the rest comes out as if nothing had been."""

import copy
import os
import signal
import threading

import pytest
import torch

from scrd.config import Config
from scrd.model import build_model
from scrd.system.devices import make_fabric
from scrd.training.interruption import finishing_the_step
from scrd.training.log import TrainingInterrupted
from scrd.training.loop import train

CONFIG = Config(image_size=64, batch_size=4, iterations=12, checkpoint_every=100)


@pytest.fixture(scope="module")
def initial():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_model("efficientnet_lite0", image_size=64, objective="scrd")


def run(initial, **options):
    model = copy.deepcopy(initial)
    images = torch.rand(7, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    log = train(model, images, CONFIG, fabric=make_fabric("32-true", "cpu"), **options)
    return model.state_dict(), [(e.iteration, e.loss) for e in log]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_interrupted_goes_on_to_the_same_weights(initial, tmp_path, number):
    before = signal.getsignal(number)
    checkpoint = tmp_path / "checkpoint.safetensors"

    def interrupt(done):
        if done == 7:
            os.kill(os.getpid(), number)

    with pytest.raises(TrainingInterrupted, match="iteration 7 of 12|iteration 8 of 12") as caught:
        run(initial, checkpoint=checkpoint, on_step=interrupt)
    assert isinstance(caught.value, KeyboardInterrupt)
    assert signal.getsignal(number) is before
    began = []
    weights, log = run(initial, checkpoint=checkpoint, on_step=began.append)
    assert began[0] == caught.value.done
    undisturbed, expected = run(initial)
    assert log == expected
    assert all(torch.equal(x, undisturbed[name]) for name, x in weights.items())


def test_without_a_checkpoint_ctrl_c_ends_at_once(initial):
    def interrupt(done):
        if done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    steps = []
    with pytest.raises(KeyboardInterrupt) as caught:
        run(initial, on_step=lambda done: (steps.append(done), interrupt(done)))
    assert not isinstance(caught.value, TrainingInterrupted)
    assert steps[-1] == 2


def test_the_second_signal_does_not_wait():
    with pytest.raises(KeyboardInterrupt), finishing_the_step(True) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(1)
        os.kill(os.getpid(), signal.SIGINT)
        stop.clear()
        stop.wait(1)


def test_a_thread_of_its_own_trains_without_signals():
    entered = []

    def work():
        with finishing_the_step(True) as stop:
            entered.append(stop.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [False]


def test_the_last_step_is_saved_whenever_checkpoints_are_due(initial, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    weights, _ = run(initial, checkpoint=checkpoint)
    steps = []
    again, _ = run(initial, checkpoint=checkpoint, on_step=steps.append)
    assert steps == [12]
    assert all(torch.equal(x, again[name]) for name, x in weights.items())
