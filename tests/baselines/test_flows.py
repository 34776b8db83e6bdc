import math
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from planted import blobs, planted, small_budget
from scipy.stats import norm

from scrd import baselines
from scrd.baselines.features import extract
from scrd.baselines.flows import CONDITION, CFlow, FastFlow, rate_factor
from scrd.errors import ScrdError
from scrd.metrics.ranks import auroc

needs_anomalib = pytest.mark.skipif(
    find_spec("anomalib") is None, reason="anomalib, an optional extra, is not installed"
)


@pytest.mark.parametrize("name", ["fastflow", "cflow", "efficientad"])
def test_without_anomalib_the_error_says_what_to_install(name, monkeypatch):
    for module in [m for m in sys.modules if m.startswith("anomalib.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "anomalib", None)
    with pytest.raises(ScrdError, match=r"anomalib.*pip install 'scrd\[anomalib\]'"):
        baselines.BASELINES[name](small_budget())


def test_rate_rises_and_falls_along_a_cosine():
    rates = [rate_factor(step, 200) for step in range(200)]
    assert rates[0] == pytest.approx(0.25, rel=1e-3)  # of four steps of warm-up
    assert np.argmax(rates) == 3
    assert rates[100] == pytest.approx(0.5)
    assert rates[199] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.995)))
    assert rate_factor(0, 1) == 1


def trained(method, iterations):
    model = method(small_budget(iterations=iterations, batch_size=8))
    model.fit(blobs(40, seed=0))
    return model


@pytest.fixture(scope="module")
def fastflow():
    return trained(FastFlow, 60)


@pytest.fixture(scope="module")
def cflow():
    return trained(CFlow, 12)


def fastflow_likelihood(model, images):
    with torch.no_grad():
        return -float(model.loss(*model._encode(extract(model.teacher, images, "cpu"))))


def cflow_likelihood(model, images):
    features = model.teacher(images)
    with torch.no_grad():
        return sum(float(d.mean()) for d in model._densities(features))


@needs_anomalib
@pytest.mark.parametrize("name", ["fastflow", "cflow"])
def test_training_raises_the_likelihood_of_held_out_normals_above_that_of_others(name, request):
    model = request.getfixturevalue(name)
    likelihood = {"fastflow": fastflow_likelihood, "cflow": cflow_likelihood}[name]
    images, _ = planted(10, seed=1)
    fresh = type(model)(model.budget)
    assert likelihood(model, images[:10]) > likelihood(fresh, images[:10])
    assert likelihood(model, images[:10]) > likelihood(model, images[10:])


@needs_anomalib
@pytest.mark.parametrize("name", ["fastflow", "cflow"])
def test_planted_anomalies_score_higher_and_most_around_their_place(name, request):
    model = request.getfixturevalue(name)
    images, labels = planted(10, seed=1)
    answer = model.score(images)
    assert auroc(answer.scores.numpy(), labels) > 0.95
    change = (answer.maps[10:] - model.score(blobs(20, seed=1)[10:]).maps).mean(dim=0)
    assert change[8:32, 30:54].mean() > 1.4 * change[32:56, 10:34].mean()


@needs_anomalib
def test_fastflow_map_is_the_average_of_the_likelihoods_of_scales(fastflow):
    images = blobs(2, seed=1)
    with torch.no_grad():
        latents, _ = fastflow._encode(extract(fastflow.teacher, images, "cpu"))
    maps = fastflow.score(images).maps
    expected = np.zeros((2, 64, 64))
    for z in latents:
        likelihood = torch.from_numpy(np.exp(-0.5 * (z.numpy() ** 2).mean(axis=1, keepdims=True)))
        expected -= torch.nn.functional.interpolate(likelihood, 64, mode="bilinear")[:, 0].numpy()
    np.testing.assert_allclose(maps, expected / 3, rtol=1e-4)
    assert torch.equal(fastflow.score(images).scores, maps.flatten(1).max(dim=1).values)


@needs_anomalib
def test_cflow_density_is_that_of_the_change_of_variables(cflow):
    for flow, u in zip(cflow.flows, cflow.teacher(blobs(1, seed=1)), strict=True):
        fibres, positions = (x[-2:].double() for x in cflow._fibres(u))
        flow = flow.double()
        density = cflow._density(flow, fibres, positions).detach()
        for fibre, position, found in zip(fibres, positions, density, strict=True):

            def latent(x, flow=flow, position=position):
                return flow(x[None], [position[None]])[0][0]

            jacobian = torch.autograd.functional.jacobian(latent, fibre)
            base = norm.logpdf(latent(fibre).detach().numpy()).sum()
            expected = (base + float(torch.linalg.slogdet(jacobian).logabsdet)) / len(fibre)
            assert float(found) == pytest.approx(expected, rel=1e-6)
        flow.float()


@needs_anomalib
def test_cflow_reads_features_and_positions_row_by_row(cflow):
    u = torch.arange(2 * 5 * 3 * 4, dtype=torch.float32).view(2, 5, 3, 4)
    fibres, positions = cflow._fibres(u)
    assert torch.equal(fibres.view(2, 3, 4, 5)[1, 1, 3], u[1, :, 1, 3])
    positions = positions.view(2, 3, 4, CONDITION)
    assert torch.equal(positions[0], positions[1])
    column, row = positions[0, 1, 3].split(CONDITION // 2)
    assert float(column[0]) == pytest.approx(math.sin(3))
    assert float(row[0]) == pytest.approx(math.sin(1))


@needs_anomalib
def test_cflow_compares_with_the_greatest_likelihood_of_normals(cflow):
    train = blobs(40, seed=0)
    with torch.no_grad():
        densities = cflow._densities(cflow.teacher(train))
    for density, peak in zip(densities, cflow.peaks, strict=True):
        assert float(density.max()) == pytest.approx(float(peak), abs=1e-4)
    corner = sum(
        np.exp(float(d[7, 0, -1, 0]) - float(peak))
        for d, peak in zip(densities, cflow.peaks, strict=True)
    )
    assert float(cflow.score(train[7:8]).maps[0, -1, 0]) == pytest.approx(-corner, rel=1e-4)


@needs_anomalib
def test_cflow_takes_few_steps_over_positions_drawn_anew(monkeypatch):
    monkeypatch.setattr("scrd.baselines.flows.FIBRES", 10)
    monkeypatch.setattr("scrd.baselines.flows.STEPS", 3)
    model = CFlow(small_budget(iterations=2, batch_size=4))
    seen = []
    real = model._density

    def density(flow, fibres, positions):
        if torch.is_grad_enabled():
            seen.append((flow, len(fibres), positions))
        return real(flow, fibres, positions)

    monkeypatch.setattr(model, "_density", density)
    model.fit(blobs(4, seed=0))
    assert [length for _, length, _ in seen] == [10] * 18  # 2 iterations, 3 scales, 3 steps
    finest = [positions for flow, _, positions in seen if flow is model.flows[0]]
    first, second = torch.cat(finest[:3]), torch.cat(finest[3:])
    assert not torch.equal(first, second)
    assert len(first.unique(dim=0)) > 20  # of 1,024 positions: not the same ones every step
