"""The checkpoints that OpenSTL has published, of the cells that the zoo has.

`openstl.csv` holds OpenSTL's tables (docs/en/model_zoos in github.com/chengtan9907/OpenSTL) with
the sizes in its configs; an empty score was not published. All networks have four layers of equal
width, kernels of 5, and no layer normalization. The data follow from its loaders
(openstl/datasets).
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, NamedTuple

from zoo.plugins import Pretrained

__all__ = ["checkpoints"]

RELEASES = "https://github.com/chengtan9907/OpenSTL/releases/download/"
SCORES = ("mse", "mae", "ssim", "psnr", "lpips", "rmse")
KTH = ["boxing", "handclapping", "handwaving", "jogging", "running", "walking"]

#: How OpenSTL computes the scores of its tables.
MEASURED = (
    "MSE and MAE are sums over the values of a frame, averaged over the forecast frames and the "
    "sequences, of forecasts that are not clipped; the other scores are of clipped ones."
)
MEASURED_WEATHER = (
    "Scores are means over the values, in the physical unit; RMSE is the root of the mean over all."
)
ABSENT = "The zoo has no reader for this data set; `zoo eval {name} --data arrays` reads arrays."
BGR = "The channels are blue, green and red."
STANDARDIZED = (
    "The network reads standardized values, (x − mean) / std, for each channel. OpenSTL computes "
    "both from the hourly values of 2010 to 2015 and does not publish them. If this checkpoint "
    "does not state them, `config.json` has mean 0 and standard deviation 1, and frames must be "
    "standardized before; or copy the folder and write `mean`, `std` and `unit` there."
)


class Source(NamedTuple):
    """A data set of OpenSTL.

    Attributes:
        title: Its name.
        data: Fields of the model's :class:`zoo.config.Data`, besides sizes and frames.
        notes: What a user of the model must know about the data; `{name}` is the model's name.
    """

    title: str
    data: dict[str, Any]
    notes: tuple[str, ...]


def _weather(name: str, title: str, variable: str, unit: str) -> Source:
    data: dict[str, Any] = {"name": name, "variable": variable, "unit": unit}
    data |= {"time_step": 3600.0, "standardization": {}}
    return Source(f"WeatherBench, {title}, 5.625°", data, (STANDARDIZED, ABSENT))


DATA = {
    "mmnist": Source("Moving MNIST", {"name": "mmnist"}, ()),
    "mfmnist": Source("Moving Fashion-MNIST", {"name": "mfmnist"}, (ABSENT,)),
    "mmnist-cifar": Source(
        "Moving MNIST on pictures of CIFAR-10",
        {"name": "mmnist-cifar"},
        ("White digits move over a still picture; the channels are red, green and blue.", ABSENT),
    ),
    "kitticaltech": Source(
        "KITTI and Caltech Pedestrian",
        {"name": "kitticaltech"},
        (
            "KITTI for training, every third frame of Caltech Pedestrian for test; scaled to "
            "height 128, the 160 columns in the middle.",
            f"In test frames: {BGR[0].lower()}{BGR[1:]}",
            ABSENT,
        ),
    ),
    "kth": Source(
        "KTH",
        {"name": "kth", "time_step": 1 / 25, "options": {"size": 128, "actions": KTH}},
        ("Frames of 160×120 squeezed to 128×128; all six actions, persons 17 to 25 for test.",),
    ),
    "human36m": Source(
        "Human3.6M",
        {"name": "human36m"},
        (f"Every fifth frame, scaled to 256×256. {BGR}", ABSENT),
    ),
    "taxibj": Source(
        "TaxiBJ",
        {"variable": "taxi_flow", "time_step": 1800.0},
        (
            "The channels are inflow and outflow. 0 and 1 are the smallest and the largest value "
            "of OpenSTL's file, which it does not state; the zoo's data set is scaled in the same "
            "way: `zoo eval {name} --data taxibj --set flow=both`.",
        ),
    ),
    "weatherbench-t2m": _weather("weatherbench-t2m", "2 m temperature", "2m_temperature", "K"),
    "weatherbench-r": _weather("weatherbench-r", "relative humidity", "relative_humidity", "%"),
    "weatherbench-uv10": _weather("weatherbench-uv10", "10 m wind (u, v)", "10m_wind", "m/s"),
    "weatherbench-tcc": _weather("weatherbench-tcc", "total cloud cover", "total_cloud_cover", "1"),
}


def checkpoints() -> dict[str, Pretrained]:
    """Return all checkpoints by name."""
    path = Path(__file__).with_suffix(".csv")
    with path.open(encoding="utf-8", newline="") as file:
        return {row["name"]: _pretrained(row) for row in csv.DictReader(file)}


def _pretrained(row: dict[str, str]) -> Pretrained:
    """Return a row of the table as a pretrained model."""
    source = DATA[row["data"]]
    size = [int(row["height"]), int(row["width"])]
    options: dict[str, Any] = {
        "in_channels": int(row["channels"]),
        "patch": int(row["patch"]),
        "hidden": int(row["hidden"]),
        "layers": 4,
        "kernel_size": 5,
        "norm": False,
        "data": {
            **source.data,
            "size": size,
            "input_frames": int(row["input_frames"]),
            "horizon": int(row["horizon"]),
        },
    }
    if row["architecture"] == "openstl_mim":  # the only one with weights for every pixel
        options["size"] = size
    measured = MEASURED_WEATHER if "standardization" in source.data else MEASURED
    notes = [note.format(name=row["name"]) for note in source.notes]
    if row["note"]:
        notes.append(f"The published scores are the {row['note']}.")
    return Pretrained(
        url=RELEASES + row["file"],
        dialect="openstl",
        options=options,
        architecture=row["architecture"],
        data=row["data"],
        origin="OpenSTL",
        license="apache-2.0",
        scores={score: float(row[score]) for score in SCORES if row[score]},
        notes=(
            f"{row['network']} of OpenSTL ({row['config']}), trained on {source.title} for "
            f"{row['training']}.",
            *notes,
            measured,
        ),
    )
