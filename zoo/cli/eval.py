"""zoo eval: scores of models on a test set, next to baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.common import (
    any_plugin_option,
    as_json,
    data_option,
    device_option,
    echo,
    model_name,
    optimize_option,
    print_json,
    print_metrics,
    print_settings,
    set_option,
)
from zoo.tables import SEASONAL

if TYPE_CHECKING:
    from zoo.forecast import Forecaster


def _parse_numbers(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not valid; expected numbers such as 0.5,2,5", context, parameter
        ) from None


def test_set_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that choose the sequences to measure on and the baselines."""
    for add in (
        click.option(
            "--seasonal",
            multiple=True,
            metavar="PERIOD",
            help="Add what was there a period before, such as 7d, as a baseline. May be repeated.",
        ),
        click.option("--steps", is_flag=True, help="Add the STEPS ensemble, for radar (pysteps)."),
        click.option(
            "--extrapolation", is_flag=True, help="Add the last frame, moved on, as a baseline."
        ),
        click.option(
            "--optical-flow", is_flag=True, help="Add optical flow as a baseline (pysteps)."
        ),
        click.option("--horizon", type=click.IntRange(min=1), help="Number of frames to forecast."),
        click.option("--input-frames", type=click.IntRange(min=1), help="Number of input frames."),
        click.option("--sequences", type=click.IntRange(min=1), help="Evaluate only the first N."),
        click.option(
            "--split",
            type=click.Choice(["train", "valid", "test"]),
            default="test",
            show_default=True,
            help="Part of the data set.",
        ),
        set_option("Option of the data set.  [default: as in training]"),
        click.option("--data", "dataset", help="Data set.  [default: the training data of MODEL]"),
    ):
        command = add(command)
    return command


@click.command("eval")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@test_set_options
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Sequences per batch.",
)
@click.option(
    "--thresholds",
    callback=_parse_numbers,
    help="Thresholds of CSI and other skill scores, in the unit of the data, such as 0.5,2,5.",
)
@click.option(
    "--fss",
    "windows",
    callback=_parse_numbers,
    help="Windows of the fractions skill score in pixels, such as 3,9.",
)
@click.option(
    "--lpips", is_flag=True, help="Measure LPIPS (needs lpips, which downloads AlexNet's weights)."
)
@click.option(
    "--metric",
    "further_metrics",
    multiple=True,
    help="Further metric, such as sharpness; zoo plugins lists them. May be repeated.",
)
@click.option(
    "--members",
    type=click.IntRange(min=2),
    default=10,
    show_default=True,
    help="Members of ensembles: of models that read noise, and of STEPS.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="fp32",
    show_default=True,
    help="Precision of the models; bf16 is faster on devices that support it.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder for tables (JSON, CSV, Markdown), curves and a strip of frames.",
)
@click.option("--example", type=click.IntRange(min=0), help="Index of the sequence in the strip.")
@click.option("--save", is_flag=True, help="Save the scores in the metrics.json of MODEL.")
@optimize_option
@data_option
@any_plugin_option
@device_option
@as_json
def eval_(
    models: tuple[str, ...],
    settings: tuple[tuple[str, Any], ...],
    batch_size: int,
    thresholds: list[float] | None,
    windows: list[float] | None,
    extrapolation: bool,
    optical_flow: bool,
    steps: bool,
    seasonal: tuple[str, ...],
    lpips: bool,
    further_metrics: tuple[str, ...],
    members: int,
    precision: str,
    output: Path | None,
    example: int | None,
    save: bool,
    optimize: str,
    data_dir: Path | None,
    any_plugin: bool,
    device: str,
    as_json: bool,
    **data_options: Any,
) -> None:
    """Measure models on a test set, next to persistence, which repeats the last frame.

    MSE and MAE are sums over the pixels of a frame, of values whose range is scaled to [0, 1].
    'forecast' averages over the forecast frames; 'all-steps' over all one-step predictions
    including the warm-up, as in the tables of the MS-LSTM paper. For rain and reflectivity, CSI
    and other skill scores are computed at thresholds, from counts over the whole set. With -o,
    all metrics at all lead times, curves and frames are written. Models that read noise forecast
    ensembles, and so does STEPS: other scores are those of the mean, and CRPS, spread, Brier score,
    ranks, reliability and spectra are added. torchrun shares the work among processes.
    """
    from zoo.errors import ConfigError
    from zoo.evaluate import evaluate, process_rank
    from zoo.model_folder import read_metrics, update_metrics

    if save and len(models) > 1:
        raise ConfigError(f"--save takes one model, got {len(models)}; evaluate them one by one")
    forecasters, folder = load_models(models, device, any_plugin=any_plugin)
    if save:
        read_metrics(folder)  # fail before the work if the scores cannot be added
    first = next(iter(forecasters.values()))
    options = dataset_options(dict(settings), data_options["dataset"], first)
    data_options |= {"options": options, "root": data_dir}
    baselines = baseline_names(extrapolation, optical_flow, steps, seasonal)
    report = evaluate(
        first if len(models) == 1 else forecasters,
        batch_size=batch_size,
        thresholds=thresholds,
        windows=[int(window) for window in windows or ()],
        baselines=baselines,
        lpips=lpips,
        further_metrics=further_metrics,
        members=members,
        precision=precision,
        optimize=optimize,
        cache=True,
        **data_options,
    )
    if process_rank()[0]:  # only one process reports
        return
    print_settings(forecasters)
    if save:
        update_metrics(folder, **report)
    if output is not None:
        _write_report(output, report, forecasters, baselines, example, data_options)
    if as_json:
        name = next(iter(forecasters))
        print_json({"model": name, **report} if len(models) == 1 else report)
    else:
        _print_report(report, list(forecasters))
        if output is not None:
            click.echo(f"{output}: report.json, report.csv, table.md and pictures", err=True)


def baseline_names(
    extrapolation: bool, optical_flow: bool, steps: bool, seasonal: Sequence[str]
) -> list[str]:
    """Return the names of the baselines that the options choose; persistence is always one."""
    chosen = {
        "persistence": True,
        "extrapolation": extrapolation,
        "optical flow": optical_flow,
        "STEPS": steps,
    }
    names = [name for name, wanted in chosen.items() if wanted]
    return names + [f"{SEASONAL}{period}" for period in seasonal]


def load_models(
    models: Sequence[str], device: str, *, any_plugin: bool = False
) -> tuple[dict[str, Forecaster], Path]:
    """Load models by name; also return the folder of the first."""
    from zoo.errors import ConfigError
    from zoo.hub import load, pull

    folders = [pull(model) for model in models]
    names = list(map(model_name, models, folders))
    if len({*names}) < len(names):
        raise ConfigError(f"the names of the models are not unique: {', '.join(names)}")
    forecasters = {
        name: load(f"local-dir:{folder}", device=device, any_plugin=any_plugin)
        for name, folder in zip(names, folders, strict=True)
    }
    return forecasters, folders[0]


def dataset_options(
    settings: dict[str, Any], dataset: str | None, model: Forecaster
) -> dict[str, Any] | None:
    """Return the options of the data set: those used in training, changed by `settings`."""
    trained = model.config.data
    if settings and dataset in (None, trained.name):
        return trained.trusted_options(settings)
    return settings or None


def _write_report(
    folder: Path,
    report: dict[str, Any],
    models: dict[str, Forecaster],
    baselines: list[str],
    example: int | None,
    data_options: dict[str, Any],
) -> None:
    from zoo.atomic import make_folder
    from zoo.errors import ConfigError
    from zoo.evaluate import open_data
    from zoo.inspect.report import write_report

    sequences = report["data"]["sequences"]
    if example is not None and example >= sequences:
        raise ConfigError(f"--example is {example}; expected 0 to {sequences - 1}")
    evaluated = open_data(next(iter(models.values())), **data_options)
    make_folder(folder)
    if len(models) == 1:
        report = _with_name(report, next(iter(models)))
    write_report(folder, report, models, baselines, evaluated, example=example)


def _print_report(report: dict[str, Any], names: list[str]) -> None:
    """Print the scores by lead time, and their means."""
    from zoo.tables import data_title, scores_by_lead_time

    data = report["data"]
    echo(
        f"{', '.join(names)} on {data['sequences']:,} {data['split']} sequences of "
        f"{data_title(report)}; protocol {report['protocol']['id']}"
    )
    scores = scores_by_lead_time(report)
    scores |= {frames: report[frames] for frames in ("forecast", "all-steps")}
    print_metrics(scores, names[0])


def _with_name(report: dict[str, Any], name: str) -> dict[str, Any]:
    """The report with `name` instead of "model"."""
    renamed = dict(report)
    for key in ("forecast", "all-steps", "per_frame", "counts", "ensemble"):
        if key in report:
            renamed[key] = {name if k == "model" else k: v for k, v in report[key].items()}
    return renamed
