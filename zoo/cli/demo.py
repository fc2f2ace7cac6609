"""zoo demo: a forecast of a clip that comes with the zoo."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from zoo.cli.common import as_json, device_option, print_json, print_metrics


@click.command()
@click.argument("model", default="mslstm-mmnist")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("zoo-demo"),
    show_default=True,
    help="The folder for the pictures.",
)
@click.option("--save", is_flag=True, help="Put demo.png and the errors into MODEL's folder, too.")
@device_option
@as_json
def demo(model: str, output: Path, save: bool, device: str, as_json: bool) -> None:
    """Forecast a clip of moving handwritten digits that MODEL has never seen.

    Ten frames are read and ten forecast. Writes demo.gif and demo.png, the forecast beside
    the truth, and prints the errors beside those of persistence.
    """
    import torch

    from zoo.atomic import atomic_path, make_folder
    from zoo.data.clips import handwritten_digits
    from zoo.hub import load, pull
    from zoo.inspect.pictures import comparison_gif, comparison_strip
    from zoo.metrics import FrameMetrics, persistence
    from zoo.model_folder import update_metrics, writable_part

    forecaster = load(model, device=device)
    clip = handwritten_digits()  # (20, 1, 64, 64), uint8
    past, truth = clip[:10], clip[10:]
    forecast = forecaster.predict(past, horizon=len(truth))
    make_folder(output)
    gif, png = output / "demo.gif", output / "demo.png"
    comparison_gif(gif, past, truth, forecast, high=255)
    with atomic_path(png) as temporary:
        comparison_strip(past, truth, forecast, high=255).save(temporary)

    def scaled(frames: object) -> torch.Tensor:
        return torch.as_tensor(frames).unsqueeze(0) / 255  # (T, C, H, W) to (1, T, C, H, W)

    still = persistence(scaled(past), len(truth))[:, -len(truth) :]
    means = {}
    for who, frames in (("model", scaled(forecast)), ("persistence", still)):
        metrics = FrameMetrics()
        metrics.update(frames, scaled(truth))
        means[who] = {k: v for k, v in metrics.compute().items() if k != "per_frame"}
    if save:
        folder = pull(model)
        update_metrics(folder, demo=means)
        with atomic_path(writable_part(folder, "demo.png")) as temporary:
            shutil.copyfile(png, temporary)
    if as_json:
        print_json({"model": model, "forecast": means, "gif": str(gif), "png": str(png)})
        return
    print_metrics({"t+1 … t+10": means}, model)
    click.echo(f"the forecast beside the truth: {gif} and {png}")
