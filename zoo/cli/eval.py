"""zoo eval: models' figures on a test set, beside persistence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from zoo.cli.common import (
    as_json,
    data_option,
    device_option,
    echo,
    model_name,
    parse_setting,
    print_json,
    print_metrics,
)


@click.command("eval")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option("--data", help="The data set; by default the one MODEL was trained on.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="OPTION=VALUE",
    help="An option of the data set; by default those of the training.",
)
@click.option(
    "--split", type=click.Choice(["train", "valid", "test"]), default="test", show_default=True
)
@click.option("--sequences", type=click.IntRange(min=1), help="Only the first so many.")
@click.option("--input-frames", type=click.IntRange(min=1), help="Frames read, T_in.")
@click.option("--horizon", type=click.IntRange(min=1), help="Frames to forecast.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--thresholds", help="Of CSI and the like, in the unit of the data: 0.5,2,5.")
@click.option("--fss", "windows", help="Windows of the fractions skill score, in pixels: 3,9.")
@click.option("--optical-flow", is_flag=True, help="Beside persistence, too (needs pysteps).")
@click.option(
    "--lpips",
    is_flag=True,
    help="Measure LPIPS, too (needs lpips, which downloads the weights of AlexNet).",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="A folder for tables (JSON, CSV, Markdown), curves and a strip of frames.",
)
@click.option("--example", type=click.IntRange(min=0), help="The sequence of the strip.")
@click.option("--save", is_flag=True, help="Write the figures into the metrics.json of MODEL.")
@data_option
@device_option
@as_json
def eval_(
    models: tuple[str, ...],
    data: str | None,
    settings: tuple[str, ...],
    split: str,
    sequences: int | None,
    input_frames: int | None,
    horizon: int | None,
    batch_size: int,
    thresholds: str | None,
    windows: str | None,
    optical_flow: bool,
    lpips: bool,
    output: Path | None,
    example: int | None,
    save: bool,
    data_dir: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Measure models on a test set, beside persistence.

    MSE and MAE are summed over the pixels of a frame, of values scaled so that the range of the
    data is [0, 1]. 'forecast' averages over the forecast frames; 'all-steps' over all one-step
    predictions, the warm-up included, as the tables of the MS-LSTM paper do. For rain and
    reflectivity CSI and the like are measured at thresholds, from counts summed over the whole
    set. With -o everything is written: every metric at every lead time, curves, frames.
    torchrun shares the work among processes.
    """
    from zoo.atomic import make_folder
    from zoo.errors import ZooError
    from zoo.evaluate import evaluate, open_for
    from zoo.hub import load, pull
    from zoo.model_folder import read_metrics, update_metrics

    if save and len(models) > 1:
        raise ZooError(f"--save is for one model, got {len(models)}; measure them one by one")
    folders = [pull(model) for model in models]
    names = list(map(model_name, models, folders))
    if len({*names}) < len(names):
        raise ZooError(f"two of the models are named alike: {', '.join(names)}; rename a folder")
    forecasters = {
        name: load(f"local-dir:{folder}", device=device)
        for name, folder in zip(names, folders, strict=True)
    }
    if save:
        read_metrics(folders[0])  # what cannot be added to is told before the work
    baselines = ["persistence", *(["optical flow"] if optical_flow else [])]
    options: dict[str, Any] | None = dict(map(parse_setting, settings)) or None
    first = next(iter(forecasters.values()))
    if options is not None and (data is None or data == first.config.data.name):
        options = {**first.config.data.options, **options}
    report = evaluate(
        first if len(models) == 1 else forecasters,
        dataset=data,
        split=split,
        options=options,
        sequences=sequences,
        input_frames=input_frames,
        horizon=horizon,
        batch_size=batch_size,
        root=data_dir,
        thresholds=_numbers(thresholds, "--thresholds"),
        windows=[int(w) for w in _numbers(windows, "--fss") or ()],
        baselines=baselines,
        lpips=lpips,
    )
    if int(os.environ.get("RANK", 0)):  # one process of several speaks
        return
    if save:
        update_metrics(folders[0], **report)
    if output is not None:
        from zoo.inspect.report import write_report

        make_folder(output)
        _, dataset, _, _ = open_for(first, data, split, options, input_frames, horizon, data_dir)
        if example is not None and example >= report["data"]["sequences"]:
            raise ZooError(
                f"--example is {example}; the sequences are 0 to {report['data']['sequences'] - 1}"
            )
        named = _renamed(report, names[0]) if len(models) == 1 else report
        write_report(output, named, forecasters, baselines, dataset, example=example)
    if as_json:
        print_json({"model": names[0], **report} if len(models) == 1 else report)
        return
    about = report["data"]
    echo(
        f"{', '.join(names)} on {about['sequences']:,} {about['split']} sequences of "
        f"{about['name']}; protocol {report['protocol']['id']}"
    )
    scores = {protocol: report[protocol] for protocol in ("forecast", "all-steps")}
    frames: dict[str, Any] = {}
    given = about["input_frames"]
    for lead in range(about["horizon"]):
        frames[f"t+{lead + 1}"] = {
            who: {metric: values[given - 1 + lead] for metric, values in by_metric.items()}
            for who, by_metric in report["per_frame"].items()
        }
    print_metrics(frames | scores, names[0])
    if output is not None:
        click.echo(f"{output}: report.json, report.csv, table.md and pictures", err=True)


def _numbers(text: str | None, option: str) -> list[float] | None:
    """Numbers parted by commas."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no list such as 0.5,2,5", param_hint=option
        ) from None


def _renamed(report: dict[str, Any], name: str) -> dict[str, Any]:
    """A report in which "model" has its name."""
    by_whom = ("forecast", "all-steps", "per_frame", "counts")
    return {
        key: {name if who == "model" else who: figures for who, figures in value.items()}
        if key in by_whom
        else value
        for key, value in report.items()
    }
