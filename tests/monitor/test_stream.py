"""Tables are read in the order given, and refused with their name and the cause."""

import numpy as np
import pytest

from scrd.monitor.stream import SCORES, MonitorError, read_stream
from scrd.outputs.score_folder import write_scores as write_real_scores
from scrd.storage.known import read_known

VALUES = np.random.default_rng(0).normal(size=(5, 4))


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def read(model):
    def read(*places, **options):
        return read_stream(places, read_known(model).fingerprint, **options)

    return read


def test_an_empty_table_of_scrd_score_is_one(tmp_path, read):
    write_real_scores(tmp_path / SCORES, [], [])
    with pytest.raises(MonitorError, match="no image with a score"):
        read(tmp_path)


def test_folders_and_files_follow_one_another(model, write_scores, read):
    later = write_scores("b", model, VALUES)
    earlier = write_scores("a", model, VALUES[:2], row_spacing=0.5, column_spacing=0.7)
    found = read(later, earlier / "scores.csv")
    assert [image.path[:1] for image in found.images] == list("bbbbbaa")
    assert [image.table for image in found.images] == [0] * 5 + [1] * 2
    assert found.tables == (later / "scores.csv", earlier / "scores.csv")
    np.testing.assert_allclose([i.score for i in found.images[:5]], VALUES[:, 0])
    np.testing.assert_allclose([i.covariates.sharpness for i in found.images[:5]], VALUES[:, 3])
    assert found.images[0].covariates.spacing is None
    assert found.images[5].covariates.spacing == (0.5, 0.7)
    assert found.images[0].covariates.manufacturer is None


def test_images_without_a_score_are_counted(model, write_scores, read):
    folder = write_scores("a", model, VALUES)
    with open(folder / "scores.csv", "a") as file:
        file.write("broken.png,,,\n")
    found = read(folder)
    assert (len(found.images), found.unscored) == (5, 1)


def test_a_table_alone_has_scores_and_no_covariates(model, write_scores, read):
    found = read(write_scores("a", model, VALUES, covariates=False))
    assert {image.covariates for image in found.images} == {None}


def test_scores_of_another_model_are_refused(model, make_model, write_scores, read):
    other = make_model("other", seed=1)
    folder = write_scores("a", other, VALUES)
    with pytest.raises(MonitorError, match=r"covariates.csv, line 2: scored by the model .*two"):
        read(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column path, score, flag"),
        ("path;score;flag\n", "no column path, score, flag"),
        ("path,score\n", "no column flag"),
        ("path,score,p_value,flag\n", "no image with a score"),
        ("path,score,p_value,flag\na.png,,,\n", "no image with a score"),
        ("path,score,p_value,flag\na.png,high,0.1,0\n", "line 2: score is no number: 'high'"),
        ("path,score,p_value,flag\na.png,nan,0.1,0\n", "line 2: score is no number"),
    ],
)
def test_what_is_no_table_of_scores_is_refused(tmp_path, read, text, words):
    path = tmp_path / "scores.csv"
    path.write_text(text)
    with pytest.raises(MonitorError, match=words) as error:
        read(path)
    assert str(path) in str(error.value)


def test_a_missing_table_is_named(tmp_path, read):
    with pytest.raises(MonitorError, match=r"absent: cannot be read: No such file"):
        read(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MonitorError, match=r"empty.scores.csv: cannot be read"):
        read(tmp_path / "empty")


def test_a_table_counts_once(model, write_scores, read):
    folder = write_scores("a", model, VALUES)
    with pytest.raises(MonitorError, match="given twice"):
        read(folder, folder / ".." / "a" / "scores.csv")
    with pytest.raises(MonitorError, match="given twice"):
        read(folder, apart_from=read(folder).tables)
