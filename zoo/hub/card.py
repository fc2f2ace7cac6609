"""Model cards: README.md of a model folder, generated from its config, recipe and metrics.

Blocks between ``<!-- NAME -->`` and ``<!-- /NAME -->`` are generated from config.json,
recipe.toml and metrics.json. Text outside the blocks is written by people, and is preserved when
the card is written again.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from huggingface_hub import EvalResult, ModelCardData

from zoo.atomic import atomic_path
from zoo.config import Config
from zoo.errors import ConfigError, HubError, ZooError
from zoo.hub.papers import paper_links
from zoo.hub.places import LIBRARY, NAME
from zoo.model_folder import parse_toml, read_config, read_metrics, read_text, writable_part
from zoo.published import TABLES
from zoo.tables import (
    MAIN_METRICS,
    SEASONAL,
    data_title,
    format_score,
    markdown_table,
    metric_label,
    scores_by_lead_time,
)

__all__ = [
    "TASK",
    "UNWRITTEN",
    "Card",
    "card_results",
    "measured",
    "models_tables",
    "protocol_of",
    "read_card",
    "read_recipe",
    "write_card",
]

PROTOCOLS = {"forecast": "forecast", "all-steps": "all steps"}

#: Pictures in a card by suffix, and what they show.
PICTURES = {
    ".gif": "input, truth and forecast, moving",
    ".png": "input, truth, forecast and their difference",
}

#: The Hub's name for the task.
TASK = "time-series-forecasting"

#: The placeholder that must be replaced before a model is published.
UNWRITTEN = "Not described yet."

#: The longest metadata of a card in characters; those of the zoo's own cards have some 3,000.
LONGEST_METADATA = 64 << 10

#: Levels of brackets in the metadata of a card.
DEEPEST_METADATA = 20

#: A new card. The blocks are generated; the sections between them are for people to write.
TEMPLATE = f"""
<!-- summary -->
<!-- /summary -->

## Intended use

{UNWRITTEN}

<!-- results -->
<!-- /results -->

## Where it fails

{UNWRITTEN}

<!-- training -->
<!-- /training -->

<!-- cost -->
<!-- /cost -->

## License and citation

{UNWRITTEN}
"""


class Card(NamedTuple):
    """A model card: the metadata that the Hub understands, and the Markdown below them."""

    data: ModelCardData
    text: str


def write_card(folder: Path, license: str | None = None, repository: str | None = None) -> Path:
    """Write or update the card of a model folder, and return its path.

    Args:
        folder: the model folder.
        license: the Hub's identifier, such as "apache-2.0"; by default that of the existing
            card.
        repository: the repository on the Hub, org/name, from which the card loads the model; by
            default that of the existing card, or else the name of the folder.

    Raises:
        ZooError: if config.json, recipe.toml or metrics.json is missing or incomplete.
    """
    config, metrics = read_config(folder), measured(folder)
    if repository and not re.fullmatch(f"{NAME.pattern}/{NAME.pattern}", repository):
        raise ConfigError(
            f"{repository!r} is not a repository on the Hugging Face Hub; expected org/name"
        )
    recipe = read_recipe(folder)
    path = writable_part(folder, "README.md")
    name = folder.resolve().name
    if not name.isprintable():
        raise ConfigError(f"{name!r} is not a valid name of a model; rename its folder")
    existing = read_card(folder) if os.path.lexists(path) else None
    text = existing.text if existing else TEMPLATE
    shown = re.search(r'zoo\.load\("(hf-hub:[^"]+)"\)', _block(text, "summary"))
    ref = f"hf-hub:{repository}" if repository else shown[1] if shown else name
    blocks = {
        "summary": _summary(name, ref, folder, config, metrics),
        "results": _results(name, folder, config, metrics),
        "training": _training(metrics, recipe),
        "cost": _cost(name, metrics),
    }
    for block, content in blocks.items():
        text = _replace(text, block, content)
    data = existing.data.to_dict() if existing else {}
    data |= {
        "model_name": name,
        "license": license or data.get("license"),
        "library_name": LIBRARY,
        "pipeline_tag": TASK,
        "tags": _tags(config, data.get("tags")),
        "datasets": [metrics["data"]["name"]],
        "eval_results": card_results(metrics),
    }
    data.pop("model-index", None)
    try:
        front_matter = ModelCardData(**data).to_yaml()
    except Exception as error:  # from the YAML writer, or the client's validation
        raise HubError(f"{path} has invalid metadata: {_one_line(error)}") from None
    with atomic_path(path) as temporary:
        content = f"---\n{front_matter}\n---\n\n{text.strip()}\n"
        temporary.write_text(content, encoding="utf-8")
    return path


def read_card(folder: Path) -> Card:
    """Read the card of a model folder.

    Raises:
        HubError: if there is none, or its metadata are invalid.
    """
    path = folder / "README.md"
    try:
        metadata, text = _split(read_text(path))
        return Card(ModelCardData(**_parse_metadata(metadata)), text)
    except ZooError:
        raise
    except FileNotFoundError:
        raise HubError(f"{folder} has no card (README.md); write one: zoo card {folder}") from None
    except Exception as error:  # from the YAML parser, or the client's validation
        raise HubError(f"{path} has invalid metadata: {_one_line(error)}") from None


def read_recipe(folder: Path) -> str:
    """Read the recipe of a model folder; it need not be one of zoo train.

    Raises:
        HubError: if there is none, or it is empty or not TOML.
    """
    path = folder / "recipe.toml"
    try:
        text = read_text(path)
        if not parse_toml(text.encode()):
            raise HubError(f"{path} is empty; copy the recipe of the model there")
        return text
    except FileNotFoundError:
        raise HubError(f"{folder} has no recipe.toml; copy the recipe of the model there") from None
    except ValueError as error:
        raise HubError(f"{path} is not valid TOML: {error}") from None


def card_results(metrics: dict[str, Any]) -> list[EvalResult]:
    """Return all metrics in the format of the Hub."""
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=metrics["data"]["name"],
            dataset_name=_title(metrics),
            dataset_split=metrics["data"]["split"],
            metric_type=metric,
            metric_name=f"{_label(metric, metrics)} ({protocol})",
            metric_value=value,
        )
        for protocol in PROTOCOLS
        for metric, value in _numbers(metrics[protocol]["model"]).items()
    ]


def models_tables(folder: Path) -> str:
    """Return Markdown tables of the evaluated models in a folder of models, one for each data.

    Data of one title share a table. The best forecast comes first; baselines come last.

    Raises:
        HubError: if models of the same data were not evaluated in the same way.
    """
    by_data: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for path in sorted(folder.glob("*/metrics.json")):
        metrics = measured(path.parent)
        by_data.setdefault(_title(metrics), []).append((path.parent, metrics))
    # The data with the most models first.
    groups = sorted(by_data.values(), key=lambda group: (-len(group), group[0][0].name))
    return "\n\n".join(map(_models_table, groups))


def _models_table(models: list[tuple[Path, dict[str, Any]]]) -> str:
    """A title and a table of models of the same data."""
    first, expected = models[0]
    for folder, metrics in models[1:]:
        if protocol_of(metrics) != protocol_of(expected):
            raise HubError(
                f"{folder.name} and {first.name} were evaluated on different data or frames; "
                "evaluate both in the same way: zoo eval --save"
            )
    models = sorted(models, key=lambda item: item[1]["forecast"]["model"]["mse"])
    rows = [(f"[{f.name}](cards/{f.name}/README.md)", m, "model") for f, m in models]
    rows += [(name, expected, name) for name in expected["forecast"] if name != "model"]
    protocols = _protocols(expected)
    columns = [(p, metric) for p in protocols for metric in _main_metrics(expected)]
    labels = {p: f" {PROTOCOLS[p]}" if len(protocols) > 1 else "" for p in protocols}
    head = ["model", *(f"{_label(metric, expected)}{labels[p]}" for p, metric in columns)]
    table = markdown_table(
        head,
        [
            [name, *(_shown(metric, metrics[p][who][metric]) for p, metric in columns)]
            for name, metrics, who in rows
        ],
    )
    data = expected["data"]
    return f"**{_title(expected)}**, {data['sequences']:,} {data['split']} sequences:\n\n{table}"


def measured(folder: Path) -> dict[str, Any]:
    """Read metrics.json of a model that was trained and evaluated.

    Raises:
        HubError: if it is not valid, or lacks the facts of the training or the scores.
    """
    metrics = read_metrics(folder)
    for key in ("training", "data", *PROTOCOLS):
        if metrics.get(key) is None:
            raise HubError(
                f"{folder / 'metrics.json'} has no {key!r}; zoo train and "
                f"zoo eval local-dir:{folder} --save write it"
            )
    return metrics


class _Loader(yaml.SafeLoader):
    """A YAML loader without what makes short texts slow to read: aliases and deep nesting."""

    def fetch_alias(self) -> None:
        raise yaml.YAMLError("it uses aliases; write out their values")

    def fetch_flow_collection_start(self, token: type) -> None:
        if self.flow_level >= DEEPEST_METADATA:
            raise yaml.YAMLError("it is too deeply nested")
        super().fetch_flow_collection_start(token)


def _parse_metadata(text: str) -> dict[str, Any]:
    if len(text) > LONGEST_METADATA:
        raise ValueError(f"it exceeds {LONGEST_METADATA:,} characters")
    metadata = yaml.load(text, _Loader) or {}
    if not isinstance(metadata, dict):
        raise ValueError("it has no keys")
    metadata.pop("eval_results", None)  # the client's name for what the Hub calls model-index
    return metadata


def _split(card: str) -> tuple[str, str]:
    """Split a card into its metadata, between two lines of dashes, and the text below."""
    lines = card.lstrip().split("\n")
    if lines[0].rstrip() == "---":
        for number, line in enumerate(lines[1:], 1):
            if line.rstrip() == "---":
                return "\n".join(lines[1:number]), "\n".join(lines[number + 1 :])
    return "", card


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _tags(config: Config, before: Any) -> list[str]:
    ours = [LIBRARY, "spatiotemporal-prediction", f"architecture:{config.architecture}"]
    others = [tag for tag in before if isinstance(tag, str)] if isinstance(before, list) else []
    return [*ours, *(t for t in others if t not in ours and not t.startswith("architecture:"))]


def _summary(name: str, ref: str, folder: Path, config: Config, metrics: dict[str, Any]) -> str:
    data = metrics["data"]
    given, horizon = data["input_frames"], data["horizon"]
    size = "×".join(map(str, config.data.size or ()))
    trained = _title(metrics) if config.data.name == data["name"] else config.data.title
    units = "in [0, 1], or uint8" if config.data.is_picture else f"in {config.data.unit}"
    call = f"future = model.predict(past, horizon={horizon}{_more_arguments(config)})"
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


def _more_arguments(config: Config) -> str:
    """The arguments of predict that the inputs of a model need."""
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


def _results(name: str, folder: Path, config: Config, metrics: dict[str, Any]) -> str:
    data = metrics["data"]
    given, horizon = data["input_frames"], data["horizon"]
    protocols = _protocols(metrics)
    all_steps = (
        f", or over all {given + horizon - 1} one-step predictions, the warm-up included, as the "
        "tables of the MS-LSTM paper do"
    )
    parts = [
        "## Results",
        f"On {data['sequences']:,} {data['split']} sequences of {_title(metrics)}, measured by "
        f"`{_command(name, config, metrics)}`. MSE and MAE are summed over the pixels of a frame, "
        "of values in [0, 1], and averaged over frames and sequences: over the "
        f"{horizon} forecast frames{all_steps if len(protocols) > 1 else ''}. "
        f"{_units_and_baselines(metrics)}",
    ]
    columns = {name: metrics}
    siblings = _siblings(folder, metrics)
    published = _published(config, metrics)
    baselines = [who for who in metrics["forecast"] if who != "model"]
    head = ["", name, *baselines, *siblings, *(["published"] if published else [])]
    rows = []
    for protocol in protocols:
        for metric in _numbers(metrics[protocol]["model"]):
            values = [column[protocol]["model"].get(metric) for column in columns.values()]
            values += [metrics[protocol][who].get(metric) for who in baselines]
            values += [other[protocol]["model"].get(metric) for other in siblings.values()]
            row = [
                f"{_label(metric, metrics)} {PROTOCOLS[protocol]}",
                *(_shown(metric, value) for value in values),
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


def _protocols(metrics: dict[str, Any]) -> tuple[str, ...]:
    """The frames that tables are about: all steps only for comparisons with published tables."""
    return (*PROTOCOLS,) if metrics["data"]["name"] in TABLES else ("forecast",)


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
    main = _main_metrics(metrics)
    columns = [
        (metric, who)
        for metric in (main[0], "mae_unit" if "mae_unit" in main else "ssim")
        for who in per_frame
        if metric in per_frame[who]
    ]
    if not columns:
        return ""
    head = ["frame", *(f"{_label(m, metrics)} {name if w == 'model' else w}" for m, w in columns)]
    rows = [
        [frame, *(_shown(metric, scores[who][metric]) for metric, who in columns)]
        for frame, scores in scores_by_lead_time(metrics).items()
    ]
    return markdown_table(head, rows)


def _training(metrics: dict[str, Any], recipe: str) -> str:
    training = metrics["training"]
    threads = f" ({training['threads']} thread)" if training["device"] == "cpu" else ""
    return (
        f"## Training\n\n{training['steps']:,} steps, {training['sequences']:,} sequences, in "
        f"{training['minutes']:g} minutes on {training['device']}{threads} with torch "
        f"{training['torch']}. To reproduce it, run `zoo train recipe.toml`:\n\n"
        f"```toml\n{recipe.strip()}\n```"
    )


def _cost(name: str, metrics: dict[str, Any]) -> str:
    """The cost of a forecast, if it was counted."""
    if not (cost := metrics.get("cost")):
        return ""
    height, width = cost["size"]
    return (
        f"## Cost\n\n{cost['parameters']:,} parameters. A forecast of {cost['horizon']} frames of "
        f"{height}×{width} from {cost['input_frames']} takes {cost['macs'] / 1e9:.2f} G "
        f"multiply-accumulates, counted by `zoo cost {name} --save`."
    )


def _main_metrics(metrics: dict[str, Any]) -> tuple[str, ...]:
    """The metrics of a short table; errors are in the unit of the data, if they have one."""
    scores = metrics["forecast"]["model"]
    if "rmse_unit" not in scores:
        return MAIN_METRICS
    skill = [name for name in scores if name.startswith("csi@")]
    crps = ["crps"] if "crps" in scores else []
    return ("rmse_unit", "mae_unit", *crps, *(skill or ("ssim", "psnr")))


def _title(metrics: dict[str, Any]) -> str:
    """The full name of the data."""
    name: str = metrics["data"]["name"]
    has_table = name in TABLES and not metrics["data"].get("title")
    return TABLES[name].title if has_table else data_title(metrics)


def _label(metric: str, metrics: dict[str, Any]) -> str:
    """The label of a metric, with the unit of the data if the metric has it."""
    has_unit = metric in ("rmse_unit", "mae_unit")
    return metric_label(metric, metrics.get("protocol", {}).get("unit") if has_unit else None)


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


def protocol_of(metrics: dict[str, Any]) -> tuple[Any, ...]:
    """Return what is equal for models evaluated on the same data with the same protocol."""
    keys = ("name", "split", "sequences", "sha256", "input_frames", "horizon")
    data = (metrics.get("data", {}).get(key) for key in keys)
    return (*data, metrics.get("protocol", {}).get("id"))


def _published(config: Config, metrics: dict[str, Any]) -> dict[str, float]:
    """The metrics of the architecture on this data set in the MS-LSTM paper."""
    if metrics["data"].get("sha256") is None:  # not the published test set
        return {}
    rows = TABLES[metrics["data"]["name"]].rows if metrics["data"]["name"] in TABLES else ()
    row = next((row for row in rows if row.architecture == config.architecture), None)
    return {metric: values[0] for metric, values in row.scores.items()} if row else {}


def _numbers(scores: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if isinstance(value, (int, float))}


def _shown(metric: str, value: float | None) -> str:
    return "" if value is None else format_score(metric, value)


def _block(text: str, block: str) -> str:
    """The content of a block, or ""."""
    begin, end = _span(text, block)
    return text[begin:end]


def _replace(text: str, block: str, content: str) -> str:
    """The text with a block's content replaced, or with the block appended."""
    mark = f"<!-- /{block} -->"
    if mark in content:
        raise HubError(f"the card's block {block} would contain {mark}, which ends it; remove it")
    begin, end = _span(text, block)
    filled = f"\n{content}\n" if content else "\n"
    if end:
        return text[:begin] + filled + text[end:]
    return f"{text.rstrip()}\n\n<!-- {block} -->{filled}{mark}\n" if content else text


def _span(text: str, block: str) -> tuple[int, int]:
    """Where the content of a block begins and ends in a text; (0, 0) without the block."""
    mark = f"<!-- {block} -->"
    first = text.find(mark)
    end = text.find(f"<!-- /{block} -->", first) if first >= 0 else -1
    # A mark before the last one is text: it begins no block.
    return (text.rfind(mark, first, end) + len(mark), end) if end >= 0 else (0, 0)
