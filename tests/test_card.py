"""Cards: what is written, what is kept, and that the figures are those of the weights."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from huggingface_hub import ModelCard, ModelCardData, parse_eval_result_entries

import zoo
from zoo.bench.cost import count
from zoo.cli import zoo as command
from zoo.data.clips import demo_clip
from zoo.errors import ZooError
from zoo.evaluate import evaluate
from zoo.hub.card import UNWRITTEN, write_card
from zoo.hub.publish import missing_from_card, publish
from zoo.metrics import FrameMetrics
from zoo.model_folder import read_config, read_metrics
from zoo.published import Task

CARDS = Path(__file__).parents[1] / "cards"
MODELS = sorted(path.parent.name for path in CARDS.glob("*/model.safetensors"))


@pytest.fixture
def folder(tmp_path):
    """A model's folder as zoo train and zoo eval leave it, without a card."""
    target = shutil.copytree(CARDS / "mslstm-mmnist", tmp_path / "place" / "mine")
    (target / "README.md").unlink()
    return target


def front_matter(folder):
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_new_card_has_every_section(folder):
    write_card(folder, "mit")
    text = (folder / "README.md").read_text()
    for section in ("Intended use", "Results", "Where it fails", "Training", "Cost", "License"):
        assert f"\n## {section}" in text
    assert text.count(UNWRITTEN) == 3
    assert 'zoo.load("mine")' in text
    for repository in ("me/mine", None):  # the second time it is known
        write_card(folder, repository=repository)
        assert 'zoo.load("hf-hub:me/mine")' in (folder / "README.md").read_text()
    assert "![input, truth, forecast and their difference](demo.png)" in text
    assert (folder / "recipe.toml").read_text().strip() in text
    metrics = read_metrics(folder)
    row = f"| MSE forecast | {metrics['forecast']['model']['mse']:.2f} | "
    assert row + f"{metrics['forecast']['persistence']['mse']:.2f} |" in text
    assert "| MSE all steps | 94.85 | 244.53 | 52.63 |" in text
    assert "arXiv 2304.07724" in text


def test_card_links_the_papers_of_its_parts(folder):
    write_card(folder, "mit")
    text = (folder / "README.md").read_text()
    links = re.findall(r"\]\(https://arxiv\.org/abs/([\d.]+)\)", text)
    assert links == ["2304.07724", "2206.03010"]  # the cell, the topology


def test_scores_for_a_leaderboard_are_as_the_client_of_the_hub_reads_them(folder, cli):
    path = folder / ".eval_results" / "org--digits.yaml"
    printed = cli.succeed("card", folder, "--license", "mit", "--benchmark", "org/digits")
    assert printed.splitlines()[-1] == str(path)
    entries = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert {entry.dataset_id for entry in entries} == {"org/digits"}
    metrics = read_metrics(folder)
    assert {entry.task_id: entry.value for entry in entries} == {
        f"{frames}-{metric}": value
        for frames in ("forecast", "all-steps")
        for metric, value in metrics[frames]["model"].items()
    }
    metrics["forecast"]["model"]["mse"] = 1.25
    (folder / "metrics.json").write_text(json.dumps(metrics))
    cli.succeed("card", folder)  # updates them
    entries = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert next(e.value for e in entries if e.task_id == "forecast-mse") == 1.25
    assert "org" in cli.fail("card", folder, "--benchmark", "org")
    path.write_text("- value: 1\n")
    assert str(path) in cli.fail("card", folder)


def test_hub_client_reads_the_metadata_back(folder):
    """The client of the Hub reads them back, every metric of both protocols among them."""
    write_card(folder, "mit")
    matter = front_matter(folder)
    assert matter["license"] == "mit"
    assert matter["library_name"] == "spatiotemporal-zoo"
    assert matter["pipeline_tag"] == "time-series-forecasting"
    assert matter["datasets"] == ["mmnist"]
    assert {"spatiotemporal-zoo", "architecture:ms-mklstm"} <= set(matter["tags"])
    card = ModelCard.load(folder / "README.md")
    metrics = read_metrics(folder)
    found = {(r.metric_name, r.metric_value) for r in card.data.eval_results}
    assert found == {
        (f"{metric.upper()} ({protocol})", value)
        for protocol in ("forecast", "all-steps")
        for metric, value in metrics[protocol]["model"].items()
    }
    assert all(result.dataset_split == "test" for result in card.data.eval_results)
    assert isinstance(card.data, ModelCardData)


def test_text_outside_the_blocks_is_preserved(folder):
    write_card(folder, "mit")
    path = folder / "README.md"
    text = path.read_text().replace(UNWRITTEN, "A person’s words, <b>with</b> 100 % and \\1.", 1)
    text = text.replace("<!-- training -->", "## Thanks\n\nTo all.\n\n<!-- training -->")
    text = text.replace("tags:\n", "tags:\n- radar\n").replace(
        "license: mit\n", "license: mit\nlanguage: en\n"
    )
    path.write_text(text + "\n## At the end\n\nMore.\n")
    metrics = read_metrics(folder)
    metrics["forecast"]["model"]["mse"] = 1.25
    (folder / "metrics.json").write_text(json.dumps(metrics))
    write_card(folder)
    again = path.read_text()
    for kept in (
        "words, <b>with</b> 100 % and \\1.",
        "## Thanks\n\nTo all.",
        "## At the end\n\nMore.",
    ):
        assert kept in again
    assert "| MSE forecast | 1.25 |" in again
    matter = front_matter(folder)
    assert "radar" in matter["tags"]
    assert (matter["license"], matter["language"]) == ("mit", "en")
    assert again.index("## Thanks") < again.index("## Training")
    write_card(folder)
    assert path.read_text() == again


def test_repository_is_read_from_the_summary_only(folder):
    write_card(folder, "mit")
    path = folder / "README.md"
    path.write_text(path.read_text().replace(UNWRITTEN, 'From `zoo.load("hf-hub:a/b")`.', 1))
    write_card(folder)
    assert 'model = zoo.load("mine")' in path.read_text()
    for wrong in ('x"y', "x", "x/y/z", "../x"):
        with pytest.raises(ZooError, match=re.escape(repr(wrong))):
            write_card(folder, repository=wrong)


def test_invalid_models_nearby_are_ignored(folder):
    for number, text in enumerate(('{"training": []}', "[]", '{"forecast": {}}', "{")):
        (folder.parent / str(number)).mkdir()
        (folder.parent / str(number) / "metrics.json").write_text(text)
    write_card(folder, "mit")
    assert "|  | mine | persistence | published |" in (folder / "README.md").read_text()


def test_card_without_blocks_is_preserved(folder):
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# My model\n\nIt is mine.\n")
    write_card(folder)
    text = (folder / "README.md").read_text()
    assert "# My model\n\nIt is mine." in text
    assert "## Results" in text
    assert front_matter(folder)["license"] == "mit"


def test_metrics_of_any_name_are_shown(folder):
    metrics = read_metrics(folder)
    for protocol in ("forecast", "all-steps"):
        for who in ("model", "persistence"):
            metrics[protocol][who]["csi@0.5"] = 0.4321
        metrics[protocol]["optical flow"] = {"mse": 7.0}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    write_card(folder, "mit")
    text = (folder / "README.md").read_text()
    assert "| mine | persistence | optical flow | published |" in text
    assert "| CSI@0.5 forecast | 0.432 | 0.432 |  |" in text


def test_command_of_the_scores_names_their_baselines(folder):
    metrics = read_metrics(folder)
    for protocol in ("forecast", "all-steps"):
        metrics[protocol] |= {"optical flow": {"mse": 7.0}, "seasonal 7d": {"mse": 6.0}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    write_card(folder, "mit")
    text = (folder / "README.md").read_text()
    assert "`zoo eval mine --optical-flow --seasonal 7d --save`" in text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda f: (f / "recipe.toml").unlink(), "recipe.toml"),
        (lambda f: (f / "metrics.json").unlink(), "'training'"),
        (lambda f: (f / "recipe.toml").write_text(""), "recipe.toml"),
        (lambda f: (f / "recipe.toml").write_text("[["), "recipe.toml"),
        (lambda f: (f / "recipe.toml").write_bytes(b"\xff"), "recipe.toml"),
        (lambda f: (f / "metrics.json").write_text("[]"), "metrics.json"),
        (lambda f: (f / "config.json").unlink(), "config.json"),
        (lambda f: (f / "README.md").write_text("---\na: [\n---\n"), "README.md"),
        (lambda f: (f / "README.md").write_text("---\nmodel-index: 3\n---\n"), "README.md"),
    ],
)
def test_invalid_folder_is_left_unchanged(folder, change, expected):
    change(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ZooError, match=re.escape(expected)) as caught:
        write_card(folder)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


# Only complete cards are published


def test_missing_from_card_lists_the_gaps_and_how_to_fix_them(folder):
    assert missing_from_card(folder) == [f"a card: zoo card {folder}"]
    write_card(folder)
    assert [problem.partition(":")[0] for problem in missing_from_card(folder)] == [
        "a license",
        "a description under Intended use, Where it fails, License and citation",
    ]
    path = folder / "README.md"
    path.write_text(path.read_text().replace(UNWRITTEN, "Said."))
    write_card(folder, "mit")
    assert missing_from_card(folder) == []
    (folder / "recipe.toml").rename(folder / "recipe.txt")
    path.write_text(path.read_text().replace("datasets:\n- mmnist\n", ""))
    assert [problem.partition(":")[0] for problem in missing_from_card(folder)] == [
        "the training data",
        "a recipe",
    ]
    metrics = read_metrics(folder)
    metrics["forecast"]["model"]["mse"] -= 10
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert "metrics.json" in missing_from_card(folder)[1]
    del metrics["forecast"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert "metrics: zoo eval" in missing_from_card(folder)[1]
    with pytest.raises(ZooError, match=r"the training data.*a recipe"):
        publish(folder, "me/mine", dry_run=True)


@pytest.mark.parametrize("name", MODELS)
def test_builtin_cards_are_complete(name):
    """Each is up to date with its figures, and says all that it must."""
    assert missing_from_card(CARDS / name) == []
    address, files = publish(CARDS / name, f"me/{name}", dry_run=True)
    assert address == f"hf://me/{name}"
    assert {file.name for file in files} - {"recipe-1.toml"} == {  # of a first stage
        *("README.md", "config.json", "demo.gif", "demo.png", "metrics.json"),
        *("model.safetensors", "recipe.toml"),
    }


@pytest.mark.parametrize("name", MODELS)
def test_builtin_cards_are_up_to_date(name, tmp_path):
    place = shutil.copytree(CARDS, tmp_path / "cards")
    write_card(place / name)
    assert (place / name / "README.md").read_text() == (CARDS / name / "README.md").read_text()


# Figures, computed again from the weights


@pytest.mark.parametrize("name", MODELS)
def test_figures_come_from_the_weights(name):
    """Parameters, multiply-accumulates, and the errors on the clip, if one comes along."""
    metrics, model = read_metrics(CARDS / name), zoo.load(name)
    cost = metrics["cost"]
    assert cost["parameters"] == sum(p.numel() for p in model.parameters())
    task = Task(tuple(cost["size"]), cost["input_frames"], cost["horizon"])
    assert cost["macs"] == sum(count(read_config(CARDS / name), task).total.macs.values())
    if "demo" not in metrics:
        return
    clip = demo_clip(model.config.data.name)
    truth = torch_frames(clip[10:])
    for who, forecast in (
        ("model", torch_frames(model.predict(clip[:10], 10))),
        ("persistence", torch_frames(clip[9:10]).expand_as(truth)),
    ):
        measured = FrameMetrics()
        measured.update(forecast, truth)
        computed = measured.compute()
        for metric, value in metrics["demo"][who].items():
            assert computed[metric] == pytest.approx(value, rel=1e-3), metric


def torch_frames(frames):
    """(T, C, H, W) of uint8 to (1, T, C, H, W) in [0, 1]."""
    import torch

    return torch.as_tensor(frames).unsqueeze(0) / 255


@pytest.mark.slow
def test_figures_of_the_test_set(data_root_with_mnist):
    """The first 64 sequences give what a mean over 10,000 allows: within a tenth of it."""
    name = "mslstm-mmnist"
    report = evaluate(zoo.load(name), sequences=64, root=data_root_with_mnist)
    metrics = read_metrics(CARDS / name)
    for protocol in ("forecast", "all-steps"):
        for who in ("model", "persistence"):
            for metric in ("mse", "mae", "ssim", "psnr"):
                value = metrics[protocol][who][metric]
                assert report[protocol][who][metric] == pytest.approx(value, rel=0.1), metric


@pytest.mark.slow
def test_saved_figures_are_added_to_those_there(folder):
    """zoo cost --save and zoo demo --save keep what else was measured."""
    before = read_metrics(folder)
    for verb in (["cost"], ["demo", "-o", folder.parent / "out"]):
        arguments = [*verb, f"local-dir:{folder}", "--save"]
        ran = CliRunner().invoke(command, list(map(str, arguments)))
        assert ran.exit_code == 0, ran.output
    after = read_metrics(folder)
    assert after["forecast"] == before["forecast"]
    assert after["cost"] == before["cost"]
    assert after["demo"]["model"]["mse"] == pytest.approx(before["demo"]["model"]["mse"], rel=1e-3)
    assert (folder / "demo.png").stat().st_size > 1000
