"""Pictures of a forecast next to the truth."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from zoo.data.files import read_frames
from zoo.errors import ConfigError, DataError, ZooError
from zoo.inspect import pictures
from zoo.inspect.palettes import Palette
from zoo.inspect.pictures import comparison_gif, comparison_strip


def flat(t, value, c=1, h=32, w=32):
    return np.full((t, c, h, w), value, np.float32)


@pytest.fixture
def texts(monkeypatch):
    """All texts that are drawn; each must be inside its picture."""
    seen = []
    draw = ImageDraw.ImageDraw.text

    def text(self, xy, text, fill, font, anchor):
        left, top, right, bottom = self.textbbox(xy, text, font, anchor=anchor)
        assert left >= 0
        assert top >= 0
        assert right <= self.im.size[0]
        assert bottom <= self.im.size[1]
        seen.append(text)
        draw(self, xy, text, fill, font, anchor=anchor)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return seen


def test_strip_shows_the_four_rows(texts):
    strip = comparison_strip(flat(3, 0.2), flat(4, 0.4), flat(4, 0.8))
    assert strip.mode == "RGB"
    times = ["t-2", "t-1", "t", "t+1", "t+2", "t+3", "t+4"]
    assert [text for text in texts if text.startswith("t") and text != "truth"] == times
    assert [text for text in texts if text not in times] == [
        "input",
        "truth",
        "forecast",
        "|difference|",
    ]
    colors, counts = np.unique(np.asarray(strip).reshape(-1, 3), axis=0, return_counts=True)
    found = {tuple(color.tolist()): count for color, count in zip(colors, counts, strict=True)}
    area = 96 * 96
    assert found[(51,) * 3] == 3 * area
    assert found[(102,) * 3] == 4 * area
    assert found[(204,) * 3] == 4 * area
    assert found[(255, 51, 0)] == 4 * area  # a difference of 0.4: red, and a little yellow


def test_long_sequences_show_ten_frames(texts):
    comparison_strip(flat(30, 0), flat(100, 0), flat(100, 0))
    times = [text for text in texts if text.startswith("t") and text != "truth"]
    assert len(times) == 20
    assert (times[0], times[9], times[10], times[-1]) == ("t-29", "t", "t+1", "t+100")


def test_strip_shows_two_rows_per_model(texts):
    models = {"convlstm": flat(2, 0), "a-model-with-a-rather-long-name": flat(2, 1)}
    strip = comparison_strip(flat(2, 0), flat(2, 0.5), models, names=("past", "observed"))
    one = comparison_strip(flat(2, 0), flat(2, 0.5), flat(2, 0))
    assert strip.height > one.height
    assert {"past", "observed", *models} <= set(texts)
    assert texts.count("|difference|") == 3


def test_values_are_scaled_from_low_to_high(texts):
    strip = comparison_strip(flat(1, 20), flat(1, 20), flat(1, 40), low=0, high=40)
    shown = np.asarray(strip).reshape(-1, 3).tolist()
    assert [128] * 3 in shown
    assert [255] * 3 in shown


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "size",
    [
        (1, 1),
        (28, 28),
        (64, 64),
        (120, 160),
        (500, 40),
        (4, 300),
        pytest.param((432, 768), marks=pytest.mark.slow),
    ],
)
def test_frames_of_any_size_are_drawn(tmp_path, texts, channels, size):
    arrays = [np.random.default_rng(0).random((2, channels, *size)) for _ in range(3)]
    strip = comparison_strip(*arrays)
    assert max(strip.size) < 1200
    width, height = pictures._display_size(arrays[0], 96)
    assert height >= 96 or width > 280
    comparison_gif(tmp_path / "a.gif", *arrays)


def test_missing_values_are_drawn():
    comparison_strip(flat(2, np.nan), flat(2, np.nan), flat(2, 1))


@pytest.mark.parametrize("ending", ["gif", "mp4"])
def test_gif_plays_input_then_forecast(tmp_path, texts, ending):
    path = tmp_path / f"a.{ending}"
    past = np.stack([flat(3, 0.1)[0], flat(3, 0.2)[0]])
    truth = np.linspace(0.3, 0.6, 3, dtype=np.float32)[:, None, None, None] * flat(3, 1)
    comparison_gif(path, past, truth, 1 - truth, fps=2)
    assert texts[:4] == ["truth", "input  t-1", "forecast", "input  t-1"]
    assert texts[-4:] == ["truth", "truth  t+3", "forecast", "forecast  t+3"]
    frames = read_frames(path, channels=1)
    assert len(frames) in (5, 5 + 2)  # the last frame is held, in a gif without copies
    shown = frames[:5, 0, 150, [100, 400]] / 255  # one pixel per panel
    np.testing.assert_allclose(
        shown, [[0.1, 0.1], [0.2, 0.2], [0.3, 0.7], [0.45, 0.55], [0.6, 0.4]], atol=0.03
    )


def test_gif_shows_a_panel_per_model(tmp_path, texts):
    comparison_gif(tmp_path / "a.gif", flat(1, 0), flat(2, 1), {"a": flat(2, 1), "b": flat(2, 0)})
    assert {"truth", "a", "b"} <= set(texts)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.width > 3 * 224


@pytest.mark.parametrize(
    ("past", "truth", "forecast", "message"),
    [
        (flat(2, 0), flat(2, 0)[0], flat(2, 0), "truth"),
        (flat(2, 0, c=2), flat(2, 0, c=2), flat(2, 0, c=2), "1 or 3 channels"),
        (flat(2, 0), flat(0, 0), flat(0, 0), "truth"),
        (flat(2, 0, h=8), flat(2, 0), flat(2, 0), "input"),
        (flat(0, 0), flat(2, 0), flat(2, 0), "input"),
        (flat(2, 0), flat(2, 0), flat(3, 0), "forecast"),
        (flat(2, 0), flat(2, 0), {"mine": flat(2, 0, w=8)}, "mine"),
        (flat(2, 0), flat(2, 0), {}, "forecast"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(tmp_path, past, truth, forecast, message):
    with pytest.raises(DataError, match=message):
        comparison_strip(past, truth, forecast)
    with pytest.raises(DataError, match=message):
        comparison_gif(tmp_path / "a.gif", past, truth, forecast)
    assert not list(tmp_path.iterdir())


def test_empty_range_is_refused():
    with pytest.raises(ConfigError, match="low < high"):
        comparison_strip(flat(2, 0), flat(2, 0), flat(2, 0), low=1, high=1)


@pytest.mark.parametrize("name", ["a.npy", "a.png", "no/a.gif"])
def test_path_that_cannot_be_written_is_refused(tmp_path, name):
    with pytest.raises(ZooError, match=name):
        comparison_gif(tmp_path / name, flat(2, 0), flat(2, 0), flat(2, 0))


def test_legend_widens_narrow_pictures(texts):
    palette = Palette(0, 1234, spread=617, unit="1/30min", shade="viridis")
    comparison_strip(*(flat(1, 20, h=32, w=4) for _ in range(3)), palette=palette)
    assert "1/30min" in texts
    assert "|difference|: white is 617 or more" in texts


def test_times_are_in_minutes_if_the_time_step_is_given(texts):
    comparison_strip(flat(2, 0), flat(2, 0), flat(2, 0), time_step=300.0, note="channel 1 of 2")
    assert {"t-5 min", "t", "t+5 min", "t+10 min", "channel 1 of 2"} <= {*texts}
    comparison_strip(flat(2, 0), flat(2, 0), flat(2, 0), time_step=0.1)
    assert "t+1" in texts
