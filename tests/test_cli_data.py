"""zoo data: info, check, prepare, fetch."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli

from zoo.data import RemoteFile, dataset_names, open_dataset
from zoo.data.fetching import fetch
from zoo.errors import DataError


def test_info_lists_and_describes_every_data_set(cli: Cli) -> None:
    assert {*json.loads(cli.succeed("data", "info", "--json"))} >= {*dataset_names()}
    for name in dataset_names():
        facts = json.loads(cli.succeed("data", "info", name, "--json"))
        for key in ("title", "folder", "layout", "license", "counts", "description"):
            assert facts[key], (name, key)
        assert ":class:" not in facts["description"]


@pytest.mark.parametrize("name", ["dwd", "odim", "knmi", "fmi"])
def test_info_includes_the_options_of_base_classes(name: str, cli: Cli) -> None:
    text = cli.succeed("data", "info", name)
    for option in ("product:", "a, b, low_dbz, high_dbz:", "test_share", "checksums"):
        assert option in text, option
    assert "Attributes" not in text


def test_info_shows_layout_counts_and_licence(cli: Cli) -> None:
    text = cli.succeed("data", "info", "taxibj")
    for fact in ("BJ13_M32x32_T30_InOut.h5", "1,344", "research", "test_share", "flow"):
        assert fact in text


def test_info_suggests_a_similar_name(cli: Cli) -> None:
    assert "did you mean taxibj" in cli.fail("data", "info", "taxbj")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    rng = np.random.default_rng(0)
    frames = {f"p{i}": rng.integers(0, 255, (9, 8, 8), np.uint8) for i in range(5)}
    np.savez(folder / "clips.npz", **frames)
    return folder


def test_check_prints_what_the_files_contain(clips: Path, cli: Cli) -> None:
    printed = cli.succeed("data", "check", "arrays", clips, "--frames", 4, "--json")
    facts = json.loads(printed)
    assert facts["recordings"] == "5"
    assert facts["train"] == "36 frames, 24 sequences of 4"
    assert facts["missing"] == "0.0% of the values"


def test_check_and_prepare_find_the_folder_in_the_data_root(
    clips: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    clips.rename(root / "arrays")
    facts = json.loads(cli.succeed("data", "check", "arrays", "--data-dir", root, "--json"))
    assert facts["recordings"] == "5"
    monkeypatch.setenv("ZOO_DATA", str(root))
    assert json.loads(cli.succeed("data", "check", "arrays", "--json")) == facts
    cli.succeed("data", "prepare", "arrays", "-o", tmp_path / "out", "--frames", 4)
    assert (tmp_path / "out" / "frames.npy").is_file()
    assert str(root / "kth") in cli.fail("data", "check", "kth")


def test_prepared_data_have_the_sequences_of_their_source(
    clips: Path, tmp_path: Path, cli: Cli
) -> None:
    output = tmp_path / "prepared"
    cli.succeed("data", "prepare", "arrays", clips, "-o", output, "--frames", 4)
    source = open_dataset("arrays", "test", root=clips, folder=".", frames=4)
    read = open_dataset("arrays", "test", root=output, folder=".", frames=4)
    assert len(read) == len(source) == 6
    assert all((read[i] == source[i]).all() for i in range(6))
    assert str(output) in cli.fail("data", "prepare", "arrays", clips, "-o", output)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("check", "arrays", "absent"), "absent"),
        (("check", "kth", "."), "walking, jogging, running"),
        (("check", "dwd", "."), "raa01-*"),
        (("check", "arrays", "clips", "--set", "pool=99"), "pool is 99"),
        (("check", "arrays", "clips", "--set", "folder=a"), "FOLDER"),
        (("check", "arrays", "clips", "--set", "crop=3"), "crop"),
        (("prepare", "arrays", "clips", "-o", "new", "--set", "test_share=0.5"), "test_share"),
        (("prepare", "mmnist", "clips", "-o", "new"), "train-images-idx3-ubyte"),
        (("fetch", "kth"), "get it from www.csc.kth.se/cvap/actions and put the six .zip"),
        (("fetch", "nothing"), "'nothing'"),
    ],
)
def test_errors_of_the_user_are_one_line(
    clips: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], named: str
) -> None:
    monkeypatch.chdir(clips.parent)
    assert named in cli.fail("data", *arguments)


def test_an_option_without_a_value_is_rejected(clips: Path, cli: Cli) -> None:
    result = cli("data", "check", "arrays", clips, "--set", "pool")
    assert result.exit_code == 2
    assert "OPTION=VALUE" in result.output


def test_check_reads_recordings_shorter_than_a_sequence(clips: Path, cli: Cli) -> None:
    facts = json.loads(cli.succeed("data", "check", "arrays", clips, "--json"))
    assert facts["train"] == "36 frames, 36 sequences of 1"


def test_check_names_a_corrupt_file(clips: Path, cli: Cli) -> None:
    path = clips / "clips.npz"
    path.write_bytes(path.read_bytes()[:-300])
    assert str(path) in cli.fail("data", "check", "arrays", clips, "--frames", 4)


CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def server() -> Iterator[Any]:
    """A server that logs requests; /broken stops half-way, /other sends other bytes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        asked: list[str] = []  # noqa: RUF012

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            self.asked.append(f"{self.path} {wanted}")
            first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            body = CONTENT[first:] if self.path != "/other" else CONTENT[::-1][first:]
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if self.path == "/broken" else body)

        def log_message(self, *_: Any) -> None:
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running, Handler.asked
    running.shutdown()
    running.server_close()


@pytest.mark.hub
def test_fetch_resumes_a_broken_download(server: Any, tmp_path: Path) -> None:
    running, asked = server
    base = f"http://127.0.0.1:{running.server_port}"
    checksum = hashlib.sha256(CONTENT).hexdigest()
    broken = RemoteFile("f", (f"{base}/broken",), len(CONTENT), checksum)
    with pytest.raises(DataError, match=r"/broken.*128,000 of 256,000"):
        fetch(broken, tmp_path)
    assert (tmp_path / "f.part").stat().st_size == len(CONTENT) // 2
    sound = broken._replace(urls=(f"{base}/absent-host-first", f"{base}/sound"))
    assert fetch(sound, tmp_path).read_bytes() == CONTENT
    assert asked[-1] == f"/absent-host-first bytes={len(CONTENT) // 2}-"
    count = len(asked)
    fetch(sound, tmp_path)  # it exists
    assert len(asked) == count
    assert not (tmp_path / "f.part").exists()


@pytest.mark.hub
def test_fetch_deletes_a_file_with_another_checksum(server: Any, tmp_path: Path) -> None:
    running, _ = server
    url = f"http://127.0.0.1:{running.server_port}/other"
    file = RemoteFile("f", (url,), len(CONTENT), hashlib.md5(CONTENT).hexdigest())
    with pytest.raises(DataError, match=file.checksum):
        fetch(file, tmp_path)
    assert [*tmp_path.iterdir()] == []
