"""Labels and digits of metrics, and Markdown tables."""

import pytest

from zoo.tables import format_score, markdown_table, metric_label, metrics_in


@pytest.mark.parametrize(
    ("metric", "unit", "label"),
    [
        ("mse", None, "MSE"),
        ("b_mse", "mm/h", "B-MSE"),
        ("psnr", None, "PSNR"),
        ("psnr", "mm/h", "PSNR / dB"),
        ("rmse_unit", "mm/h", "RMSE / mm/h"),
        ("csi@2", None, "CSI@2"),
        ("csi@2", "mm/h", "CSI ≥ 2 mm/h"),
        ("fss@0.5/9", "mm/h", "FSS ≥ 0.5 mm/h, 9 px"),
    ],
)
def test_labels_have_units_if_given(metric: str, unit: str | None, label: str) -> None:
    assert metric_label(metric, unit) == label


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("mse", 117.935, "117.94"),
        ("mse", 0.19912, "0.1991"),
        ("ssim", 0.7433, "0.743"),
        ("csi@2", None, "–"),
    ],
)
def test_digits_depend_on_the_metric(metric: str, value: float | None, text: str) -> None:
    assert format_score(metric, value) == text


def test_columns_are_the_main_metrics_and_skill_scores() -> None:
    scores = ["gdl", "psnr", "mse", "rmse_unit", "csi@2", "far@2", "fss@2/9"]
    assert metrics_in(scores, ["csi"]) == ["mse", "psnr", "rmse_unit", "csi@2"]


def test_markdown_table() -> None:
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |"
