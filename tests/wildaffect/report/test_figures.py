import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from temporal.plots import timeline
from temporal.scoring import Scored
from wildaffect.report import figures
from wildaffect.report.page import png
from wildaffect.report.palette import EXPRESSION_COLOURS
from wildaffect.tasks import AUS, EXPRESSIONS

RNG = np.random.default_rng(0)


def test_reconstructions_show_masked_predicted_original_in_rows():
    triple = tuple(np.full((32, 32, 3), value, np.uint8) for value in (200, 128, 64))
    figure = figures.mae_reconstructions([triple] * 3)
    (axis,) = figure.axes
    shown = axis.images[0].get_array()[56::112, 56::112, 0]
    assert shown.tolist() == [[128] * 3, [64] * 3, [200] * 3]
    names = {label.get_text(): row for row, label in enumerate(axis.get_yticklabels())}
    assert names == {"masked": 0, "predicted": 1, "original": 2}


def test_loss_curves_skip_records_without_the_key():
    records = [{"step": 1, "loss": 2.0}, {"step": 2, "score": 0.3}, {"step": 3, "loss": 1.0}]
    left, right = figures.loss_curves(records, ["loss", "score"]).axes
    assert left.lines[0].get_xydata().tolist() == [[1, 2], [3, 1]]
    assert right.lines[0].get_xydata().tolist() == [[2, 0.3]]


def test_confusion_matrix_is_normalised_by_true_class():
    counts = np.array([[3, 1], [0, 0]])
    axis = figures.confusion_matrix(counts, ["a", "b"]).axes[0]
    assert np.allclose(axis.images[0].get_array(), [[0.75, 0.25], [0, 0]])
    assert [text.get_text() for text in axis.texts] == ["0.75\n3", "0.25\n1"]


def test_timeline_leaves_out_what_is_not_annotated():
    time_s = np.arange(4) / 2
    true = np.array([[0.1, -5], [-5, 0.2], [0.3, 0.3], [np.nan, 0.4]])
    predicted = np.array([[0.0, 0.1], [np.nan, np.nan], [0.2, 0.3], [0.4, 0.5]])
    valence, arousal = figures.va_timeline(time_s, predicted, true).axes
    lines = {line.get_label(): line.get_ydata() for line in valence.lines}
    assert np.array_equal(lines["true"], [0.1, np.nan, 0.3, np.nan], equal_nan=True)
    assert np.array_equal(lines["predicted"], predicted[:, 0], equal_nan=True)
    assert np.isnan(arousal.lines[1].get_ydata()[0])


def test_circumplex_averages_the_error_per_cell(monkeypatch):
    monkeypatch.setattr(figures, "CELLS", 4)
    values = np.array([[0.5, 0.5], [0.5, 0.5], [-0.5, -0.5], [np.nan, 0]])
    mesh = figures.va_circumplex(values, np.array([1.0, 3.0, 5.0, 100.0])).axes[0].collections[0]
    shown = np.ma.filled(mesh.get_array().astype(float), np.nan).reshape(4, 4)
    assert shown[3, 3] == 2 and shown[1, 1] == 5 and np.isfinite(shown).sum() == 2


def test_trajectory_is_interrupted_by_gaps():
    values = np.array([[0, 0], [0.1, 0.1], [np.nan, np.nan], [0.2, 0.2], [0.3, 0.3]])
    assert len(figures.va_trajectory(values, np.arange(5)).axes[0].collections[0].get_segments()) == 2


def test_reliability_states_the_expected_calibration_error():
    confidence, correct = np.repeat([0.25, 0.85], 100), np.repeat([0, 1, 1], [75, 25, 100])
    axis = figures.reliability(confidence, correct).axes[0]
    assert axis.get_title(loc="right") == "ECE = 0.075"  # (0 + .15) / 2


def test_pca_map_finds_the_direction_of_largest_variance():
    features = RNG.normal(size=(200, 5)) * np.array([0.1, 0.1, 9, 0.1, 3])
    axis = figures.pca_map(features, np.zeros(200, int), ["all"]).axes[0]
    drawn = np.asarray(axis.collections[0].get_offsets())
    assert abs(np.corrcoef(drawn[:, 0], features[:, 2])[0, 1]) > 0.999
    assert abs(np.corrcoef(drawn[:, 1], features[:, 4])[0, 1]) > 0.99


@pytest.mark.parametrize(
    "figure",
    [
        lambda: figures.f1_bars(dict.fromkeys(AUS, 0.5), reference=dict.fromkeys(AUS, 0.2)),
        lambda: figures.histogram(np.array([])),
        lambda: figures.loss_curves([]),
        lambda: figures.va_circumplex(np.empty((0, 2))),
        lambda: figures.va_trajectory(np.full((3, 2), np.nan), np.arange(3)),
        lambda: figures.reliability(np.array([]), np.array([])),
        lambda: figures.confusion_matrix(np.zeros((8, 8), int), EXPRESSIONS),
    ],
)
def test_figures_are_drawn_also_of_nothing(figure):
    picture = np.asarray(Image.open(io.BytesIO(png(figure()))))
    assert min(picture.shape[:2]) > 20


CURVES = np.linspace(-1, 1, 40).repeat(2).reshape(-1, 2)


@pytest.mark.parametrize(
    "figure",
    [
        figures.va_timeline(np.arange(40), CURVES, CURVES, title="a clip with a rather long name"),
        figures.f1_bars(dict.fromkeys(AUS, 1.0), reference=dict.fromkeys(AUS, 0.2)),
        figures.histogram(np.arange(9.0)),
        figures.reliability(np.full(9, 0.05), np.ones(9)),
        figures.pca_map(RNG.random((50, 8)), np.arange(50) % 8, EXPRESSIONS),
        timeline("expr", Scored("clip", np.arange(40), *[np.arange(40)[:, None] % 8] * 2, np.ones((40, 1), bool))),
    ],
)
def test_keys_and_remarks_cover_nothing_that_is_drawn(figure):
    figure.draw_without_rendering()
    for axis in figure.axes:
        inside = axis.get_window_extent().padded(-1)
        words = [text for text in axis.texts if text.get_text() and text.get_transform() is axis.transAxes]
        words += [axis.get_legend()] if axis.get_legend() else []
        assert not any(inside.overlaps(word.get_window_extent()) for word in words)


def test_a_map_by_expression_has_the_colours_of_the_expressions():
    axis = figures.pca_map(RNG.random((50, 8)), np.arange(50) % 8, EXPRESSIONS).axes[0]
    shown = [tuple(part.get_facecolor()[0][:3]) for part in axis.collections]
    assert shown == [to_rgb(colour) for colour in EXPRESSION_COLOURS.values()]


@pytest.mark.parametrize("shape", [(50, 8), (3, 1), (40, 2), (3, 8)])
@pytest.mark.parametrize("same", [True, False])
def test_a_map_of_features_that_are_all_equal_or_few(shape, same):
    features = np.full(shape, 1 / 3) if same else RNG.random(shape)
    axis = figures.pca_map(features, np.zeros(len(features), int), ["a"]).axes[0]
    points = axis.collections[0].get_offsets()
    assert np.isfinite(points).all() and bool(np.ptp(points, axis=0).max() < 1e-9) == same
