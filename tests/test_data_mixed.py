"""Several data sets as one: each keeps its own options, and all have one scale and time step."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from conftest import Cli
from snippets import read_blocks

import zoo
from zoo.data import open_dataset
from zoo.data.mixed import Mixed
from zoo.data.newest import newest_frames
from zoo.errors import ConfigError, DataError, NoWindowError
from zoo.evaluate import evaluate, open_data
from zoo.units import to_physical

REAL = Path(os.environ.get("ZOO_DATA", "data")) / "radar"

COMMON = {"data": "arrays", "unit": "mm/h", "quantity": "rain", "start": "2020-01-01"}
FAST, SLOW = COMMON | {"time_step": "5min"}, COMMON | {"time_step": "10min"}


def ramp(folder: Path, low: float, high: float, size: tuple[int, int] = (8, 8)) -> None:
    """Write ten frames whose values rise from `low` to `high`."""
    folder.mkdir()
    values = np.linspace(low, high, 10, dtype=np.float32)
    np.save(folder / "a.npy", np.tile(values[:, None, None], (1, *size)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two folders of arrays: in the training parts, values from 0 to 7 and from 10 to 24."""
    ramp(tmp_path / "a", 0, 9)
    ramp(tmp_path / "b", 10, 28)
    return tmp_path


def sources(**changes: Any) -> dict[str, dict[str, Any]]:
    """Sources "one" and "two", the second one with other options."""
    return {"one": FAST | {"folder": "a"}, "two": FAST | {"folder": "b"} | changes}


def mixed(root: Path, split: str = "train", **options: Any) -> Mixed:
    options = {"sources": sources()} | options
    dataset = open_dataset("mixed", split, root=root, frames=2, **options)
    assert isinstance(dataset, Mixed)
    return dataset


def test_training_windows_of_all_sources_are_read(root: Path) -> None:
    dataset = mixed(root)
    assert len(dataset) == 7 + 7
    assert (dataset.data.low, dataset.data.high) == (0, 24)  # covers both
    assert (dataset.data.unit, dataset.data.time_step) == ("mm/h", 300)
    for index, first in ((0, 0), (6, 6), (7, 10), (13, 22)):
        frames = to_physical(dataset[index], dataset.data)
        assert frames[0, 0, 0, 0].item() == pytest.approx(first, abs=1e-5)
        assert frames.shape == (2, 1, 8, 8)
    assert str(dataset.when(8)[0]) == "2020-01-01T00:05:00"  # type: ignore[index]
    with pytest.raises(IndexError):
        dataset[14]


def test_one_source_is_evaluated(root: Path) -> None:
    for test, values in (("one", (8, 9)), ("two", (26, 28))):
        dataset = mixed(root, "test", test=test)
        assert len(dataset) == 1
        frames = to_physical(dataset[0], dataset.data)[:, 0, 0, 0]
        np.testing.assert_allclose(frames, values, rtol=1e-5)
        assert (dataset.data.low, dataset.data.high) == (0, 24)
        assert dataset.data.options["test"] == test
        assert len(dataset.series) == 1
    assert mixed(root, "test").options["test"] == "one"
    with pytest.raises(ConfigError, match=r"'three'.*one, two"):
        mixed(root, test="three")


def test_sequences_of_a_source_count_in_training_only(root: Path) -> None:
    options = {"sources": sources(sequences=3), "test": "two"}
    assert len(mixed(root, **options)) == 7 + 3
    assert len(mixed(root, "test", **options)) == 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"time_step": "10min"}, r"time step.* two is 10 min, .*one 5 min"),
        ({"time_step": None}, "time step"),
        ({"unit": "mm"}, "quantity.*'mm'"),
        ({"quantity": "snow"}, "quantity.*snow"),
        ({"grid_step": 2000.0}, "grid step.*2000 m.*1000 m"),
        ({"crop": [0, 0, 4, 8]}, "size.*4×8.*8×8"),
        ({"folder": "c"}, "source two.*does not exist"),
        ({"pool": "a"}, "source two.*pool"),
        ({"split": "test"}, "source two.*split"),
        ({"data": None}, "source two"),
        ({"test_share": 0.9}, "source two.*no window"),
    ],
)
def test_a_source_that_differs_is_an_error(root: Path, changes: dict[str, Any], named: str) -> None:
    both = sources(**changes)
    if "grid_step" in changes:
        both["one"] = both["one"] | {"grid_step": 1000.0}
    if changes == {"time_step": None}:
        both["two"] = {k: v for k, v in both["two"].items() if k not in ("start", "time_step")}
    kind = NoWindowError if "test_share" in changes else (DataError, ConfigError)
    with pytest.raises(kind, match=named):
        mixed(root, sources=both)


def test_sources_of_other_channels_are_an_error(root: Path) -> None:
    np.save(root / "b" / "a.npy", np.ones((10, 2, 8, 8)))
    with pytest.raises(DataError, match=r"number of channels.* 2, .* 1"):
        mixed(root, sources=sources(low=0, high=2))


def test_spellings_of_a_unit_are_one_unit(root: Path) -> None:
    assert mixed(root, sources=sources(unit="mm h-1")).data.unit == "mm/h"


def test_other_time_steps_are_allowed_on_request(root: Path) -> None:
    both = {"one": FAST | {"folder": "a"}, "two": SLOW | {"folder": "b"}}
    dataset = mixed(root, sources=both, any_time_step=True)
    assert dataset.data.time_step is None
    both["one"]["every"] = 2
    assert mixed(root, sources=both).data.time_step == 600


def test_scales_that_cannot_be_joined_are_an_error(root: Path) -> None:
    (root / "fmi").mkdir()
    head = b"P5\n# obstime 20200101%04d\n# param X\n8 8\n255\n"
    for minute in range(0, 50, 5):
        (root / "fmi" / f"{minute:02}.pgm").write_bytes(head % minute + bytes([124] * 64))
    radar = {"data": "fmi", "folder": "fmi", "rain": True}
    both = {"one": FAST | {"folder": "a", "quantity": "rain_rate"}, "two": radar}
    with pytest.raises(DataError, match="low and high"):
        mixed(root, sources=both)
    both["two"] |= {"low": 0, "high": 100}
    assert mixed(root, sources=both).data.limits == (0, 100)


def test_check_reads_every_source(root: Path, cli: Cli) -> None:
    arguments = ["data", "check", "mixed", root, "--frames", "2"]
    setting = f"sources={json.dumps(sources())}"
    printed = cli.succeed(*arguments, "--set", setting)
    assert "one: frames" in printed
    assert "two: frames" in printed
    assert "two" in cli.fail(*arguments, "--set", f"sources={json.dumps(sources(pool=3))}")
    assert "sources" in cli.fail(*arguments)


RECIPE = """
[model]
name = "convlstm"
layers = 2
hidden = 2

[data]
name = "mixed"
input_frames = 1
horizon = 1

[data.options]
test = "two"

[data.options.sources.one]
data = "arrays"
folder = "a"
{common}

[data.options.sources.two]
data = "arrays"
folder = "b"
{common}
{two}

[train]
steps = 2
batch_size = 4
"""


def recipe(root: Path, two: str = "", rest: str = "") -> Path:
    path = root / "recipe.toml"
    values = {k: v for k, v in FAST.items() if k != "data"}
    common = "\n".join(f'{key} = "{value}"' for key, value in values.items())
    path.write_text(RECIPE.format(common=common, two=two) + rest)
    return path


@pytest.mark.slow
def test_a_model_of_several_sources_is_trained_and_evaluated(root: Path, cli: Cli) -> None:
    cli.succeed("train", recipe(root), "--data-dir", root, "-o", root / "run")
    model = zoo.load(f"local-dir:{root / 'run'}")
    data = model.config.data
    assert (data.name, data.low, data.high, data.time_step) == ("mixed", 0, 24, 300)
    assert open_data(model, root=root).dataset.test == "two"
    options = json.loads(json.dumps(data.trusted_options({"test": "one"})))
    report = evaluate(model, root=root, options=options)
    assert report["protocol"]["options"]["test"] == "one"
    assert report["data"]["sequences"] == 1


@pytest.mark.slow
def test_sizes_may_differ_with_crops(root: Path, cli: Cli) -> None:
    arguments = ["train", "--data-dir", root, "-o", root / "run"]
    differing = recipe(root, "crop = [0, 0, 6, 8]")
    assert "size" in cli.fail(*arguments, differing)
    arguments += ["--set", "data.options.any_size=true"]
    assert "crop.size" in cli.fail(*arguments, differing)
    cli.succeed(*arguments, recipe(root, "crop = [0, 0, 6, 8]", "[crop]\nsize = [4, 4]\n"))
    assert zoo.load(f"local-dir:{root / 'run'}").config.data.size == (4, 4)


def test_newest_frames_are_read_with_the_options_of_a_source(root: Path) -> None:
    options = {"sources": sources(pool=2), "test": "one"}
    data = zoo.Config(cell="convlstm", data={"name": "mixed", "options": options}).data
    assert newest_frames(data, "two", root / "b", 3).shape == (3, 4, 4)
    assert newest_frames(data, "one", root / "a", 3).shape == (3, 8, 8)
    with pytest.raises(ConfigError, match="mixed"):
        newest_frames(data, "mixed", root, 3)


def test_a_model_cannot_choose_files_for_a_source(root: Path) -> None:
    data = zoo.Config(
        cell="convlstm",
        data={"name": "mixed", "options": {"sources": sources(path=str(root / "a" / "a.npy"))}},
    ).data
    with pytest.raises(ConfigError, match="path"):
        newest_frames(data, "two", root / "b", 3)
    with pytest.raises(ConfigError, match="sources"):
        data.trusted_options()


def real(test: Any) -> Any:
    """Mark a slow test of real files, and skip it without them."""
    skip = pytest.mark.skipif(not REAL.is_dir(), reason="ZOO_DATA has no radar/")
    return pytest.mark.slow(pytest.mark.data(skip(test)))


@real
def test_the_guide_trains_on_the_radars_of_four_countries(tmp_path: Path, cli: Cli) -> None:
    guide = Path(__file__).parents[1] / "docs" / "data.md"
    (text,) = [block for kind, block in read_blocks(guide) if kind == "toml"]
    for old, new in (("1000", "1"), ("batch_size = 8", "batch_size = 1"), ("16", "2")):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "radars.toml").write_text(text)
    root, run = ("--data-dir", REAL.parent), tmp_path / "run"
    cli.succeed("train", tmp_path / "radars.toml", *root, "-o", run)
    few = ("--sequences", "1", "--input-frames", "2", "--horizon", "1", "--json")
    for arguments, test in (((), "netherlands"), (("--set", "test=finland"), "finland")):
        printed = cli.succeed("eval", f"local-dir:{run}", *arguments, *root, *few)
        assert json.loads(printed)["protocol"]["options"]["test"] == test
    future = tmp_path / "future.nc"
    folder = REAL / "fmi"
    arguments = ("--data", "finland", "--input-frames", "2", "--horizon", "1", "-o", future)
    cli.succeed("predict", f"local-dir:{run}", folder, *arguments)
    with xarray.open_dataarray(future, engine="h5netcdf") as forecast:
        assert forecast.shape == (1, 613, 380)
        assert forecast.attrs["units"] == "mm/h"


@real
def test_real_radars_of_five_countries_are_one_data_set() -> None:
    size = {"pool": 4, "crop": [0, 0, 512, 512]}
    radars: dict[str, dict[str, Any]] = {
        "netherlands": {"data": "knmi"},
        "germany": {"data": "dwd", "product": "YW", "test_share": 0.0},
        "finland": {"data": "fmi", "rain": True},
        "france": {"data": "meteonet", "region": "NW"},
    }
    radars = {name: options | size for name, options in radars.items()}
    dataset = open_dataset("mixed", "train", root=REAL.parent, frames=4, sources=radars)
    assert len(dataset) > 100
    for index in (0, len(dataset) - 1):
        assert dataset[index].shape == (4, 1, 128, 128)
        assert torch.nan_to_num(dataset[index]).max() <= 1
    australia = {"data": "grids", "folder": "radar/bom/melbourne", "pool": 8}
    australia |= {"crop": [0, 0, 512, 512]}
    with pytest.raises(DataError, match=r"time step.*australia is 6 min.*size|time step.*6 min"):
        open_dataset(
            "mixed", "train", root=REAL.parent, frames=4, sources=radars | {"australia": australia}
        )
    sizes = {"any_time_step": True, "any_size": True}
    everything: Any = open_dataset(
        "mixed",
        "train",
        root=REAL.parent,
        frames=4,
        sources=radars | {"australia": australia},
        **sizes,
    )
    assert everything.data.time_step is None
    assert everything[len(everything) - 1].shape == (4, 1, 64, 64)
