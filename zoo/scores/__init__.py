"""Metrics that plugins offer, by name. The usual metrics are in :mod:`zoo.metrics`."""

from __future__ import annotations

from zoo.errors import ConfigError, did_you_mean
from zoo.plugins import Plugin, find, names
from zoo.scores.metric import Metric

__all__ = ["Metric", "create_metric", "find_metric"]


def find_metric(name: str) -> tuple[type[Metric], Plugin] | None:
    """Find the metric of that name and its plugin; None if there is none.

    Raises:
        PluginError: if two plugins claim the name, or what is offered is not a metric.
    """
    return find("metrics", name, _is_metric, "a Metric")


def create_metric(name: str) -> Metric:
    """Create a metric with its default options.

    Raises:
        ConfigError: if there is no metric of that name.
    """
    found = find_metric(name)
    if found is None:
        known = names("metrics")
        raise ConfigError(
            f"no metric is named {name!r}{did_you_mean(name, known)}; available: {', '.join(known)}"
        )
    return found[0]()


def _is_metric(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Metric)
