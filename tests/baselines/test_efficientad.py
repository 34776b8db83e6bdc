import numpy as np
import pytest
import torch
from PIL import Image
from planted import blobs, planted, small_budget

from scrd.baselines.efficientad import (
    TEACHER_FILE,
    EfficientAD,
    imagenet_crop,
    required_files,
)
from scrd.errors import ScrdError
from scrd.metrics.ranks import auroc


@pytest.fixture(scope="module")
def trained(efficientad_files):
    model = EfficientAD(small_budget(weights=str(efficientad_files), iterations=30, batch_size=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scrd.baselines.efficientad.RATE", 3e-3)  # a few steps have to do
        model.fit(blobs(10, seed=0))
    return model


def test_missing_files_are_named_with_their_place(tmp_path):
    teacher = "efficientad_pretrained_weights/pretrained_teacher_small.pth"
    with pytest.raises(ScrdError, match=f"FOLDER/{teacher} is missing"):
        required_files(None)
    with pytest.raises(ScrdError, match=f"{tmp_path}/{teacher} is missing"):
        required_files(str(tmp_path))
    (tmp_path / TEACHER_FILE).parent.mkdir()
    (tmp_path / TEACHER_FILE).touch()
    with pytest.raises(ScrdError, match=f"{tmp_path}/imagenette2 is missing"):
        required_files(str(tmp_path))


def test_other_weights_are_refused(efficientad_files, tmp_path):
    for path in efficientad_files.rglob("*.JPEG"):
        copy = tmp_path / path.relative_to(efficientad_files)
        copy.parent.mkdir(parents=True)
        copy.write_bytes(path.read_bytes())
    (tmp_path / TEACHER_FILE).parent.mkdir()
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / TEACHER_FILE)
    with pytest.raises(ScrdError, match=r"pretrained_teacher_small\.pth: not the weights"):
        EfficientAD(small_budget(weights=str(tmp_path)))


def test_penalty_images_are_the_middle_and_at_times_grey(tmp_path):
    pixels = np.zeros((512, 512, 3), dtype=np.uint8)
    pixels[128:384, 128:384] = (255, 128, 0)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        crops = torch.stack([imagenet_crop(tmp_path / "p.png") for _ in range(100)])
    assert crops.shape == (100, 3, 256, 256)
    colours = crops.mean(dim=(2, 3))
    grey = colours.amax(dim=1) - colours.amin(dim=1) < 1e-3
    assert 0.15 < grey.float().mean() < 0.45
    torch.testing.assert_close(colours[~grey][0], torch.tensor([255, 128, 0]) / 255)
    assert float(colours[grey][0, 0]) == pytest.approx(0.299 + 0.587 * 128 / 255, abs=1e-4)


def test_the_teacher_is_the_file_and_stays_so(trained, efficientad_files):
    weights = torch.load(efficientad_files / TEACHER_FILE, weights_only=True)
    for name, value in trained.network.teacher.state_dict().items():
        assert torch.equal(value, weights[name])


def held_out(images):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        order = torch.randperm(len(images))
    return images[order[:1]], images[order[1:]]


def test_the_teacher_is_standardised_over_the_training_images(trained):
    _, train = held_out(blobs(10, seed=0))
    with torch.no_grad():
        features = trained.network.teacher(trained._input(train)).numpy().astype(np.float64)
    moments = trained.network.mean_std
    mean, std = features.mean(axis=(0, 2, 3)), features.std(axis=(0, 2, 3))
    np.testing.assert_allclose(moments["mean"].flatten(), mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(moments["std"].flatten(), std, rtol=1e-3)


def test_both_maps_have_their_quantiles_on_held_out_normals_at_0_and_a_tenth(trained):
    normal, _ = held_out(blobs(10, seed=0))
    with torch.no_grad():
        maps = trained.network.get_maps(trained._input(normal), normalize=True)
    for values in maps:
        quantiles = np.quantile(values.numpy(), [0.9, 0.995])
        np.testing.assert_allclose(quantiles, [0, 0.1], atol=1e-3)


def test_on_held_out_normals_the_hardest_features_and_the_autoencoder_come_nearer(trained):
    def distances(network):
        images = trained._input(blobs(2, seed=3))
        with torch.no_grad():
            teacher = network._normalize_teacher(network.teacher(images))
            student = network.student(images)[:, : teacher.shape[1]]
            hardest = np.quantile((teacher - student).square().numpy(), 0.999)
            return hardest, float((teacher - network.ae(images, images.shape[-2:])).square().mean())

    fresh = EfficientAD(trained.budget).network
    fresh.mean_std = trained.network.mean_std
    now, before = distances(trained.network), distances(fresh)
    assert now[0] < 0.7 * before[0]
    assert now[1] < 0.9 * before[1]


def test_planted_anomalies_score_higher_and_most_around_their_place(trained):
    images, labels = planted(4, seed=1)
    answer = trained.score(images)
    assert auroc(answer.scores.numpy(), labels) > 0.9
    mean = answer.maps[4:].mean(dim=0)
    assert mean[8:32, 30:54].mean() > mean[32:56, 10:34].mean()
