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

from zoo.data import SequenceDataset, Series
from zoo.errors import ZooError

STEP = np.timedelta64(300, "s")
START = np.datetime64("2020-01-01T00:00:00", "s")


class Numbered(SequenceDataset):
    """Frames whose every value is their number, at the slots that are given."""

    meaning: ClassVar[dict[str, Any]] = {"variable": "number", "unit": "m"}

    def read_series(self, slots: Any = range(20), shape: Any = (1, 4, 6)) -> Any:
        slots = np.array([*slots])
        frames = np.ones((len(slots), *shape), np.float32) * slots[:, None, None, None]
        times = START + slots * STEP

        def read(start: int, stop: int) -> np.ndarray:
            return frames[start:stop]

        return [Series("numbers", len(slots), read, times)], {}


def numbers(dataset: SequenceDataset, index: int) -> list[int]:
    low, high = dataset.record.limits
    item = dataset[index][:, 0, 0, 0].double()
    return [round(v) for v in (item * (high - low) + low).tolist()]


def test_windows_and_the_parts_of_time(tmp_path: Path) -> None:
    train = Numbered(tmp_path, frames=4, low=0, high=20)
    test = Numbered(tmp_path, split="test", frames=4, low=0, high=20)
    assert [numbers(train, i)[0] for i in range(len(train))] == [*range(13)]
    assert [numbers(test, i) for i in range(len(test))] == [[16, 17, 18, 19]]
    assert train[0].shape == (4, 1, 4, 6)
    assert train[0].dtype == torch.float32
    assert train.time_step == 300
    with pytest.raises(IndexError):
        train[len(train)]


def test_the_range_is_that_of_the_training_part(tmp_path: Path) -> None:
    test = Numbered(tmp_path, split="test", frames=2)
    assert test.record.limits == (0, 15)
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
        except ZooError as error:
            if "has no window" not in str(error):
                raise
            continue
        windows = [numbers(dataset, i) for i in range(len(dataset))]
        for window in windows:
            assert np.all(np.diff(window) == every)
            assert not gaps & {*range(window[0], window[-1] + 1)}
        seen[split] = {number for window in windows for number in window}
    for one in seen:
        for other in seen:
            assert one == other or not seen[one] & seen[other]
    if "train" in seen and "test" in seen:
        assert max(seen["train"]) < min(seen["test"])


def test_parts_by_date(tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"valid_from": "2020-01-01T00:50", "test_from": "2020-01-01T01:15"}
    firsts = {
        split: numbers(Numbered(tmp_path, split=split, frames=2, low=0, high=20, **chosen), 0)[0]
        for split in ("train", "valid", "test")
    }
    assert firsts == {"train": 0, "valid": 10, "test": 15}
    with pytest.raises(ZooError, match="put valid_from before"):
        Numbered(tmp_path, valid_from="2020-01-01T01:15", test_from="2020-01-01T00:50")
    with pytest.raises(ZooError, match="is no time"):
        Numbered(tmp_path, test_from="yesterday")


@pytest.mark.parametrize(
    ("slots", "told"),
    [([0, 1, 1, 2], "repeats"), ([0, 2, 1, 3], "comes after that of the frame before it")],
)
def test_times_that_do_not_rise(tmp_path: Path, slots: list[int], told: str) -> None:
    with pytest.raises(ZooError, match="numbers, frame 2") as caught:
        Numbered(tmp_path, slots=slots, frames=2)
    assert told in str(caught.value)


def test_shuffled_passes(tmp_path: Path) -> None:
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


def test_pooling_minds_what_is_missing(tmp_path: Path) -> None:
    whole = Holed(tmp_path, frames=1, low=0, high=15, pool=2)[0][0, 0] * 15
    torch.testing.assert_close(whole, torch.tensor([[2.5, 4.5], [10.5, 12.5]]))
    one = Holed(tmp_path, frames=1, low=0, high=15, pool=2, holes=1)[0][0, 0] * 15
    assert one[0, 0] == pytest.approx((1 + 4 + 5) / 3)
    most = Holed(tmp_path, frames=1, low=0, high=15, pool=2, holes=2)[0][0, 0]
    assert most.isnan().tolist() == [[True, False], [False, False]]


def test_crop(tmp_path: Path) -> None:
    got = Holed(tmp_path, frames=1, low=0, high=15, crop=[1, 2, 2, 2])[0][0, 0] * 15
    torch.testing.assert_close(got, torch.tensor([[6.0, 7], [10, 11]]))
    for crop in ([1, 2, 4, 2], [0, 0, 0, 2], [0, 0, 2]):
        with pytest.raises(ZooError, match="crop is"):
            Holed(tmp_path, frames=1, low=0, high=15, crop=crop)


def test_frames_without_any_value_are_found(tmp_path: Path) -> None:
    class Empty(Holed):
        def read_series(self) -> Any:
            def read(start: int, stop: int) -> np.ndarray:
                return np.where(np.arange(start, stop)[:, None, None, None] == 7, np.nan, 1.0)

            return [Series("empty", 10, read)], {"missing": True}

    dataset = Empty(tmp_path, frames=2, low=0, high=2)
    with pytest.raises(ZooError, match="empty, frame 7: all values are missing"):
        list(dataset.scan())


def test_a_prepared_folder_reads_the_same(tmp_path: Path) -> None:
    options: dict[str, Any] = {"frames": 3, "pool": 2, "every": 2, "low": 0, "high": 20}
    source = Numbered(tmp_path, **options, slots=[*range(8), *range(10, 20)])
    output = tmp_path / "prepared"
    output.mkdir()
    assert [*source.prepare(output)][-1] == (9, 9)
    prepared = Numbered(output, **options)
    assert prepared.data["time_step"] == source.data["time_step"] == 600
    assert len(prepared) == len(source)
    assert prepared.record.options == source.record.options
    for i in range(len(source)):
        assert torch.equal(prepared[i], source[i])
    assert len(Numbered(output, frames=3, low=0, high=20)) == len(source)
    with pytest.raises(ZooError, match="was prepared with pool = 2, not 4"):
        Numbered(output, frames=3, pool=4)
    (output / "frames.json").write_text(json.dumps({"series": []}))
    with pytest.raises(ZooError, match="prepare it again"):
        Numbered(output, frames=3)


def test_several_recordings_without_times_are_split_one_by_one(tmp_path: Path) -> None:
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


def test_pictures_are_prepared_as_they_are(tmp_path: Path) -> None:
    class Pictures(SequenceDataset):
        meaning: ClassVar[dict[str, Any]] = {"low": 0.0, "high": 1.0}

        def read_series(self) -> Any:
            frames = np.random.default_rng(0).integers(0, 256, (9, 3, 4, 5), np.uint8)
            return [Series("p", 9, lambda a, b: frames[a:b])], {}

    source = Pictures(tmp_path, frames=2)
    (tmp_path / "out").mkdir()
    list(source.prepare(tmp_path / "out"))
    assert np.load(tmp_path / "out/frames.npy").dtype == np.uint8
    assert torch.equal(Pictures(tmp_path / "out", frames=2)[3], source[3])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"split": "dev"}, "choose one of train, valid, test"),
        ({"frames": 30}, "no window of 30 frames: its longest run without a gap has 16"),
        ({"frames": 0}, "frames is 0"),
        ({"every": 0}, "every is 0"),
        ({"stride": -1}, "stride is -1"),
        ({"sequences": 0}, "sequences is 0"),
        ({"pool": 9}, "more than a frame has cells"),
        ({"test_share": 1.5}, "must be from 0 to 1"),
        ({"low": 3, "high": 3}, "the wrong way round"),
    ],
)
def test_what_a_user_can_mend(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ZooError, match=told):
        Numbered(tmp_path, **({"frames": 2} | options))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="set ZOO_DATA"):
        Numbered(tmp_path / "absent")


def test_a_recording_larger_than_the_cache_is_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.data.recordings.CACHE", 500)  # five frames
    dataset = Numbered(tmp_path, frames=12, low=0, high=20)
    assert numbers(dataset, 3) == [*range(3, 15)]
    assert dataset._recordings.cache.bytes <= 500


LATER: dict[str, Any] = {"test_share": 0.4, "valid_share": 0.2, "stride": 2}


@pytest.mark.parametrize("later", [{}, LATER, {"test_from": "2020-01-01T01:00", "low": 1}])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_prepared_folder_is_split_and_scaled_as_its_source(
    tmp_path: Path, every: int, later: dict[str, Any]
) -> None:
    # The gap of one frame is none to the eye where every third is taken.
    made: dict[str, Any] = {"slots": [*range(5), *range(6, 15), *range(17, 40)], "every": every}
    (tmp_path / "out").mkdir()
    list(Numbered(tmp_path, frames=2, **made, **LATER).prepare(tmp_path / "out"))
    facts = json.loads((tmp_path / "out/frames.json").read_text())
    assert not {*facts["options"]} & {*SequenceDataset.later}  # they change no frame
    for split in ("train", "valid", "test"):
        if split == "valid" and not later.get("valid_share"):
            continue
        source = Numbered(tmp_path, split=split, frames=2, **made, **later)
        prepared = Numbered(tmp_path / "out", split=split, frames=2, **later)
        again = Numbered(tmp_path / "out", split=split, frames=2, **prepared.record.options)
        for other in (prepared, again):
            assert other.record == source.record
            got = [numbers(other, i) for i in range(len(other))]
            assert got == [numbers(source, i) for i in range(len(source))]


def test_the_step_is_the_most_frequent(tmp_path: Path) -> None:
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
def test_of_decibels_the_powers_are_averaged(tmp_path: Path, unit: str) -> None:
    class Echo(SequenceDataset):
        meaning: ClassVar[dict[str, Any]] = {"variable": "v", "unit": unit, "missing": True}

        def read_series(self) -> Any:
            frame = np.full((1, 1, 5, 5), -32, np.float32)
            frame.reshape(-1)[:12] = 40
            frame.reshape(-1)[12:14] = np.nan
            return [Series("echo", 9, lambda a, b: np.repeat(frame, b - a, 0))], {}

    pooled = float(Echo(tmp_path, frames=1, pool=5, low=-10, high=60)[0]) * 70 - 10
    linear = (12 * 40 - 11 * 32) / 23
    powers = 10 * np.log10((12 * 10**4 + 11 * 10**-3.2) / 23)
    assert pooled == pytest.approx(powers if unit == "dBZ" else linear, abs=1e-4)


def test_a_lone_recording_without_times_is_split_in_its_midst(tmp_path: Path) -> None:
    class Film(SequenceDataset):
        split_by: ClassVar[Any] = "series"

        def read_series(self) -> Any:
            frames = np.arange(10, dtype=np.float32)[:, None, None, None]
            return [Series("film", 10, lambda a, b: frames[a:b])], {}

    options: dict[str, Any] = {"frames": 2, "low": 0, "high": 9, "test_share": 0.3}
    train, test = (Film(tmp_path, split=split, **options) for split in ("train", "test"))
    assert [w.tolist() for _, w in train.windows] == [[i, i + 1] for i in range(6)]
    assert [w.tolist() for _, w in test.windows] == [[7, 8], [8, 9]]
    with pytest.raises(ZooError, match="use test_share and valid_share"):
        Film(tmp_path, frames=2, test_from="2020-01-01")


@pytest.mark.parametrize("every", [1, 3])
def test_frames_of_another_size_are_found(tmp_path: Path, every: int) -> None:
    class Two(SequenceDataset):
        def read_series(self) -> Any:
            def read(width: int, start: int, stop: int) -> np.ndarray:
                return np.zeros((stop - start, 1, 4, width), np.float32)

            return [
                Series(f"w{w}", 40, functools.partial(read, w), part="train") for w in (5, 6)
            ], {}

    dataset = Two(tmp_path, frames=2, low=0, high=1, every=every)
    told = r"w6, frame 0: the frame is 4×6, that of w5, frame 0 4×5; expected frames of one size"
    with pytest.raises(ZooError, match=told):
        list(dataset.scan())
    with pytest.raises(ZooError, match="expected frames of one size"):
        dataset[len(dataset) - 1]
    (tmp_path / "out").mkdir()
    with pytest.raises(ZooError, match="expected frames of one size"):
        list(dataset.prepare(tmp_path / "out"))


def test_infinite_values_are_told(tmp_path: Path) -> None:
    class Infinite(Numbered):
        def read_series(self) -> Any:
            series, found = super().read_series()
            frames = np.array(series[0].read(0, 20))
            frames[3] = np.inf
            return [Series("far", 20, lambda a, b: frames[a:b])], found

    with pytest.raises(ZooError, match="far, frame 3 holds infinite values"):
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
def test_the_newest_frames(tmp_path: Path, slots: Any, every: int, got: list[int]) -> None:
    newest = Numbered(tmp_path, frames=1, slots=slots, low=0, high=1).newest(3, every)
    assert newest[:, 0, 0].values.tolist() == got
    assert (newest["time"].values == START + np.array(got) * STEP).all()


def test_a_gap_before_the_newest_frames_is_told(tmp_path: Path) -> None:
    dataset = Numbered(tmp_path, frames=1, slots=[*range(15), 16, 17, 18], low=0, high=1)
    for frames, every, told in (
        (
            4,
            1,
            "only the newest 3 frames of .*: numbers, frame 15 to numbers, frame 17",
        ),
        (4, 1, "and the one before is of 2020-01-01T01:10:00; 4 are needed"),
        (3, 4, r"9 are needed \(3, 4 apart\)"),
    ):
        with pytest.raises(ZooError, match=told):
            dataset.newest(frames, every)
