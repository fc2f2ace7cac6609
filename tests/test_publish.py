"""Publishing and pulling: over HTTP with the Hub's own client, and through folders."""

import json
import math
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hub_server import HubServer
from huggingface_hub import ModelCard

import zoo
import zoo.hub
from zoo.cli import zoo as command
from zoo.errors import HubError, NotFoundError, ZooError
from zoo.hub.card import UNWRITTEN, write_card
from zoo.hub.eval_results import write_eval_results
from zoo.hub.publish import publish
from zoo.model_folder import read_metrics

pytestmark = pytest.mark.hub

CARDS = Path(__file__).parents[1] / "cards"
ZOO = Path(sys.executable).with_name("zoo")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with HubServer(user="me") as hub:
        hub.use(monkeypatch, tmp_path / "home")
        monkeypatch.delenv("ZOO_HUB", raising=False)
        yield hub


@pytest.fixture
def folder(tmp_path):
    """A model that can be published: trained weights and a complete card."""
    target = shutil.copytree(CARDS / "convlstm-mmnist", tmp_path / "ours" / "convlstm-mine")
    write_card(target, repository="me/it")
    return target


def content(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def run(*arguments):
    return CliRunner().invoke(command, list(map(str, arguments)))


def start(*arguments, env, **options):
    """Start the command line in a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([ZOO, *map(str, arguments)], env=os.environ | env, **pipes, **options)


# To the Hub


def test_published_model_is_pulled_byte_for_byte(hub, folder):
    write_card(folder, repository="me/convlstm-mine")
    ran = run("publish", folder, "me/convlstm-mine")
    assert ran.exit_code == 0, ran.output
    assert f"{hub.url}/me/convlstm-mine" in ran.output
    assert hub.files("me/convlstm-mine") == content(folder)
    assert len(hub.commits("me/convlstm-mine")) == 2  # the Hub's own, and one for all files
    pulled = zoo.pull("hf-hub:me/convlstm-mine")
    assert content(pulled) == content(folder)
    frames = torch.rand(1, 3, 1, 16, 16)
    ours = zoo.load(f"local-dir:{folder}")
    assert torch.equal(zoo.load("hf-hub:me/convlstm-mine")(frames, 2), ours(frames, 2))


def test_model_is_pushed_and_loaded_by_its_methods(hub, folder):
    frames = torch.rand(1, 3, 1, 16, 16)
    model = zoo.load(f"local-dir:{folder}")
    with torch.no_grad():
        model.network.head.bias.add_(0.5)
    expected = model(frames, 2)
    address = model.push_to_hub("me/convlstm-mine", folder)
    assert address == f"{hub.url}/me/convlstm-mine"
    for ref in ("me/convlstm-mine", "hf-hub:me/convlstm-mine", folder, str(folder)):
        assert torch.equal(zoo.Forecaster.from_pretrained(ref)(frames, 2), expected)


def test_saved_model_is_loaded_from_its_folder(hub, tmp_path):
    model = zoo.create("convlstm", hidden=4, layers=2).eval()
    assert model.save_pretrained(tmp_path / "mine") == tmp_path / "mine"
    frames = torch.rand(1, 3, 1, 8, 8)
    loaded = zoo.Forecaster.from_pretrained(tmp_path / "mine", dtype=torch.float64)
    assert torch.allclose(loaded(frames.double(), 2).float(), model(frames, 2), atol=1e-6)
    assert zoo.Forecaster.from_pretrained("convlstm-mmnist").config.cell == "convlstm"
    assert hub.log == []


def test_model_without_a_card_is_not_pushed(hub, tmp_path):
    model = zoo.create("convlstm", hidden=4, layers=2)
    with pytest.raises(HubError, match="a card: zoo card"):
        model.push_to_hub("me/it", tmp_path / "mine")
    assert hub.repos == {}


def test_scores_for_a_leaderboard_are_published(hub, folder, tmp_path):
    (written,) = write_eval_results(folder, read_metrics(folder), "org/digits")
    name = ".eval_results/org--digits.yaml"
    assert written == folder / name
    publish(folder, "me/it")
    assert hub.files("me/it")[name] == written.read_bytes()
    assert (zoo.pull("hf-hub:me/it") / name).read_bytes() == written.read_bytes()
    for _ in range(2):  # the second time it replaces the first
        publish(folder, "convlstm-mine", hub=str(tmp_path / "shared"))
    shared = tmp_path / "shared" / "convlstm-mine" / name
    assert shared.read_bytes() == written.read_bytes()


def test_publishing_again_changes_nothing(hub, folder):
    publish(folder, "me/it")
    commits, uploads = len(hub.commits("me/it")), hub.count("PUT")
    publish(folder, "me/it")
    assert (len(hub.commits("me/it")), hub.count("PUT")) == (commits, uploads)
    path = folder / "README.md"
    path.write_text(path.read_text() + "\nOne more sentence.\n")
    publish(folder, "me/it")
    assert len(hub.commits("me/it")) == commits + 1
    assert hub.count("PUT") == uploads, "the weights were sent again"
    assert hub.files("me/it") == content(folder)


def test_dry_run_sends_nothing(hub, folder):
    ran = run("publish", folder, "me/it", "--dry-run", "--json")
    assert ran.exit_code == 0, ran.output
    report = json.loads(ran.output)
    assert (report["published"], report["address"]) == (False, "hf://me/it")
    assert report["files"] == {name: len(data) for name, data in content(folder).items()}
    assert hub.log == []


def test_only_files_of_the_model_are_published(hub, folder):
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "state.bin").write_bytes(b"x")
    (folder / "log.jsonl").write_text("{}")
    (folder / "notes.txt").write_text("mine")
    (folder / "run.json").write_text('{"command": ["at home"]}')
    (folder / ".token.md").write_text("secret")
    (folder / "plot[1].png").write_bytes(b"a picture")
    publish(folder, "me/it")
    assert set(hub.files("me/it")) == {
        *("README.md", "config.json", "demo.gif", "demo.png", "metrics.json", "model.safetensors"),
        *("recipe.toml", "plot[1].png"),
    }


@pytest.mark.parametrize("fault", ["fail_commit", "fail_lfs"])
def test_failed_upload_leaves_the_hub_unchanged(hub, folder, fault):
    hub.fail_status = 507
    setattr(hub, fault, math.inf)
    with pytest.raises(HubError, match="hf-hub:me/it") as caught:
        publish(folder, "me/it")
    assert "\n" not in str(caught.value)
    assert "me/it" not in hub.repos
    hub.add("me/it", {"README.md": b"of mine"})
    with pytest.raises(HubError, match="hf-hub:me/it"):
        publish(folder, "me/it")
    assert hub.files("me/it") == {"README.md": b"of mine"}
    setattr(hub, fault, 0)
    publish(folder, "me/it")
    assert hub.files("me/it") == content(folder)


def test_publishing_needs_a_token(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    ran = run("publish", folder, "me/it")
    assert ran.exit_code == 2
    assert "hf auth login" in ran.output
    assert "HF_TOKEN" in ran.output
    assert ran.output.count("\n") == 1
    assert hub.repos == {}


def test_unfinished_card_is_not_published(hub, folder):
    (folder / "README.md").unlink()
    write_card(folder)
    ran = run("publish", folder, "me/it")
    assert ran.exit_code == 2
    assert "--license" in ran.output
    assert "Intended use, Where it fails" in ran.output
    assert UNWRITTEN in (folder / "README.md").read_text()
    assert hub.log == []


def test_published_card_names_its_repository(hub, folder):
    write_card(folder, repository="you/other")
    publish(folder, "me/it", dry_run=True)
    assert 'zoo.load("hf-hub:you/other")' in (folder / "README.md").read_text()
    publish(folder, "me/it")
    assert b'zoo.load("hf-hub:me/it")' in hub.files("me/it")["README.md"]


@pytest.mark.parametrize(
    ("destination", "options", "expected"),
    [
        ("it", [], "'it'"),
        ("a/b/c", [], "'a/b/c'"),
        ("/it", [], "'/it'"),
        ("me/", [], "'me/'"),
        ("me/no good", [], "'me/no good'"),
        ("it", ["--hub", "hf://"], "'hf://'"),
        ("../it", ["--hub", "place"], "'../it'"),
    ],
)
def test_invalid_destination_is_an_error(
    hub, folder, tmp_path, monkeypatch, destination, options, expected
):
    monkeypatch.chdir(tmp_path)
    ran = run("publish", folder, destination, *options)
    assert ran.exit_code == 2
    assert expected in ran.output
    assert hub.repos == {}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda f: (f / "model.safetensors").write_bytes(b"PK\3\4"), "model.safetensors"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
        (lambda f: (f / "config.json").write_text('{"cell": 3}'), "cell: "),
        (lambda f: shutil.rmtree(f), "convlstm-mine"),
    ],
)
def test_invalid_model_is_not_published(hub, folder, change, expected):
    change(folder)
    ran = run("publish", folder, "me/it")
    assert ran.exit_code == 2
    assert expected in ran.output
    assert hub.log == []


@pytest.mark.parametrize("name", sorted(path.parent.name for path in CARDS.glob("*/README.md")))
def test_builtin_cards_are_valid(hub, name):
    ModelCard.load(CARDS / name / "README.md").validate()


# From the Hub, by name


@pytest.fixture
def published(hub, folder):
    """Two models of one account, and repositories that are not models of the zoo."""
    write_card(folder, repository="me/convlstm-mine")
    publish(folder, "me/convlstm-mine")
    again = shutil.copytree(CARDS / "mslstm-mmnist", folder.parent / "mslstm-ours")
    write_card(again, repository="me/mslstm-ours")
    publish(again, "me/mslstm-ours")
    hub.add("me/else", {"README.md": b"---\ntags: [other]\n---\n"})
    hub.add(
        "you/empty", {"README.md": b"---\ntags: [spatiotemporal-zoo]\n---\n", "config.json": b"{}"}
    )
    return hub


@pytest.mark.parametrize(
    ("ref", "pretrained", "name"),
    [
        ("convlstm-mine", True, "convlstm-mine"),
        ("convlstm", "mine", "convlstm-mine"),
        ("ms-mklstm-ours", True, "mslstm-ours"),
        ("ms-lstm", "ours", "mslstm-ours"),
        ("mslstm", True, "mslstm-mmnist"),  # the built-in models come first
        ("convlstm-mine@main", True, "convlstm-mine"),
    ],
)
def test_hubs_are_searched_in_order(published, monkeypatch, ref, pretrained, name):
    monkeypatch.setenv("ZOO_HUB", " hf://me ,hf://you")
    assert (
        zoo.load(ref, pretrained).config.architecture
        == zoo.model_folder.read_config(zoo.pull(ref, pretrained)).architecture
    )
    folder = zoo.pull(ref, pretrained)
    assert f"models--me--{name}" in str(folder) or folder == CARDS / name


def test_architecture_means_its_first_pretrained_model(published, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo.hub, "builtin_folder", lambda: tmp_path)
    assert "models--me--mslstm-ours" in str(zoo.pull("mslstm", hub="hf://me"))
    assert "models--me--convlstm-mine" in str(zoo.pull("convlstm", hub=["hf://you", "hf://me"]))


def test_info_shows_the_name_of_a_model_of_a_hub(published, monkeypatch):
    monkeypatch.setenv("ZOO_HUB", "hf://me")
    for ref in ("convlstm-mine", "hf-hub:me/convlstm-mine"):
        ran = run("info", ref)
        assert ran.exit_code == 0, ran.output
        assert ran.output.splitlines()[0].split() == ["name", ref]
        assert any(line.split()[1:2] == [ref] for line in ran.output.splitlines()[1:])


def test_pull_an_older_revision(published, folder):
    sha = published.commits("me/convlstm-mine")[0].sha
    path = folder / "README.md"
    path.write_text(path.read_text() + "\nLater.\n")
    publish(folder, "me/convlstm-mine")
    assert "Later." in (zoo.pull("hf-hub:me/convlstm-mine") / "README.md").read_text()
    for ref in (f"hf-hub:me/convlstm-mine@{sha}", f"hf://me/convlstm-mine@{sha}"):
        assert "Later." not in (zoo.pull(ref) / "README.md").read_text()
    with pytest.raises(ZooError, match="convlstm-mine@v9"):
        zoo.pull("hf-hub:me/convlstm-mine@v9")


def test_models_are_listed_and_searched(published):
    ran = run("list", "--hub", "hf://me", "--json")
    rows = {row["name"]: row for row in json.loads(ran.output)}
    assert set(rows) == {"convlstm-mine", "mslstm-ours"}
    assert rows["mslstm-ours"]["architecture"] == "ms-mklstm"
    assert rows["mslstm-ours"]["data"] == "mmnist"
    assert [
        row["name"] for row in json.loads(run("list", "ms*", "--hub", "hf://me", "--json").output)
    ] == ["mslstm-ours"]
    found = json.loads(run("search", "--json").output)
    assert {row["ref"] for row in found} == {
        *("hf-hub:me/convlstm-mine", "hf-hub:me/mslstm-ours", "hf-hub:you/empty"),
    }
    assert "hf-hub:me/mslstm-ours" in run("search", "mslstm").output
    assert "convlstm" not in run("search", "mslstm").output
    assert "'xyz'" in run("search", "xyz").output


def test_pull_of_an_invalid_repository_is_an_error(published):
    for ref, error, expected in (
        ("hf-hub:you/empty", HubError, "hf-hub:you/empty .*model.safetensors"),
        ("hf-hub:me/else", HubError, "hf-hub:me/else .*config.json.*model.safetensors"),
        ("hf-hub:me/nowhere", NotFoundError, "hf-hub:me/nowhere .*hf auth login"),
        ("hf-hub:nobody", ZooError, "hf-hub:nobody "),
    ):
        with pytest.raises(error, match=expected):
            zoo.pull(ref)


def test_mistyped_name_suggests_a_model_of_the_hub(published):
    with pytest.raises(NotFoundError, match=r"'convlstm-mime'.*convlstm-mine"):
        zoo.pull("convlstm-mime", hub="hf://me")


def test_unusable_hub_does_not_hide_others(published, monkeypatch):
    """Neither with an expired token, nor with another repository of that name."""
    published.add("you/convlstm-mine", {"notes.md": b"of something else"})
    assert "models--me--" in str(zoo.pull("convlstm-mine", hub=["hf://you", "hf://me"]))
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    ran = run("list", "--hub", "hf://you")
    assert ran.exit_code == 2  # nothing else is asked for
    monkeypatch.setenv("ZOO_HUB", "hf://me")
    ran = run("list", "ms-conv*", "--json")
    assert ran.exit_code == 0, ran.output
    assert "401" in ran.stderr
    assert run("pull", "mslstm-mmnist").exit_code == 0


def test_known_names_are_checked_against_their_checksums(published, tmp_path, monkeypatch):
    """A known name means its weights, wherever they are pulled from."""
    place = tmp_path / "known"
    place.mkdir()
    monkeypatch.setattr(zoo.hub, "builtin_folder", lambda: place)
    sums = {
        line.split("/")[0].split()[1]: line.split()[0] for line in (CARDS / "SHA256SUMS").open()
    }
    lines = f"{sums['convlstm-mmnist']}  convlstm-mine/model.safetensors\n"
    (place / "SHA256SUMS").write_text(lines)
    zoo.pull("convlstm-mine", hub="hf://me")
    (place / "SHA256SUMS").write_text(lines.replace("convlstm-mine", "mslstm-ours"))
    with pytest.raises(HubError, match=r"mslstm-ours.*3920b688.*SHA256SUMS"):
        zoo.load("mslstm-ours", hub="hf://me")
    assert zoo.load("hf-hub:me/mslstm-ours")  # asked for by its place


def test_checksums_match_the_builtin_weights():
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=CARDS, check=True)
    known = {line.split()[1] for line in (CARDS / "SHA256SUMS").open()}
    assert known == {f"{p.parent.name}/{p.name}" for p in CARDS.glob("*/model.safetensors")}


# When things go wrong


@pytest.mark.slow
def test_offline_pull_uses_the_cache(published, tmp_path):
    env = published.env(tmp_path / "home")
    assert start("pull", "hf-hub:me/convlstm-mine", env=env).wait() == 0
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
        for gone in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": nowhere}):
            ran = start("pull", "hf-hub:me/convlstm-mine", env=env | gone)
            out, err = ran.communicate()
            assert ran.returncode == 0, err
            assert content(out.strip()) == content(tmp_path / "ours" / "convlstm-mine")
            ran = start("pull", "mslstm-mmnist", "--hub", "hf://me", env=env | gone)
            assert ran.communicate()[0].strip() == str(CARDS / "mslstm-mmnist")
    env |= {"HF_HUB_OFFLINE": "1"}
    ran = start("pull", "convlstm-mine", "--hub", "hf://me", env=env)
    assert content(ran.communicate()[0].strip()) == content(tmp_path / "ours" / "convlstm-mine")
    ran = start("list", "--hub", "hf://me", "--json", env=env)
    assert [row["name"] for row in json.loads(ran.communicate()[0])] == ["convlstm-mine"]
    snapshot = next((tmp_path / "home").rglob("snapshots/*/config.json"))
    (snapshot.parents[4] / "models--me--bad" / "snapshots").mkdir(parents=True)
    bad = shutil.copytree(
        snapshot.parents[2], snapshot.parents[3] / "models--me--bad", True, dirs_exist_ok=True
    )
    next(bad.rglob("snapshots/*/config.json")).unlink()
    next(bad.rglob("snapshots/*")).joinpath("config.json").write_text("{}")
    ran = start("list", "--hub", "hf://me", "--json", env=env)
    out, err = ran.communicate()
    assert [row["name"] for row in json.loads(out)] == ["convlstm-mine"]
    assert "snapshots" in err
    ran = start("pull", "mslstm-ours", "--hub", "hf://me", env=env)
    _, err = ran.communicate()
    assert ran.returncode == 2
    assert "mslstm-ours" in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_two_processes_pull_at_once(published, tmp_path):
    published.slow = 0.002
    env = published.env(tmp_path / "fresh")
    both = [start("pull", "hf-hub:me/mslstm-ours", env=env) for _ in range(2)]
    for process in both:
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert content(out.strip()) == content(tmp_path / "ours" / "mslstm-ours")


@pytest.mark.slow
def test_broken_download_is_resumed(published, tmp_path):
    published.cut_after = 1_000_000
    assert content(zoo.pull("hf-hub:me/mslstm-ours")) == content(tmp_path / "ours" / "mslstm-ours")
    assert published.cut_after is None, "the connection was not broken"


@pytest.mark.slow
def test_killed_pull_leaves_no_partial_model(published, tmp_path):
    published.slow = 0.05
    env = published.env(tmp_path / "fresh")
    killed = start("pull", "hf-hub:me/mslstm-ours", env=env)
    before = published.sent
    while published.sent < before + 500_000:
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    published.slow = 0
    for arguments in (["pull", "hf-hub:me/mslstm-ours"], ["list", "--hub", "hf://me"]):
        offline = start(*arguments, env=env | {"HF_HUB_OFFLINE": "1"})
        out, err = offline.communicate()
        assert offline.returncode == 2 or "mslstm-ours" not in out
        assert "Traceback" not in err
    again = start("pull", "hf-hub:me/mslstm-ours", env=env)
    out, err = again.communicate()
    assert again.returncode == 0, err
    assert content(out.strip()) == content(tmp_path / "ours" / "mslstm-ours")


@pytest.mark.slow
def test_full_disk_leaves_no_partial_model(published, tmp_path):
    """Files cannot grow beyond a megabyte, as on a full disk."""
    env = published.env(tmp_path / "fresh")

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    full = start("pull", "hf-hub:me/mslstm-ours", env=env, preexec_fn=small_disk)
    out, err = full.communicate()
    assert (full.returncode, out) == (2, "")
    assert "mslstm-ours" in err
    assert err.count("\n") == 1
    offline = start("pull", "hf-hub:me/mslstm-ours", env=env | {"HF_HUB_OFFLINE": "1"})
    assert offline.communicate()[0] == ""
    assert offline.returncode == 2
    again = start("pull", "hf-hub:me/mslstm-ours", env=env)
    out, err = again.communicate()
    assert again.returncode == 0, err
    assert content(out.strip()) == content(tmp_path / "ours" / "mslstm-ours")


# Folders as hubs


def test_publish_to_a_folder(folder, tmp_path, monkeypatch):
    place = tmp_path / "place"
    for _ in range(2):  # publishing again replaces it with the same
        ran = run("publish", folder, "convlstm-mine", "--hub", place)
        assert ran.exit_code == 0, ran.output
        assert content(place / "convlstm-mine") == content(folder)
    assert [path.name for path in place.iterdir()] == ["convlstm-mine"]
    assert run("pull", "convlstm-mine", "--hub", place).output.strip() == str(
        place / "convlstm-mine"
    )
    rows = json.loads(run("list", "--hub", place, "--json").output)
    assert [(row["name"], row["data"], row["hub"]) for row in rows] == [
        ("convlstm-mine", "mmnist", str(place))
    ]
    rows = json.loads(run("search", "MINE", "--hub", place, "--json").output)
    assert [row["ref"] for row in rows] == [f"local-dir:{place}/convlstm-mine"]
    monkeypatch.setenv("ZOO_HUB", str(place))
    assert "convlstm-mine" in zoo.list_models(pretrained=True)
    assert zoo.load("convlstm", "mine").config.cell == "convlstm"


def test_failed_copy_leaves_the_published_model_unchanged(folder, tmp_path, monkeypatch):
    place = tmp_path / "place"
    publish(folder, "it", hub=str(place))
    before = content(place / "it")
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nMore.\n")

    copy = shutil.copyfile

    def fail(source, target):
        if source.name == "model.safetensors":
            raise OSError(28, "No space left on device")
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(ZooError, match="No space left on device"):
        publish(folder, "it", hub=str(place))
    assert content(place / "it") == before
    assert [path.name for path in place.iterdir()] == ["it"]


def test_publishing_a_model_onto_itself_is_an_error(folder):
    with pytest.raises(HubError, match="convlstm-mine"):
        publish(folder, folder.name, hub=str(folder.parent))
    assert (folder / "model.safetensors").is_file()


def test_publishing_replaces_nothing_but_a_model(folder, tmp_path):
    """Neither another folder, nor one that contains the model, nor one inside of it."""
    place = tmp_path / "shop"
    (place / "it" / "notes").mkdir(parents=True)
    (place / "it" / "notes" / "kept.txt").write_text("kept")
    before = content(folder)
    for name, hub in (("it", place), ("ours", tmp_path), ("inside", folder)):
        ran = run("publish", folder, name, "--hub", hub)
        assert ran.exit_code == 2, ran.output
        assert str(hub) in ran.output
    assert (place / "it" / "notes" / "kept.txt").read_text() == "kept"
    assert content(folder) == before
    ran = run("publish", folder, "../x", "--hub", place, "--dry-run")
    assert (ran.exit_code, "'../x'" in ran.output) == (2, True)


def test_invalid_model_does_not_hide_others(folder, tmp_path):
    place = folder.parent
    (place / "bad").mkdir()
    (place / "bad" / "model.safetensors").write_bytes(b"")
    (place / "bad" / "config.json").write_text("{")
    ran = run("list", "--hub", place, "--json")
    assert [row["name"] for row in json.loads(ran.stdout)] == ["convlstm-mine"]
    assert str(place / "bad") in ran.stderr
    ran = run("pull", "x", "--hub", tmp_path / "nowhere")
    assert ran.exit_code == 2
    assert str(tmp_path / "nowhere") in ran.output


# A server of others


@pytest.mark.skipif("ZOO_OLAH" not in os.environ, reason="ZOO_OLAH names no Python that has olah")
def test_pull_from_a_mirror_of_the_hub(folder, tmp_path):
    """olah, a self-hosted mirror, offline: a git repository becomes a repository of the Hub."""
    repository = shutil.copytree(folder, tmp_path / "mirrors" / "models" / "me" / "convlstm-mine")
    git = ["git", "-C", repository, "-c", "user.name=me", "-c", "user.email=me@localhost"]
    for step in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "A model"]):
        subprocess.run([*git, *step], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "olah.toml").write_text(
        f'[basic]\nhost = "127.0.0.1"\nport = {port}\nrepos-path = "{tmp_path}/cache"\n'
        f'mirrors-path = ["{tmp_path}/mirrors"]\n[accessibility]\noffline = true\n'
    )
    serve = [os.environ["ZOO_OLAH"], "-m", "olah.server", "-c", "olah.toml", "--log-path", "logs"]
    with (tmp_path / "olah.log").open("w") as log:
        olah = subprocess.Popen(serve, cwd=tmp_path, stdout=log, stderr=log)
    try:
        for _ in range(300):
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert olah.poll() is None, (tmp_path / "olah.log").read_text()
            time.sleep(0.1)
        env = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(tmp_path / "home")}
        ran = start("pull", "convlstm-mine", "--hub", "hf://me", env=env)
        out, err = ran.communicate()
        assert ran.returncode == 0, err
        assert content(out.strip()) == content(folder)
    finally:
        olah.terminate()
        olah.wait()
