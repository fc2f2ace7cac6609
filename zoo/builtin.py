"""What the zoo itself provides, besides the cells and heads in plugins of their own.

It uses the hooks that every plugin uses. Values are names, ``"module:attribute"``, so that
finding one object imports only its module.
"""

from __future__ import annotations

from zoo.openstl import checkpoints
from zoo.plugins import Pretrained, hookimpl


@hookimpl
def zoo_topologies() -> dict[str, str]:
    """Offer the topologies. An architecture ``ms-<cell>`` is its cell in `mirror`."""
    return {
        name: f"zoo.topology:{name}" for name in ("stack", "mirror", "noskip", "unet3plus", "full")
    }


@hookimpl
def zoo_heads() -> dict[str, str]:
    """Offer the default head; the others are plugins."""
    return {"frame": "zoo.head:FrameHead"}


@hookimpl
def zoo_datasets() -> dict[str, str]:
    """Offer the data sets."""
    return {
        "mmnist": "zoo.data.mmnist:MovingMNIST",
        "kth": "zoo.data.video:KTH",
        "taxibj": "zoo.data.traffic:TaxiBJ",
        "dwd": "zoo.data.radar:DWD",
        "odim": "zoo.data.radar:ODIM",
        "knmi": "zoo.data.radar:KNMI",
        "fmi": "zoo.data.radar:FMI",
        "meteonet": "zoo.data.radar:MeteoNet",
        "grids": "zoo.data.radar:Grids",
        "mixed": "zoo.data.mixed:Mixed",
        "video": "zoo.data.video:Video",
        "arrays": "zoo.data.arrays:Arrays",
    }


@hookimpl
def zoo_losses() -> dict[str, str]:
    """Offer the training losses."""
    return {
        "pixelwise": "zoo.losses.pixelwise:Pixelwise",
        "facl": "zoo.losses.facl:FACL",
        "gradient": "zoo.losses.gradient:GradientDifference",
        "crps": "zoo.losses.crps:AlmostFairCRPS",
    }


@hookimpl
def zoo_metrics() -> dict[str, str]:
    """Offer the metrics that are measured on request."""
    return {
        "sharpness": "zoo.scores.sharpness:Sharpness",
        "spectral_error": "zoo.scores.spectrum:SpectralError",
    }


@hookimpl
def zoo_dialects() -> dict[str, str]:
    """Offer the dialects of foreign checkpoints."""
    return {
        "msrnn": "zoo.convert.msrnn:translate",
        "openstl": "zoo.convert.openstl:openstl",
        "predrnn": "zoo.convert.openstl:predrnn",
    }


@hookimpl
def zoo_pretrained() -> dict[str, Pretrained]:
    """Offer checkpoints of other projects. The zoo's own models are not here but in cards/."""
    return checkpoints()


@hookimpl
def zoo_commands() -> dict[str, str]:
    """Offer the commands of the command line."""
    return {
        "bench": "zoo.cli.bench:bench",
        "card": "zoo.cli.card:card",
        "check": "zoo.cli.check:check",
        "compare": "zoo.cli.compare:compare",
        "convert": "zoo.cli.convert:convert",
        "cost": "zoo.cli.cost:cost",
        "data": "zoo.cli.data:data",
        "demo": "zoo.cli.demo:demo",
        "eval": "zoo.cli.eval:eval_",
        "export": "zoo.cli.export:export",
        "info": "zoo.cli.info:info",
        "inspect": "zoo.cli.inspect:inspect_",
        "list": "zoo.cli.list:list_",
        "new": "zoo.cli.new:new",
        "plugins": "zoo.cli.plugins:plugins",
        "predict": "zoo.cli.predict:predict",
        "publish": "zoo.cli.publish:publish",
        "pull": "zoo.cli.pull:pull",
        "runs": "zoo.cli.runs:runs",
        "search": "zoo.cli.search:search",
        "site": "zoo.cli.site:site",
        "train": "zoo.cli.train:train",
        "verify": "zoo.cli.verify:verify",
    }
