"""zoo eval: a model's figures on a test set, beside persistence."""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.common import (
    as_json,
    data_option,
    device_option,
    print_json,
    print_metrics,
)


@click.command("eval")
@click.argument("model")
@click.option("--data", help="The data set; by default the one MODEL was trained on.")
@click.option("--sequences", type=click.IntRange(min=1), help="Only the first so many.")
@click.option("--input-frames", type=click.IntRange(min=1), help="Frames read, T_in.")
@click.option("--horizon", type=click.IntRange(min=1), help="Frames to forecast.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--save", is_flag=True, help="Write the figures into the metrics.json of MODEL.")
@data_option
@device_option
@as_json
def eval_(
    model: str,
    data: str | None,
    sequences: int | None,
    input_frames: int | None,
    horizon: int | None,
    batch_size: int,
    save: bool,
    data_dir: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Measure MODEL on a test set: MSE, MAE, SSIM and PSNR.

    MSE and MAE are summed over the pixels of a frame. 'forecast' averages over the forecast
    frames; 'all-steps' over all one-step predictions, the warm-up included, as the tables of
    the MS-LSTM paper do.
    """
    from zoo.evaluate import evaluate
    from zoo.hub import load, pull, read_metrics, update_metrics

    folder, forecaster = pull(model), load(model, device=device)
    read_metrics(folder)  # what cannot be added to is told before the work
    report = evaluate(
        forecaster,
        dataset=data,
        sequences=sequences,
        input_frames=input_frames,
        horizon=horizon,
        batch_size=batch_size,
        root=data_dir,
    )
    if save:
        update_metrics(folder, **report)
    shown = model if model.startswith("hf-hub:") else folder.resolve().name
    if as_json:
        print_json({"model": shown, **report})
        return
    name = report["data"]["name"]
    click.echo(f"{shown} on {report['data']['sequences']:,} test sequences of {name}")
    scores = {protocol: report[protocol] for protocol in ("forecast", "all-steps")}
    frames: dict[str, dict[str, dict[str, float]]] = {}
    given = report["data"]["input_frames"]
    for lead in range(report["data"]["horizon"]):
        frames[f"t+{lead + 1}"] = {
            who: {metric: values[given - 1 + lead] for metric, values in by_metric.items()}
            for who, by_metric in report["per_frame"].items()
        }
    print_metrics(frames | scores, shown)
