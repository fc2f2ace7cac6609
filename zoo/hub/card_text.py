"""The generated texts of a model card: summary, results, training and cost."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from zoo.config import Config
from zoo.errors import ZooError
from zoo.hub.papers import paper_links
from zoo.hub.places import LIBRARY
from zoo.hub.scores import (
    PROTOCOLS,
    full_title,
    main_metrics,
    measured,
    numbers,
    protocol_of,
    protocols,
    score_label,
    shown,
)
from zoo.published import TABLES
from zoo.tables import SEASONAL, markdown_table, scores_by_lead_time

__all__ = ["cost", "more_arguments", "results", "summary", "training"]

#: Pictures in a card by suffix, and what they show.
PICTURES = {
    ".gif": "input, truth and forecast, moving",
    ".png": "input, truth, forecast and their difference",
}


def summary(name: str, ref: str, folder: Path, config: Config, metrics: dict[str, Any]) -> str:
    """Return what a model is, how to load it, and its pictures.

    Args:
        name: Name of the model.
        ref: What :func:`zoo.load` takes.
        folder: The model folder, whose pictures are shown.
        config: Config of the model.
        metrics: Its metrics.json.
    """
    data = metrics["data"]
    given, horizon = data["input_frames"], data["horizon"]
    size = "×".join(map(str, config.data.size or ()))
    trained = full_title(metrics) if config.data.name == data["name"] else config.data.title
    units = "in [0, 1], or uint8" if config.data.is_picture else f"in {config.data.unit}"
    call = f"future = model.predict(past, horizon={horizon}{more_arguments(config)})"
    parts = [
        f"# {name}",
        f"`{config.architecture}`, {config.layers} layers of {config.hidden} channels, trained on "
        f"{trained or config.data.name}{f' ({size})' if size else ''} to read {given} frames and "
        f"forecast {horizon}. It takes any number of input frames and any horizon"
        f"{'' if config.size else ', and frames of any size'}.",
        "```python\nimport zoo\n\n"
        f'model = zoo.load("{ref}")\n'
        f"{_commented(call, f'# {_shapes(config)} {units}')}\n```",
        _needs(config),
        paper_links(config),
    ]
    for suffix, text in PICTURES.items():
        pictures = sorted(path.name for path in folder.glob(f"*{suffix}"))
        if picture := next((name for name in pictures if name.isprintable()), None):
            parts.append(f"![{text}]({picture})")
    if demo := metrics.get("demo"):
        model, still = demo["model"], demo["persistence"]
        parts.append(
            f"A clip outside the training data, drawn by `zoo demo {name}`: MSE "
            f"{model['mse']:.1f}, persistence {still['mse']:.1f}."
        )
    return "\n\n".join(filter(None, parts))


def _commented(line: str, comment: str) -> str:
    """A line of code with a comment behind it, or above it if both are too long for one line."""
    return f"{line}  {comment}" if len(line) + len(comment) < 98 else f"{comment}\n{line}"


def _shapes(config: Config) -> str:
    """The shape of what a model reads and, if it differs, forecasts."""
    read, made = (
        f"(B, T, {channels}, H, W)" for channels in (config.in_channels, config.forecast_channels)
    )
    return read if read == made else f"{read} to {made}"


def more_arguments(config: Config) -> str:
    """Return the arguments of predict that the inputs of a model need, as code."""
    arguments = {
        'times="2015-01-31T12:00"': config.needs_times,  # of the first frame
        "future=known": config.future_channels,
        "members=20": config.noise,
    }
    return "".join(f", {argument}" for argument, needed in arguments.items() if needed)


def _needs(config: Config) -> str:
    """What to install besides the zoo."""
    plugins = (config.plugin, config.topology_plugin, config.head_plugin)
    sources = {plugin.distribution for plugin in plugins if plugin} - {LIBRARY}
    return f"It requires a plugin: `pip install {' '.join(sorted(sources))}`." if sources else ""


def results(name: str, folder: Path, config: Config, metrics: dict[str, Any]) -> str:
    """Return the scores, next to baselines, models of the same budget and published values.

    Args:
        name: Name of the model.
        folder: The model folder; other models are in the folder around it.
        config: Config of the model.
        metrics: Its metrics.json.
    """
    data = metrics["data"]
    given, horizon = data["input_frames"], data["horizon"]
    kinds = protocols(metrics)
    all_steps = (
        f", or over all {given + horizon - 1} one-step predictions, the warm-up included, as the "
        "tables of the MS-LSTM paper do"
    )
    parts = [
        "## Results",
        f"On {data['sequences']:,} {data['split']} sequences of {full_title(metrics)}, measured by "
        f"`{_command(name, config, metrics)}`. MSE and MAE are summed over the pixels of a frame, "
        "of values in [0, 1], and averaged over frames and sequences: over the "
        f"{horizon} forecast frames{all_steps if len(kinds) > 1 else ''}. "
        f"{_units_and_baselines(metrics)}",
    ]
    columns = {name: metrics}
    siblings = _siblings(folder, metrics)
    published = _published(config, metrics)
    baselines = [who for who in metrics["forecast"] if who != "model"]
    head = ["", name, *baselines, *siblings, *(["published"] if published else [])]
    rows = []
    for protocol in kinds:
        for metric in numbers(metrics[protocol]["model"]):
            values = [column[protocol]["model"].get(metric) for column in columns.values()]
            values += [metrics[protocol][who].get(metric) for who in baselines]
            values += [other[protocol]["model"].get(metric) for other in siblings.values()]
            row = [
                f"{score_label(metric, metrics)} {PROTOCOLS[protocol]}",
                *(shown(metric, value) for value in values),
            ]
            if published:
                there = protocol == "all-steps" and metric in published
                row.append(f"{published[metric]:g}" if there else "")
            rows.append(row)
    parts.append(markdown_table(head, rows))
    parts.append(_by_lead_time(name, metrics))
    if how := metrics.get("protocol"):
        parts.append(f"Protocol `{how['id']}`; metrics.json defines each metric.")
    if siblings:
        parts.append("The other models were trained with the same budget and data.")
    if published:
        parts.append(
            "Published values of this architecture, not measured here (arXiv 2304.07724, all "
            "steps): full-size grids, a much larger budget, other test sequences."
        )
    return "\n\n".join(filter(None, parts))


def _units_and_baselines(metrics: dict[str, Any]) -> str:
    """Sentences on scores in the unit of the data, and on the baselines."""
    sentences = []
    if "rmse_unit" in metrics["forecast"]["model"]:
        unit = metrics.get("protocol", {}).get("unit")
        sentences.append(f"Errors in the unit of the data, {unit}, are means over the pixels.")
    sentences.append("Persistence repeats the last frame.")
    for name in metrics["forecast"]:
        if name.startswith(SEASONAL):
            period = name.removeprefix(SEASONAL)
            sentences.append(f"The seasonal forecast is what was there {period} before.")
    return " ".join(sentences)


def _command(name: str, config: Config, metrics: dict[str, Any]) -> str:
    """Return the command that measured a model."""
    how, data = metrics.get("protocol", {}), config.data
    parts = [f"zoo eval {name}"]
    is_own = how.get("dataset", data.name) == data.name
    if not is_own:
        parts.append(f"--data {how['dataset']}")
    trained = data.options if is_own else {}
    for key, value in how.get("options", {}).items():
        if trained.get(key) != value:
            text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            parts.append(f"--set {shlex.quote(f'{key}={text}')}")
    windows = {key.split("/")[1] for key in metrics["forecast"]["model"] if "/" in key}
    parts += [f"--fss {','.join(sorted(windows, key=int))}"] if windows else []
    return " ".join(parts) + "".join(map(_baseline_option, metrics["forecast"])) + " --save"


def _baseline_option(name: str) -> str:
    """Return the option of zoo eval that adds a baseline; none adds persistence and models."""
    if name.startswith(SEASONAL):
        return f" --seasonal {name.removeprefix(SEASONAL)}"
    return {
        "extrapolation": " --extrapolation",
        "optical flow": " --optical-flow",
        "STEPS": " --steps",
    }.get(name, "")


def _by_lead_time(name: str, metrics: dict[str, Any]) -> str:
    """A table of the main scores of every forecast frame."""
    per_frame = metrics.get("per_frame") or {}
    main = main_metrics(metrics)
    columns = [
        (metric, who)
        for metric in (main[0], "mae_unit" if "mae_unit" in main else "ssim")
        for who in per_frame
        if metric in per_frame[who]
    ]
    if not columns:
        return ""
    head = [
        "frame",
        *(f"{score_label(m, metrics)} {name if w == 'model' else w}" for m, w in columns),
    ]
    rows = [
        [frame, *(shown(metric, scores[who][metric]) for metric, who in columns)]
        for frame, scores in scores_by_lead_time(metrics).items()
    ]
    return markdown_table(head, rows)


def training(metrics: dict[str, Any], recipe: str) -> str:
    """Return how a model was trained, with its recipe.

    Args:
        metrics: Its metrics.json.
        recipe: Text of its recipe.toml.
    """
    training = metrics["training"]
    threads = f" ({training['threads']} thread)" if training["device"] == "cpu" else ""
    return (
        f"## Training\n\n{training['steps']:,} steps, {training['sequences']:,} sequences, in "
        f"{training['minutes']:g} minutes on {training['device']}{threads} with torch "
        f"{training['torch']}. To reproduce it, run `zoo train recipe.toml`:\n\n"
        f"```toml\n{recipe.strip()}\n```"
    )


def cost(name: str, metrics: dict[str, Any]) -> str:
    """Return the cost of a forecast, if it was counted."""
    if not (counted := metrics.get("cost")):
        return ""
    height, width = counted["size"]
    return (
        f"## Cost\n\n{counted['parameters']:,} parameters. A forecast of {counted['horizon']} "
        f"frames of {height}×{width} from {counted['input_frames']} takes "
        f"{counted['macs'] / 1e9:.2f} G multiply-accumulates, counted by `zoo cost {name} --save`."
    )


def _siblings(folder: Path, metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The other models next to this one, trained on as many sequences of the same data."""
    found = {}
    for path in sorted(folder.resolve().parent.glob("*/metrics.json")):
        if path.parent == folder.resolve():
            continue
        try:
            other = measured(path.parent)
        except ZooError:
            continue  # incomplete or invalid
        budget = other["training"]["sequences"] == metrics["training"]["sequences"]
        if budget and protocol_of(other) == protocol_of(metrics):
            found[path.parent.name] = other
    return found


def _published(config: Config, metrics: dict[str, Any]) -> dict[str, float]:
    """The metrics of the architecture on this data set in the MS-LSTM paper."""
    if metrics["data"].get("sha256") is None:  # not the published test set
        return {}
    rows = TABLES[metrics["data"]["name"]].rows if metrics["data"]["name"] in TABLES else ()
    row = next((row for row in rows if row.architecture == config.architecture), None)
    return {metric: values[0] for metric, values in row.scores.items()} if row else {}
