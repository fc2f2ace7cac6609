"""zoo demo: forecast a clip that comes with the zoo."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.common import any_plugin_option, as_json, device_option, print_json, print_metrics

if TYPE_CHECKING:
    import numpy as np


@click.command()
@click.argument("model", default="mslstm-mmnist")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("zoo-demo"),
    show_default=True,
    help="Output folder.",
)
@click.option("--save", is_flag=True, help="Save pictures and scores in the folder of MODEL.")
@any_plugin_option
@device_option
@as_json
def demo(
    model: str, output: Path, save: bool, any_plugin: bool, device: str, as_json: bool
) -> None:
    """Forecast a clip that resembles the training data of MODEL but is not part of them.

    Writes demo.gif and demo.png, which show the forecast next to the truth, and prints its scores
    next to those of persistence, which repeats the last frame.
    """
    from zoo.atomic import atomic_path, make_folder
    from zoo.data.clips import demo_clip
    from zoo.errors import DataError
    from zoo.hub import load, pull
    from zoo.inspect.pictures import comparison_gif, comparison_strip
    from zoo.model_folder import update_metrics, writable_part

    forecaster = load(model, device=device, any_plugin=any_plugin)
    config, data = forecaster.config, forecaster.config.data
    clip = demo_clip(data.name)  # (T, C, H, W), uint8
    if config.known_channels > config.noise or config.in_channels != clip.shape[1]:
        frames = data.title or data.name or "other frames"
        raise DataError(
            f"{model} forecasts {frames}, of which no clip comes with the zoo; draw a sequence of "
            f"its data: zoo eval {model} -o report"
        )
    given = min(data.input_frames or 10, len(clip) - 1)
    past, truth = clip[:given], clip[given:]
    forecast = forecaster.predict(past, horizon=len(truth))
    make_folder(output)
    gif, png = output / "demo.gif", output / "demo.png"
    comparison_gif(gif, past, truth, forecast, high=255)
    with atomic_path(png) as temporary:
        comparison_strip(past, truth, forecast, high=255).save(temporary)
    scores = _measure(past, truth, forecast)
    if save:
        folder = pull(model)
        update_metrics(folder, demo=scores)
        for picture in (gif, png):
            with atomic_path(writable_part(folder, picture.name)) as temporary:
                shutil.copyfile(picture, temporary)
    if as_json:
        print_json({"model": model, "forecast": scores, "gif": str(gif), "png": str(png)})
        return
    print_metrics({f"t+1 … t+{len(truth)}": scores}, model)
    click.echo(f"the forecast next to the truth: {gif} and {png}")


def _measure(past: np.ndarray, truth: np.ndarray, forecast: np.ndarray) -> dict[str, Any]:
    """The scores of the model and of persistence; arrays are uint8 (T, C, H, W)."""
    import torch

    from zoo.baselines import persistence
    from zoo.metrics import FrameMetrics

    def scaled(frames: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(frames).unsqueeze(0) / 255  # (T, C, H, W) to (1, T, C, H, W)

    repeated = persistence(scaled(past), len(truth))[:, -len(truth) :]
    scores = {}
    for name, frames in (("model", scaled(forecast)), ("persistence", repeated)):
        metrics = FrameMetrics()
        metrics.update(frames, scaled(truth))
        scores[name] = metrics.compute()
        del scores[name]["per_frame"]
    return scores
