"""Windows of recordings: gaps, splits, scaling, missing values, preparation."""

import functools
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.config import Data
from zoo.data import SequenceDataset, Series
from zoo.errors import ConfigError, DataError, NoWindowError

STEP = np.timedelta64(300, "s")
START = np.datetime64("2020-01-01T00:00:00", "s")


class Numbered(SequenceDataset):
    """Frames whose every value is their number, at the slots that are given."""

    data = Data(variable="number", unit="m")

    def read_series(self, slots: Any = range(20), shape: Any = (1, 4, 6)) -> Any:
        slots = np.array([*slots])
        frames = np.ones((len(slots), *shape), np.float32) * slots[:, None, None, None]
        times = START + slots * STEP

        def read(start: int, stop: int) -> np.ndarray:
            return frames[start:stop]

        return [Series("numbers", len(slots), read, times)], {}


def numbers(dataset: SequenceDataset, index: int) -> list[int]:
    low, high = dataset.data.limits
    item = dataset[index][:, 0, 0, 0].double()
    return [round(v) for v in (item * (high - low) + low).tolist()]


def test_windows_of_parts_by_time(tmp_path: Path) -> None:
    train = Numbered(tmp_path, frames=4, low=0, high=20)
    test = Numbered(tmp_path, split="test", frames=4, low=0, high=20)
    assert [numbers(train, i)[0] for i in range(len(train))] == [*range(13)]
    assert [numbers(test, i) for i in range(len(test))] == [[16, 17, 18, 19]]
    assert train[0].shape == (4, 1, 4, 6)
    assert train[0].dtype == torch.float32
    assert train.time_step == 300
    with pytest.raises(IndexError):
        train[len(train)]


def test_default_range_is_that_of_the_training_part(tmp_path: Path) -> None:
    test = Numbered(tmp_path, split="test", frames=2)
    assert test.data.limits == (0, 15)
    assert float(test[0].max()) == pytest.approx(17 / 15)  # beyond it, and not clipped


@settings(max_examples=40, deadline=None)
@given(
    gaps=st.sets(st.integers(1, 39), max_size=6),
    frames=st.integers(1, 5),
    every=st.integers(1, 3),
    share=st.floats(0, 0.6),
    valid=st.floats(0, 0.4),
)
def test_no_window_crosses_a_gap_or_a_part(
    tmp_path_factory: pytest.TempPathFactory,
    gaps: set[int],
    frames: int,
    every: int,
    share: float,
    valid: float,
) -> None:
    root = tmp_path_factory.getbasetemp()
    slots = [slot for slot in range(40) if slot not in gaps]
    seen: dict[str, set[int]] = {}
    for split in ("train", "valid", "test"):
        try:
            dataset = Numbered(
                root,
                split=split,
                frames=frames,
                every=every,
                test_share=share,
                valid_share=valid,
                low=0,
                high=40,
                slots=slots,
            )
        except NoWindowError:
            continue
        windows = [numbers(dataset, i) for i in range(len(dataset))]
        for window in windows:
            assert np.all(np.diff(window) == every)
            assert not gaps & {*range(window[0], window[-1] + 1)}
        seen[split] = {number for window in windows for number in window}
    for split in seen:
        for other in seen:
            assert split == other or not seen[split] & seen[other]
    if "train" in seen and "test" in seen:
        assert max(seen["train"]) < min(seen["test"])


def test_parts_start_at_given_dates(tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"valid_from": "2020-01-01T00:50", "test_from": "2020-01-01T01:15"}
    firsts = {
        split: numbers(Numbered(tmp_path, split=split, frames=2, low=0, high=20, **chosen), 0)[0]
        for split in ("train", "valid", "test")
    }
    assert firsts == {"train": 0, "valid": 10, "test": 15}


def test_invalid_dates_of_parts_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"01:15.*00:50.*valid_from"):
        Numbered(tmp_path, valid_from="2020-01-01T01:15", test_from="2020-01-01T00:50")
    with pytest.raises(ConfigError, match="'yesterday'"):
        Numbered(tmp_path, test_from="yesterday")


@pytest.mark.parametrize(
    ("slots", "named"),
    [
        ([0, 1, 1, 2], "frame 2.*00:05:00, equals.*frame 1.*00:05:00"),
        ([0, 2, 1, 3], "frame 2.*00:05:00, is before.*frame 1.*00:10:00"),
    ],
)
def test_repeated_and_decreasing_times_are_rejected(
    tmp_path: Path, slots: list[int], named: str
) -> None:
    with pytest.raises(DataError, match=named):
        Numbered(tmp_path, slots=slots, frames=2)


def test_sequences_are_drawn_in_shuffled_passes(tmp_path: Path) -> None:
    dataset = Numbered(tmp_path, frames=4, low=0, high=20, sequences=26, seed=3)
    firsts = [numbers(dataset, i)[0] for i in range(26)]
    assert sorted(firsts[:13]) == sorted(firsts[13:]) == [*range(13)]
    assert firsts[:13] != firsts[13:]
    again = Numbered(tmp_path, frames=4, low=0, high=20, sequences=26, seed=3)
    assert [numbers(again, i)[0] for i in range(26)] == firsts


class Holed(Numbered):
    """The values 0 … 15 of a 4 × 4 grid, some of them missing."""

    def read_series(self, holes: int = 0) -> Any:
        frame = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
        frame[..., 0, :holes] = np.nan
        frame[..., 1, : max(0, holes - 1)] = np.nan

        def read(start: int, stop: int) -> np.ndarray:
            return np.repeat(frame, stop - start, axis=0)

        return [Series("holes", 10, read)], {"missing": True}


def test_pooling_ignores_missing_cells_up_to_a_half(tmp_path: Path) -> None:
    whole = Holed(tmp_path, frames=1, low=0, high=15, pool=2)[0][0, 0] * 15
    torch.testing.assert_close(whole, torch.tensor([[2.5, 4.5], [10.5, 12.5]]))
    one = Holed(tmp_path, frames=1, low=0, high=15, pool=2, holes=1)[0][0, 0] * 15
    assert one[0, 0] == pytest.approx((1 + 4 + 5) / 3)
    most = Holed(tmp_path, frames=1, low=0, high=15, pool=2, holes=2)[0][0, 0]
    assert most.isnan().tolist() == [[True, False], [False, False]]


def test_crop_selects_cells_and_rejects_others(tmp_path: Path) -> None:
    got = Holed(tmp_path, frames=1, low=0, high=15, crop=[1, 2, 2, 2])[0][0, 0] * 15
    torch.testing.assert_close(got, torch.tensor([[6.0, 7], [10, 11]]))
    for crop in ([1, 2, 4, 2], [0, 0, 0, 2], [0, 0, 2]):
        with pytest.raises(ConfigError, match="crop"):
            Holed(tmp_path, frames=1, low=0, high=15, crop=crop)


def test_scan_names_frames_without_any_value(tmp_path: Path) -> None:
    class Empty(Holed):
        def read_series(self) -> Any:
            def read(start: int, stop: int) -> np.ndarray:
                return np.where(np.arange(start, stop)[:, None, None, None] == 7, np.nan, 1.0)

            return [Series("empty", 10, read)], {"missing": True}

    dataset = Empty(tmp_path, frames=2, low=0, high=2)
    with pytest.raises(DataError, match="empty, frame 7"):
        list(dataset.scan())


def test_a_prepared_folder_reads_the_same(tmp_path: Path) -> None:
    options: dict[str, Any] = {"frames": 3, "pool": 2, "every": 2, "low": 0, "high": 20}
    source = Numbered(tmp_path, **options, slots=[*range(8), *range(10, 20)])
    output = tmp_path / "prepared"
    output.mkdir()
    assert [*source.prepare(output)][-1] == (9, 9)
    prepared = Numbered(output, **options)
    assert prepared.data.time_step == source.data.time_step == 600
    assert len(prepared) == len(source)
    assert prepared.data.options == source.data.options
    for i in range(len(source)):
        assert torch.equal(prepared[i], source[i])
    assert len(Numbered(output, frames=3, low=0, high=20)) == len(source)
    with pytest.raises(ConfigError, match=r"pool = 2.* 4"):
        Numbered(output, frames=3, pool=4)
    (output / "frames.json").write_text(json.dumps({"series": []}))
    with pytest.raises(DataError, match=str(output)):
        Numbered(output, frames=3)


def test_recordings_without_times_are_not_cut(tmp_path: Path) -> None:
    class Three(SequenceDataset):
        def read_series(self) -> Any:
            frames = np.arange(5, dtype=np.float32)[:, None, None, None]
            return [Series(name, 5, lambda a, b: frames[a:b]) for name in "abc"], {}

    options: dict[str, Any] = {"frames": 5, "test_share": 0.3, "low": 0, "high": 5}
    source = Three(tmp_path, **options)
    assert [number for number, _ in source.windows] == [0, 1]
    (tmp_path / "out").mkdir()
    list(source.prepare(tmp_path / "out"))
    prepared = Three(tmp_path / "out", split="test", **options)
    assert [number for number, _ in prepared.windows] == [2]


def test_prepared_pictures_stay_uint8(tmp_path: Path) -> None:
    class Pictures(SequenceDataset):
        data = Data(low=0.0, high=1.0)

        def read_series(self) -> Any:
            frames = np.random.default_rng(0).integers(0, 256, (9, 3, 4, 5), np.uint8)
            return [Series("p", 9, lambda a, b: frames[a:b])], {}

    source = Pictures(tmp_path, frames=2)
    (tmp_path / "out").mkdir()
    list(source.prepare(tmp_path / "out"))
    assert np.load(tmp_path / "out/frames.npy").dtype == np.uint8
    assert torch.equal(Pictures(tmp_path / "out", frames=2)[3], source[3])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"split": "dev"}, "'dev'.*train, valid, test"),
        ({"frames": 0}, "frames is 0"),
        ({"every": 0}, "every is 0"),
        ({"stride": -1}, "stride is -1"),
        ({"train_stride": 0}, "train_stride is 0"),
        ({"sequences": 0}, "sequences is 0"),
        ({"pool": 9}, "pool is 9"),
        ({"test_share": 1.5}, "test_share is 1.5"),
        ({"low": 3, "high": 3}, "low is 3 and high 3"),
    ],
)
def test_invalid_options_are_rejected(tmp_path: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Numbered(tmp_path, **({"frames": 2} | options))


def test_a_part_without_a_window_names_the_longest_run(tmp_path: Path) -> None:
    with pytest.raises(NoWindowError, match=r"train.* 30 .* 16"):
        Numbered(tmp_path, frames=30)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent.*ZOO_DATA"):
        Numbered(tmp_path / "absent")


@pytest.mark.parametrize(
    ("split", "stride", "starts"),
    [
        ("train", None, [0, 4, 8]),
        ("train", 3, [0, 4, 8]),
        ("test", None, [*range(10, 19)]),
        ("test", 3, [10, 13, 16]),
    ],
)
def test_train_stride_applies_to_the_training_part_only(
    tmp_path: Path, split: str, stride: int | None, starts: list[int]
) -> None:
    options: dict[str, Any] = {"frames": 2, "low": 0, "high": 20, "test_share": 0.5}
    dataset = Numbered(tmp_path, split=split, stride=stride, train_stride=4, **options)
    assert [numbers(dataset, i)[0] for i in range(len(dataset))] == starts
    assert dataset.data.options["train_stride"] == 4


def test_a_recording_larger_than_the_cache_is_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.data.reader.CACHE", 500)  # five frames
    dataset = Numbered(tmp_path, frames=12, low=0, high=20)
    assert numbers(dataset, 3) == [*range(3, 15)]
    assert dataset._reader.cache.bytes <= 500


LATER: dict[str, Any] = {"test_share": 0.4, "valid_share": 0.2, "stride": 2}


@pytest.mark.parametrize("later", [{}, LATER, {"test_from": "2020-01-01T01:00", "low": 1}])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_prepared_folder_is_split_and_scaled_as_its_source(
    tmp_path: Path, every: int, later: dict[str, Any]
) -> None:
    # With every third frame, the gap of one frame does not show in the times.
    made: dict[str, Any] = {"slots": [*range(5), *range(6, 15), *range(17, 40)], "every": every}
    (tmp_path / "out").mkdir()
    list(Numbered(tmp_path, frames=2, **made, **LATER).prepare(tmp_path / "out"))
    facts = json.loads((tmp_path / "out/frames.json").read_text())
    assert not {*facts["options"]} & {*SequenceDataset.split_options}
    for split in ("train", "valid", "test"):
        if split == "valid" and not later.get("valid_share"):
            continue
        source = Numbered(tmp_path, split=split, frames=2, **made, **later)
        prepared = Numbered(tmp_path / "out", split=split, frames=2, **later)
        again = Numbered(tmp_path / "out", split=split, frames=2, **prepared.data.options)
        for other in (prepared, again):
            assert other.data == source.data
            got = [numbers(other, i) for i in range(len(other))]
            assert got == [numbers(source, i) for i in range(len(source))]


def test_time_step_is_the_most_frequent_difference(tmp_path: Path) -> None:
    class Odd(Numbered):
        def read_series(self) -> Any:
            series, found = super().read_series()
            times = np.array(series[0].times)
            times[5] += np.timedelta64(60, "s")  # one odd time
            return [Series("odd", 20, series[0].read, times)], found

    odd = Odd(tmp_path, frames=3, test_share=0, low=0, high=20)
    assert odd.time_step == 300
    assert [numbers(odd, i)[0] for i in range(len(odd))] == [0, 1, 2, *range(6, 18)]


@pytest.mark.parametrize("unit", ["dBZ", "m"])
def test_pooling_decibels_averages_powers(tmp_path: Path, unit: str) -> None:
    class Echo(SequenceDataset):
        data = Data(variable="v", unit=unit, missing=True)

        def read_series(self) -> Any:
            frame = np.full((1, 1, 5, 5), -32, np.float32)
            frame.reshape(-1)[:12] = 40
            frame.reshape(-1)[12:14] = np.nan
            return [Series("echo", 9, lambda a, b: np.repeat(frame, b - a, 0))], {}

    pooled = float(Echo(tmp_path, frames=1, pool=5, low=-10, high=60)[0]) * 70 - 10
    linear = (12 * 40 - 11 * 32) / 23
    powers = 10 * np.log10((12 * 10**4 + 11 * 10**-3.2) / 23)
    assert pooled == pytest.approx(powers if unit == "dBZ" else linear, abs=1e-4)


def test_a_single_recording_without_times_is_cut(tmp_path: Path) -> None:
    class Film(SequenceDataset):
        split_by: ClassVar[Any] = "series"

        def read_series(self) -> Any:
            frames = np.arange(10, dtype=np.float32)[:, None, None, None]
            return [Series("film", 10, lambda a, b: frames[a:b])], {}

    options: dict[str, Any] = {"frames": 2, "low": 0, "high": 9, "test_share": 0.3}
    train, test = (Film(tmp_path, split=split, **options) for split in ("train", "test"))
    assert [w.tolist() for _, w in train.windows] == [[i, i + 1] for i in range(6)]
    assert [w.tolist() for _, w in test.windows] == [[7, 8], [8, 9]]
    with pytest.raises(ConfigError, match="test_from"):
        Film(tmp_path, frames=2, test_from="2020-01-01")


@pytest.mark.parametrize("every", [1, 3])
def test_frames_of_another_size_are_named(tmp_path: Path, every: int) -> None:
    class Two(SequenceDataset):
        def read_series(self) -> Any:
            def read(width: int, start: int, stop: int) -> np.ndarray:
                return np.zeros((stop - start, 1, 4, width), np.float32)

            return [
                Series(f"w{w}", 40, functools.partial(read, w), part="train") for w in (5, 6)
            ], {}

    dataset = Two(tmp_path, frames=2, low=0, high=1, every=every)
    with pytest.raises(DataError, match=r"w6, frame 0.*4×6.*w5, frame 0.*4×5"):
        list(dataset.scan())
    with pytest.raises(DataError, match=r"4×6.*4×5"):
        dataset[len(dataset) - 1]
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"4×6.*4×5"):
        list(dataset.prepare(tmp_path / "out"))


def test_infinite_values_are_rejected_unless_the_range_is_given(tmp_path: Path) -> None:
    class Infinite(Numbered):
        def read_series(self) -> Any:
            series, found = super().read_series()
            frames = np.array(series[0].read(0, 20))
            frames[3] = np.inf
            return [Series("far", 20, lambda a, b: frames[a:b])], found

    with pytest.raises(DataError, match="far, frame 3"):
        Infinite(tmp_path, frames=2)
    assert len(Infinite(tmp_path, frames=2, low=0, high=3)) == 15  # clipped


@pytest.mark.parametrize(
    ("slots", "every", "got"),
    [
        ([*range(20)], 1, [17, 18, 19]),
        ([*range(20)], 4, [11, 15, 19]),  # counted from the newest
        ([*range(15), 16, 17, 18], 1, [16, 17, 18]),
    ],
)
def test_newest_frames_are_counted_back_from_the_last(
    tmp_path: Path, slots: Any, every: int, got: list[int]
) -> None:
    newest = Numbered(tmp_path, frames=1, slots=slots, low=0, high=1).newest(3, every)
    assert newest[:, 0, 0].values.tolist() == got
    assert (newest["time"].values == START + np.array(got) * STEP).all()


def test_a_gap_before_the_newest_frames_is_reported(tmp_path: Path) -> None:
    dataset = Numbered(tmp_path, frames=1, slots=[*range(15), 16, 17, 18], low=0, high=1)
    for frames, every, named in (
        (4, 1, r" 3 frames.*numbers, frame 15 to numbers, frame 17"),
        (4, 1, r"2020-01-01T01:10:00.* 4"),
        (3, 4, r" 9 \(3, 4 apart\)"),
    ):
        with pytest.raises(NoWindowError, match=named):
            dataset.newest(frames, every)
