"""Untrusted hubs: whatever a server answers, an error of one line or the model, and no more."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Cli
from hub_server import HubServer, Reply
from test_untrusted_runs import no_hang

import zoo
from zoo.errors import HubError, ZooError
from zoo.hub import download
from zoo.hub.places import Folder

pytestmark = pytest.mark.hub

CARDS = Path(__file__).parents[1] / "cards"
MODEL = {
    name: (CARDS / "convlstm-mmnist" / name).read_bytes()
    for name in ("config.json", "model.safetensors", "README.md")
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with HubServer() as hub:
        hub.use(monkeypatch, tmp_path / "home", token=False)
        monkeypatch.delenv("ZOO_HUB", raising=False)
        hub.add("me/model", MODEL)
        yield hub


def refused(cli: Cli, tmp_path: Path) -> str:
    """The error of a pull that writes nothing outside the cache."""
    before = {path for path in tmp_path.rglob("*") if tmp_path / "home" not in path.parents}
    with no_hang():
        error = cli.fail("pull", "hf-hub:me/model")
    after = {path for path in tmp_path.rglob("*") if tmp_path / "home" not in path.parents}
    assert after - before <= {tmp_path / "home"}
    assert error.isprintable()
    assert len(error) < 600
    return error


@pytest.mark.parametrize(
    "name",
    ["../evil.md", "../../../evil.md", "/evil.md", "docs/notes.md", "a\nb.md", "run.py", "x.pkl"],
)
def test_files_that_are_no_parts_of_a_model_are_not_downloaded(hub, tmp_path, name):
    hub.add("me/model", {name: b"evil"})
    folder = zoo.pull("hf-hub:me/model")
    assert {path.name for path in folder.rglob("*")} == {*MODEL}
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "evil" in path.name]


@pytest.mark.parametrize(
    "files",
    [
        {"readme.md": b"collides with README.md"},
        {f"{number}.md": b"" for number in range(1000)},
        {"README.md": b" " * (5 << 20)},
        {"metrics.json": b" " * (5 << 20)},
        {"recipe.toml": b" " * (5 << 20)},
    ],
    ids=["collision", "thousand files", "huge README", "huge metrics", "huge recipe"],
)
def test_listing_that_is_not_of_a_model_is_refused(hub, tmp_path, cli, files):
    hub.add("me/model", files)
    assert "hf-hub:me/model" in refused(cli, tmp_path)
    assert hub.count("GET", "/resolve/") == 0


def with_header(name: str, value: str) -> Callable[[str, Reply], Reply]:
    def alter(path: str, reply: Reply) -> Reply:
        return reply._replace(headers={**reply.headers, name: value}) if reply.is_file else reply

    return alter


def with_body(part: str, body: bytes) -> Callable[[str, Reply], Reply]:
    return lambda path, reply: reply._replace(body=body) if part in path else reply


def with_commit(path: str, reply: Reply) -> Reply:
    if "/api/models/" not in path or "/tree/" in path:
        return reply
    return reply._replace(body=json.dumps({**json.loads(reply.body), "sha": "../../x"}).encode())


def redirected(address: str) -> Callable[[str, Reply], Reply]:
    return lambda path, reply: Reply(302, b"", {"Location": address})


HOSTILE_ANSWERS = {
    "tag above the cache": with_header("X-Linked-ETag", '"../../../../evil"'),
    "absolute tag": with_header("X-Linked-ETag", '"/tmp/evil"'),
    "commit above the cache": with_header("X-Repo-Commit", "../../evil"),
    "commit in the listing": with_commit,
    "wrong size": with_header("X-Linked-Size", "12"),
    "nothing": with_body("/api/", b""),
    "nested": with_body("/api/", b"[" * 100_000),
    "HTML": with_body("/api/", b"<html>" * 1000),
    "odd listing": with_body("/api/", b'{"id": 3, "siblings": [1]}'),
    "odd tree": with_body("/tree/", b'[{"type": "file", "path": 3, "size": "x", "oid": []}]'),
    "other file": with_body("/resolve/", b"\x1b[31m"),
    "redirect to a file": redirected("file:///etc/passwd"),
    "redirect to FTP": redirected("ftp://127.0.0.1/x"),
    "redirect to nobody": redirected("http://127.0.0.1:1/x"),
    "endless redirects": redirected("/"),
    "redirect nowhere": redirected("\x1b[31m"),
}


@pytest.mark.parametrize("alter", HOSTILE_ANSWERS.values(), ids=HOSTILE_ANSWERS)
def test_hostile_answer_is_an_error_of_one_line(hub, tmp_path, cli, alter):
    hub.alter = alter
    refused(cli, tmp_path)


@pytest.mark.parametrize("part", ["/api/models", "/tree/", "config.json", "model.safetensors"])
def test_endless_answer_is_cut_off(hub, tmp_path, cli, monkeypatch, part):
    monkeypatch.setattr(download, "LARGEST_ANSWER", 1 << 20)
    hub.endless = part
    refused(cli, tmp_path)
    kept = [path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(kept) < 4 * len(MODEL["model.safetensors"])


@pytest.mark.parametrize("part", ["/api/models", "config.json"])
def test_answer_that_trickles_is_given_up(hub, tmp_path, cli, monkeypatch, part):
    monkeypatch.setattr(download, "PATIENCE", 0.5)
    hub.endless, hub.slow = part, 0.1
    refused(cli, tmp_path)


def test_search_of_a_hostile_hub_prints_no_control_characters(hub, cli):
    def alter(path: str, reply: Reply) -> Reply:
        model = {"id": "me/\x1b[31mred", "tags": ["architecture:\x1b]0;x\x07", "dataset:a\nb"]}
        return reply._replace(body=json.dumps([model]).encode())

    hub.alter = alter
    for arguments in (
        ["search", "x"],
        ["search", "--hub", "hf://me"],
        ["list", "--hub", "hf://me"],
    ):
        shown = cli.succeed(*arguments)
        assert "\x1b" not in shown
        assert "\x07" not in shown


def test_link_in_a_hub_is_not_published_through(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "mine.png").write_bytes(b"mine")
    place = tmp_path / "hub"
    place.mkdir()
    (place / "model").symlink_to(tmp_path / "outside")
    with pytest.raises(HubError, match="link"):
        Folder(place).publish(CARDS / "convlstm-mmnist", "model", [])
    assert (tmp_path / "outside" / "mine.png").read_bytes() == b"mine"


def test_hostile_names_are_errors_of_one_line(hub, cli):
    for name in ("hf-hub:", "hf-hub:a/b/c", "hf-hub:../x", "hf-hub:a b/c", "hf-hub:me/model@../x"):
        with pytest.raises(ZooError) as raised:
            zoo.pull(name)
        assert str(raised.value).isprintable()
        assert cli.fail("pull", name)
