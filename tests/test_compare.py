"""zoo compare: one page with scores, forecasts and costs."""

import re
from html.parser import HTMLParser

import pytest
import torch

import zoo
from zoo.inspect.compare import Costs, costs_figure, measure_seconds

DATA = {"name": "mmnist", "input_frames": 3, "horizon": 2, "size": (64, 64)}


@pytest.fixture
def models(tmp_path):
    """Two small models in folders."""
    for name, architecture in (("small", "convlstm"), ("other & one", "ms-convlstm")):
        model = zoo.create(architecture, hidden=4, layers=2 + (name != "small"), data=DATA)
        zoo.save(model, tmp_path / name)
    return [f"local-dir:{tmp_path / name}" for name in ("small", "other & one")]


@pytest.fixture
def page(cli, models, noise_root, tmp_path):
    output = tmp_path / "report.html"
    arguments = ("--sequences", 2, "--set", "digits=1", "--data-dir", noise_root)
    cli.succeed("compare", *models, *arguments, "-o", output)
    return output.read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Collects the cells of tables and everything that a page would load."""

    def __init__(self):
        super().__init__()
        self.cells, self.loaded, self.in_cell = [], [], False

    def handle_starttag(self, tag, attributes):
        self.in_cell = tag == "td"
        self.loaded += [
            value
            for name, value in attributes
            if name in ("src", "href", "xlink:href") and not value.startswith(("data:", "#"))
        ]

    def handle_endtag(self, tag):
        self.in_cell = False

    def handle_data(self, data):
        if self.in_cell:
            self.cells.append(data)


def read(page):
    reader = Reader()
    reader.feed(page)
    return reader


def test_page_has_scores_and_costs_of_every_model(page):
    cells = read(page).cells
    assert cells.count("small") == cells.count("other & one") == 2
    assert cells.count("persistence") == 1


def test_page_loads_nothing(page):
    assert read(page).loaded == []
    assert page.count("data:image/png;base64,") == 1
    assert page.count("<svg") == 2


def test_page_names_the_command_that_makes_it(page, models, noise_root):
    command = re.search(r"<pre>(.*)</pre>", page)[1]
    assert command.startswith("zoo compare ")
    assert "--sequences 2" in command
    assert "--set digits=1" in command


def test_time_is_measured_for_every_model(models):
    loaded = {ref: zoo.load(ref) for ref in models}
    seconds = measure_seconds(loaded, torch.rand(1, 3, 1, 16, 16), 2, repeats=1)
    assert set(seconds) == set(models)
    assert all(value > 0 for value in seconds.values())


def test_radar_has_a_line_per_model():
    costs = {"a": Costs(10, 100, 1000, 0.1), "b": Costs(20, 50, 1000, 0.2)}
    axes = costs_figure(costs, {"a": 2.0, "b": 1.0}, "MSE").axes[0]
    a, b = (line.get_ydata()[:-1].tolist() for line in axes.lines)
    assert a == [0.5, 1, 1, 0.5, 1]
    assert b == [1, 0.5, 1, 1, 0.5]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("-o", "report.pdf"), "pdf"),
        (("-o", "missing/report.html"), "missing"),
        (("--example", 5, "-o", "report.html"), "5"),
    ],
)
def test_bad_input_is_one_line(cli, models, noise_root, tmp_path, monkeypatch, arguments, named):
    monkeypatch.chdir(tmp_path)
    error = cli.fail("compare", *models, "--sequences", 2, "--data-dir", noise_root, *arguments)
    assert named in error
    assert not (tmp_path / "report.html").exists()
