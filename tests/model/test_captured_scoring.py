import threading

import pytest
import torch

from scrd.config import Config
from scrd.model import build_model
from scrd.model import runner as module
from scrd.model.runner import Runner
from scrd.model.scores import infer
from scrd.training.normals import learn_normals

SIZE = 64


@pytest.fixture(scope="module", params=["scrd", "srd"])
def model(request):
    torch.manual_seed(0)
    built = build_model("efficientnet_lite0", image_size=SIZE, objective=request.param).eval()
    normals = images(12, seed=1)
    learn_normals(built, *normals, Config(image_size=SIZE, objective=request.param))
    return built


def images(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    content = torch.ones(count, SIZE, SIZE, dtype=torch.bool)
    content[0, :20] = False
    return torch.rand(count, 1, SIZE, SIZE, generator=generator), content


def assert_same(found, expected, maps=True):
    for name, one in expected.statistics.items():
        torch.testing.assert_close(found.statistics[name], one, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.scale_weights, expected.scale_weights)
    assert list(found.statistics) == list(expected.statistics)
    if maps:
        torch.testing.assert_close(found.maps, expected.maps, atol=1e-3, rtol=1e-3)
    assert (found.excess is None) == (expected.excess is None)
    if found.excess is not None:
        torch.testing.assert_close(found.excess, expected.excess, atol=1e-3, rtol=1e-3)


def test_in_place_as_eagerly_whatever_the_size_of_a_batch(model):
    run = Runner(model, fixed=True)
    kept = []
    for seed, count in enumerate((4, 2, 4, 1, 6, 3)):
        batch = images(count, seed)
        kept.append((run(*batch), infer(model, *batch)))
    for found, expected in kept:  # later batches must not have written into earlier results
        assert_same(found, expected)
    assert run.fixed


def test_batches_that_grow_one_by_one_are_not_each_captured_for(model, monkeypatch):
    made = []
    slot = module._Slot
    monkeypatch.setattr(
        module, "_Slot", lambda m, shape, d: made.append(shape[0]) or slot(m, shape, d)
    )
    run = Runner(model, fixed=True)
    run.together = 1
    while run._slots.qsize() > 1:  # one place, which every batch meets
        run._slots.get()
    for count in (1, 2, 3, 4, 5, 6):
        assert_same(run(*images(count, count)), infer(model, *images(count, count)))
    assert made == [1, 2, 4, 8]


def test_maps_only_when_asked_for(model):
    for fixed in (True, False):
        run = Runner(model, fixed=fixed)
        found, expected = run(*images(3), maps=False), infer(model, *images(3))
        assert found.maps.shape == (0, SIZE, SIZE)
        assert_same(found, expected, maps=False)


def test_threads_do_not_mix_their_batches(model):
    run = Runner(model, fixed=True)
    found = {}

    def work(seed):
        found[seed] = run(*images(2, seed))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for seed, one in found.items():
        assert_same(one, infer(model, *images(2, seed)))


def test_what_cannot_be_captured_is_run_eagerly_and_said_once(model, monkeypatch):
    def refuses(work, device):
        raise RuntimeError("operation not permitted when stream is capturing\nlong trace")

    monkeypatch.setattr(module, "captured", refuses)
    run = Runner(model, fixed=True)
    with pytest.warns(UserWarning, match="without a CUDA graph.*not permitted") as told:
        assert_same(run(*images(2)), infer(model, *images(2)))
        run(*images(3))
    assert len(told) == 1 and "trace" not in str(told[0].message)


def test_a_graph_that_computes_something_else_is_not_used(model, monkeypatch):
    monkeypatch.setattr(module, "captured", lambda work, device: lambda: None)
    run = Runner(model, fixed=True)
    with pytest.warns(UserWarning, match="its results differ"):
        assert_same(run(*images(2)), infer(model, *images(2)))


def test_several_devices_take_turns(model):
    run = Runner(model, [torch.device("cpu"), torch.device("cpu")], fixed=True)
    assert run.together == 6
    assert Runner(model).together == 1
    found = [run(*images(2, seed)) for seed in range(7)]
    for seed, one in enumerate(found):
        assert_same(one, infer(model, *images(2, seed)))
