"""Build the site: pages from templates, exported models, clips and the runtime."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.clips import CLIPS, demo_clip
from zoo.errors import ConfigError, ZooError
from zoo.exporting.export import export
from zoo.exporting.onnx_model import OnnxForecaster
from zoo.hub import load
from zoo.hub.card import read_card
from zoo.progress import progress_bar
from zoo.site.assets import copy_runtime
from zoo.site.catalog import Entry, read_entry, score_tables

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["build_site"]

HERE = Path(__file__).parent
PICTURE = "demo.gif"  # of a model folder


def build_site(
    folder: Path,
    models: Mapping[str, Path],
    *,
    runtime: Path | None = None,
    docs: Path | None = None,
    plugins: Path | None = None,
) -> None:
    """Write a static site that any web server can host.

    Args:
        folder: Output folder. Files of an earlier site are replaced.
        models: Folders of the models to show, by name.
        runtime: Folder ``dist`` of the npm package onnxruntime-web; by default npm downloads it.
        docs: The built documentation, to include in the site.
        plugins: The plugin directory, a file plugins.toml.

    Raises:
        ConfigError: If the runtime, the documentation or the plugin directory is invalid.
        ZooError: If a model cannot be loaded or exported.
    """
    if docs is not None and not (docs / "index.html").is_file():
        raise ConfigError(f"{docs} has no index.html; build the documentation first")
    listed = _read_plugins(plugins) if plugins else []
    entries = [read_entry(name, path) for name, path in models.items()]
    folder.mkdir(parents=True, exist_ok=True)
    copy_runtime(folder / "onnxruntime", runtime)
    _copy_static(folder)
    samples = _write_samples(folder / "samples")
    shown: list[dict[str, Any]] = []
    with progress_bar("exporting", len(entries)) as update:
        for done, entry in enumerate(entries, 1):
            place = folder / "models" / entry.name
            place.mkdir(parents=True, exist_ok=True)
            if (entry.folder / PICTURE).is_file():
                shutil.copyfile(entry.folder / PICTURE, place / PICTURE)
            if entry.runs_in_browsers:
                shown.append(_export_model(place, entry, samples))
            update(done)
    if docs is not None:
        shutil.copytree(docs, folder / "docs", dirs_exist_ok=True)
    _write_pages(folder, entries, shown, listed, has_docs=docs is not None)


def _read_plugins(file: Path) -> list[dict[str, Any]]:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        return [dict(plugin) for plugin in table["plugin"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is not a plugin directory: {error}") from None


def _copy_static(folder: Path) -> None:
    """Copy scripts and styles; the service worker's cache has the version of the files."""
    from zlib import crc32

    files = sorted((HERE / "static").iterdir())
    version = f"{crc32(b''.join(file.read_bytes() for file in files)):08x}"
    for file in files:
        text = file.read_text(encoding="utf-8")
        (folder / file.name).write_text(text.replace("VERSION", version), encoding="utf-8")


def _write_samples(folder: Path) -> list[dict[str, str]]:
    """Write the clips that come with the zoo, as arrays."""
    folder.mkdir(exist_ok=True)
    samples = []
    for dataset, clip in CLIPS.items():
        np.save(folder / f"{dataset}.npy", clip())
        title = clip.__name__.replace("_", " ")
        samples.append({"title": title, "file": f"samples/{dataset}.npy", "dataset": dataset})
    return samples


def _export_model(folder: Path, entry: Entry, samples: list[dict[str, str]]) -> dict[str, Any]:
    """Export a model, and return what the page that runs models needs to know of it."""
    step = folder / "step.onnx"
    model = load(f"local-dir:{entry.folder}")
    export(model, step, name=entry.name, license=entry.license or None)
    description = OnnxForecaster(step).description
    (folder / "description.json").write_text(description.model_dump_json(), encoding="utf-8")
    cost, data = entry.metrics.get("cost", {}), entry.config.data
    steps = cost.get("input_frames", 10) + cost.get("horizon", 10) - 1
    fitting = demo_clip(entry.config.data.name)
    # The clip that resembles the training data comes first.
    ordered = sorted(samples, key=lambda s: not np.array_equal(CLIPS[s["dataset"]](), fitting))
    return {
        "name": entry.name,
        "input_frames": data.input_frames or 10,
        "horizon": data.horizon or 10,
        "size": data.size,
        "parameters": entry.parameters,
        "macs": f"{cost['macs'] / steps / 1e9:.2f} G" if "macs" in cost else "unknown",
        "bytes": f"{step.stat().st_size / 1e6:.1f} MB",
        "samples": ordered,
    }


def _write_pages(
    folder: Path,
    entries: Sequence[Entry],
    shown: list[dict[str, Any]],
    plugins: list[dict[str, Any]],
    *,
    has_docs: bool,
) -> None:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )

    def write(page: Path, template: str, title: str, **values: Any) -> None:
        root = "../" * (len(page.relative_to(folder).parts) - 1)
        text = templates.get_template(template).render(
            title=title, root=root, has_docs=has_docs, **values
        )
        page.write_text(text, encoding="utf-8")

    filters = {
        "dataset": sorted({entry.dataset for entry in entries}),
        "cell": sorted({entry.cell for entry in entries}),
        "topology": sorted({entry.topology for entry in entries}),
    }
    tables = score_tables(entries)
    write(folder / "index.html", "index.html", "Models", filters=filters, tables=tables)
    write(folder / "try.html", "try.html", "Try a model", models=shown)
    write(folder / "plugins.html", "plugins.html", "Plugins", plugins=plugins)
    for entry in entries:
        page = folder / "models" / entry.name / "index.html"
        picture = PICTURE if (page.parent / PICTURE).is_file() else None
        write(page, "model.html", entry.name, entry=entry, picture=picture, card=_card(entry))


def _card(entry: Entry) -> Any:
    """The card of a model as HTML. Markup in it is shown, not interpreted."""
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    try:
        text = read_card(entry.folder).text
    except ZooError:
        return Markup()
    text = re.sub(r"<!-- /?\w+ -->\n?", "", text)  # the borders of generated blocks
    text = re.sub(r"^!\[[^\]]*\]\([^)]*\)$", "", text, flags=re.MULTILINE)  # shown above
    text = re.sub(rf"^# {re.escape(entry.name)}$", "", text, flags=re.MULTILINE)
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    return Markup(
        html.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    )
