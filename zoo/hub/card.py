"""Model cards: the README.md of a model's folder, written from what was measured.

Every number is read from metrics.json; nothing is typed. The section "Where it fails" is a
person's: it is kept as it stands when a card is written again.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from zoo.atomic import atomic_path
from zoo.bench.published import TABLES
from zoo.config import Config, read_config
from zoo.errors import ZooError
from zoo.hub import read_metrics

__all__ = ["models_table", "write_card"]

METRICS = {"mse": ("MSE", 2), "mae": ("MAE", 2), "ssim": ("SSIM", 3), "psnr": ("PSNR", 2)}

FAILS = "## Where it fails\n"


def write_card(folder: Path) -> Path:
    """Write the card of a model's folder and return its path.

    Raises ZooError where config.json, recipe.toml or metrics.json is absent or not measured.
    """
    config, metrics = read_config(folder), _measured(folder)
    recipe = folder / "recipe.toml"
    if not recipe.is_file():
        raise ZooError(f"{folder} has no recipe.toml: put there what made the model")
    path = folder / "README.md"
    name = folder.resolve().name
    card = ModelCard(f"---\n{_front_matter(name, config, metrics).to_yaml()}\n---\n\n")
    card.content += _text(name, folder, config, metrics, recipe.read_text("utf-8"), _fails(path))
    with atomic_path(path) as temporary:
        temporary.write_text(card.content, encoding="utf-8")
    return path


def models_table(folder: Path) -> str:
    """A Markdown table of the measured models in a folder of models, best forecast first.

    Models stand together only where their data and protocol are the same; else a ZooError.
    """
    measured = [(f.parent, _measured(f.parent)) for f in folder.glob("*/metrics.json")]
    for other, metrics in measured[1:]:
        if metrics["data"] != measured[0][1]["data"]:
            raise ZooError(
                f"{other.name} and {measured[0][0].name} were measured on other data or frames; "
                "measure both alike: zoo eval --save"
            )
    measured.sort(key=lambda one: one[1]["forecast"]["model"]["mse"])
    rows = [_row(f"[{f.name}](cards/{f.name}/README.md)", m, "model") for f, m in measured]
    if measured:
        rows.append(_row("persistence", measured[-1][1], "persistence"))
    return "\n".join([_head("model"), *rows])


def _measured(folder: Path) -> dict[str, Any]:
    metrics = read_metrics(folder)
    for key in ("training", "data", "forecast", "all-steps"):
        if key not in metrics:
            raise ZooError(
                f"{folder / 'metrics.json'} has no {key!r}; it comes from zoo train and "
                f"zoo eval local-dir:{folder} --save"
            )
    return metrics


def _front_matter(name: str, config: Config, metrics: dict[str, Any]) -> ModelCardData:
    dataset = _title(metrics)
    results = [
        EvalResult(
            task_type="video-prediction",
            dataset_type=metrics["data"]["name"],
            dataset_name=dataset,
            dataset_split="test",
            metric_type=metric,
            metric_name=f"{label} ({protocol})",
            metric_value=metrics[protocol]["model"][metric],
        )
        for protocol in ("forecast", "all-steps")
        for metric, (label, _) in METRICS.items()
    ]
    return ModelCardData(
        model_name=name,
        license="apache-2.0",
        library_name="spatiotemporal-zoo",
        tags=["spatiotemporal-prediction", "video-prediction", config.architecture],
        eval_results=results,
    )


def _text(
    name: str,
    folder: Path,
    config: Config,
    metrics: dict[str, Any],
    recipe: str,
    fails: str,
) -> str:
    data, training = metrics["data"], metrics["training"]
    dataset = _title(metrics)
    given, horizon = data["input_frames"], data["horizon"]
    size = "×".join(map(str, config.data.size or ()))
    parts = [
        f"# {name}",
        f"`{config.architecture}`, {config.layers} layers of {config.hidden} channels, trained on "
        f"{dataset} ({size}) to read {given} frames and forecast {horizon}. It takes any frame "
        "size, number of input frames and horizon.",
        "```python\nimport zoo\n\n"
        f'model = zoo.load("{name}")\n'
        f"future = model.predict(past, horizon={horizon})  # (B, T, 1, H, W) in [0, 1], or uint8"
        "\n```",
        "![input, truth, forecast and their difference](demo.png)",
        f"A clip that no model here was trained on, drawn by `zoo demo {name}`.",
        "## Results",
        f"On {data['sequences']:,} {data['split']} sequences, measured by `zoo eval {name}`. MSE "
        "and MAE are summed over the pixels of a frame, of values in [0, 1], and averaged over "
        f"frames and sequences: over the {horizon} forecast frames, or over all "
        f"{given + horizon - 1} one-step predictions, the warm-up included, as the tables of the "
        "MS-LSTM paper do. Persistence forecasts that the last frame stays.",
        "\n".join(
            [
                _head("forecast by"),
                _row(name, metrics, "model"),
                _row("persistence", metrics, "persistence"),
            ]
        ),
        _siblings(folder, metrics),
        _published(config, metrics),
        FAILS + "\n" + fails,
        "## Training",
        f"{training['steps']:,} steps, {training['sequences']:,} sequences, in "
        f"{training['minutes']:g} minutes on {training['device']}"
        + (f" ({training['threads']} thread)" if training["device"] == "cpu" else "")
        + f" with torch {training['torch']}. Made by `zoo train recipe.toml`:",
        f"```toml\n{recipe.strip()}\n```",
        "## Licence and citation",
        "The weights are under Apache-2.0. The digits are those of MNIST (Y. LeCun, C. Cortes, "
        "C. J. C. Burges), CC BY-SA 3.0, and of those in the picture the source stands in "
        "`zoo/data/clips/README.md`. The architecture: Z. Ma et al., *MS-RNN*, arXiv 2206.03010, "
        "and *MS-LSTM*, arXiv 2304.07724.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(metrics: dict[str, Any]) -> str:
    """The data set's name in full."""
    name: str = metrics["data"]["name"]
    return TABLES[name].title if name in TABLES else name


def _head(first: str) -> str:
    labels = [label for label, _ in METRICS.values()]
    columns = [first, *(f"{x} forecast" for x in labels), *(f"{x} all steps" for x in labels)]
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def _row(name: str, metrics: dict[str, Any], who: str) -> str:
    values = [
        f"{metrics[protocol][who][metric]:.{digits}f}"
        for protocol in ("forecast", "all-steps")
        for metric, (_, digits) in METRICS.items()
    ]
    return f"| {' | '.join([name, *values])} |"


def _siblings(folder: Path, metrics: dict[str, Any]) -> str:
    """The other models in the same place that saw as many sequences of the same data."""
    rows = []
    for path in sorted(folder.resolve().parent.glob("*/metrics.json")):
        other = json.loads(path.read_text(encoding="utf-8"))
        if path.parent != folder.resolve() and all(
            other.get(key, {}).get(what) == metrics[key][what]
            for key, what in (("data", "sha256"), ("training", "sequences"))
        ):
            rows.append(_row(path.parent.name, other, "model"))
    if not rows:
        return ""
    return "Others, trained with the same budget and recipe:\n\n" + "\n".join(
        [_head("forecast by"), *rows]
    )


def _published(config: Config, metrics: dict[str, Any]) -> str:
    """What the MS-LSTM paper reports of the architecture on this data set, if it does."""
    rows = TABLES[metrics["data"]["name"]].rows if metrics["data"]["name"] in TABLES else ()
    for row in rows:
        if row.architecture == config.architecture:
            figures = ", ".join(f"{METRICS[m][0]} {v[0]:g}" for m, v in row.scores.items())
            return (
                f"Published for this architecture (arXiv 2304.07724, all steps; full-size grids, "
                f"a much larger budget, other test sequences): {figures}."
            )
    return ""


def _fails(path: Path) -> str:
    """The person's section of an existing card."""
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        if found := re.search(re.escape(FAILS) + r"\n*(.*?)(?=\n## |\Z)", text, re.DOTALL):
            return found[1].strip()
    return "Not described yet."
