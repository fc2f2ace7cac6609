"""The wheel contains what is needed and nothing else, and works without the checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from fnmatch import fnmatch
from pathlib import Path
from zipfile import ZipFile

import pytest

from zoo.model_folder import PARTS

ROOT = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder]
    subprocess.run([*PIP, "wheel", *options, ROOT], check=True)
    (path,) = folder.iterdir()
    return path


def test_wheel_has_the_packages_and_their_data(wheel: Path) -> None:
    names = {Path(name) for name in ZipFile(wheel).namelist()}
    plugins = {path.name for path in (ROOT / "plugins").glob("*.py")}
    tops = {name.parts[0] for name in names if not name.parts[0].endswith(".dist-info")}
    assert tops == {"zoo", *plugins}
    assert Path("zoo/data/clips/handwritten_digits.npz") in names
    assert Path("zoo/py.typed") in names
    assert Path("zoo/openstl.csv") in names
    assert any(name.name == "LICENSE" and ".dist-info" in name.parts[0] for name in names)
    template = Path("zoo/scaffold/template")
    ours = {name for name in names if template not in name.parents}
    strays = {name for name in ours if {"__pycache__", "tests"} & set(name.parts)}
    assert not strays


def test_wheel_is_smaller_than_an_upload_may_be(wheel: Path) -> None:
    assert wheel.stat().st_size < 100e6


def test_wheel_has_cards_without_checkpoints(wheel: Path) -> None:
    cards = {Path(n) for n in ZipFile(wheel).namelist() if n.startswith("zoo/_cards/")}
    cards.remove(Path("zoo/_cards/SHA256SUMS"))
    assert {name.parts[2] for name in cards} == {
        path.name for path in (ROOT / "cards").iterdir()
    } - {"SHA256SUMS", "results.csv"}
    for name in cards:
        assert len(name.parts) == 4, name
        assert any(fnmatch(name.name, part) for part in PARTS), name


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; dependencies come from the running environment."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    options = ["--no-deps", "--no-index"]
    subprocess.run([*PIP, "--python", python, "install", *options, wheel], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # This adds the folder only: its .pth files, which would lead to the checkout, are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def run(environment: Path, *arguments: str) -> str:
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ZOO_"))}
    command = [environment / "bin" / arguments[0], *arguments[1:]]
    ran = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_installed_wheel_lists_its_plugins_and_models(installed: Path) -> None:
    script = "import zoo, zoo_convlstm; print(zoo.__file__, zoo_convlstm.__file__, sep='\\n')"
    for path in run(installed, "python", "-c", script).splitlines():
        assert Path(path).is_relative_to(installed)
    plugins = json.loads(run(installed, "zoo", "plugins", "--json"))
    assert {plugin["module"].partition(":")[0] for plugin in plugins} >= {
        path.stem for path in (ROOT / "plugins").glob("*.py")
    }
    assert not any(plugin["error"] for plugin in plugins)
    names = {model["name"] for model in json.loads(run(installed, "zoo", "list", "--json"))}
    assert names >= {"ms-mklstm", *(p.parent.name for p in ROOT.glob("cards/*/model.safetensors"))}


@pytest.mark.skipif(
    not (ROOT / "cards" / "mslstm-mmnist" / "model.safetensors").is_file(),
    reason="the default model of zoo demo is not in cards/",
)
def test_installed_demo_beats_persistence(installed: Path) -> None:
    folder = Path(run(installed, "zoo", "pull", "mslstm-mmnist").strip())
    assert folder.is_relative_to(installed)
    errors = json.loads(run(installed, "zoo", "demo", "--json"))["forecast"]
    assert errors["model"]["mse"] < errors["persistence"]["mse"]
    assert (installed / "zoo-demo" / "demo.gif").stat().st_size > 0


TRAINING = """
import torch, zoo

for name in ("mycell", "ms-mycell"):
    torch.manual_seed(0)
    model = zoo.create(name, hidden=4, layers=3)
    frames = torch.rand(2, 4, 1, 8, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(3):
        loss = (model(frames[:, :-1], horizon=1) - frames[:, 1:]).square().mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
    zoo.save(model, name)
    assert torch.equal(zoo.load(f"local-dir:{name}")(frames, 2), model.eval()(frames, 2))
    print(name, zoo.load(f"local-dir:{name}").config.plugin)
"""


def test_third_party_plugin_is_created_installed_used_and_removed(
    installed: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run(installed, "zoo", "new", "zoo-mycell")
    project = installed / "zoo-mycell"
    wheels = tmp_path_factory.mktemp("plugin")
    build = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", wheels]
    subprocess.run([*PIP, "wheel", *build, project], check=True)
    (wheel,) = wheels.iterdir()
    assert {Path(name).parts[0] for name in ZipFile(wheel).namelist()} == {
        "zoo_mycell.py",
        "zoo_mycell-0.1.0.dist-info",
    }
    install = ["--python", installed / "bin" / "python", "install", "--no-deps", "--no-index"]
    subprocess.run([*PIP, *install, wheel], check=True)

    models = json.loads(run(installed, "zoo", "list", "*mycell", "--json"))
    assert [model["name"] for model in models] == ["ms-mycell", "mycell"]
    assert run(installed, "python", "-c", TRAINING).splitlines() == [
        f"{name} distribution='zoo-mycell' version='0.1.0'" for name in ("mycell", "ms-mycell")
    ]
    run(installed, "python", "-m", "pytest", "-q", str(project / "tests"), "-k", "learns or saved")
    uninstall = ["--python", installed / "bin" / "python", "uninstall", "--yes", "zoo-mycell"]
    subprocess.run([*PIP, *uninstall], check=True)
    assert json.loads(run(installed, "zoo", "list", "*mycell", "--json")) == []
    for name in ("mycell", "ms-mycell"):
        command = [installed / "bin" / "zoo", "cost", f"local-dir:{installed / name}"]
        gone = subprocess.run(command, capture_output=True, text=True, cwd=installed)
        assert gone.returncode == 2
        assert gone.stderr.startswith("Error: ")
        assert gone.stderr.count("\n") == 1
        assert "'mycell'" in gone.stderr
        assert "pip install zoo-mycell==0.1.0" in gone.stderr
