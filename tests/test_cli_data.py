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
from click.testing import CliRunner, Result

from zoo.cli import zoo as command
from zoo.data import RemoteFile, open_dataset
from zoo.data.fetching import fetch
from zoo.errors import ZooError
from zoo.plugins import builtin


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["data", *map(str, arguments)])


def test_info() -> None:
    listed = json.loads(run("info", "--json").stdout)
    assert {*builtin().offers("datasets")} <= {*listed}
    for name in builtin().offers("datasets"):
        facts = json.loads(run("info", name, "--json").stdout)
        for key in ("title", "folder", "layout", "licence", "counts", "description"):
            assert facts[key], (name, key)
        assert ":class:" not in facts["description"]
    for name in ("dwd", "odim", "knmi", "fmi"):  # the options of the base classes as well
        text = run("info", name).stdout
        for told in ("product, where", "a, b, low_dbz, high_dbz", "test_share", "checksums"):
            assert told in text, (name, told)
    text = run("info", "taxibj").stdout
    for told in ("BJ13_M32x32_T30_InOut.h5", "1,344", "research", "test_share"):
        assert told in text
    wrong = run("info", "taxbj")
    assert wrong.exit_code == 2
    assert "did you mean taxibj" in wrong.output


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    rng = np.random.default_rng(0)
    frames = {f"p{i}": rng.integers(0, 255, (9, 8, 8), np.uint8) for i in range(5)}
    np.savez(folder / "clips.npz", **frames)
    return folder


def test_check_and_prepare(clips: Path, tmp_path: Path) -> None:
    facts = json.loads(run("check", "arrays", clips, "--frames", 4, "--json").stdout)
    assert facts["recordings"] == "5"
    assert facts["train"] == "36 frames, 24 sequences of 4"
    assert facts["missing"] == "0.0% of the values"
    output = tmp_path / "prepared"
    assert run("prepare", "arrays", clips, "-o", output, "--frames", 4).exit_code == 0
    source = open_dataset("arrays", "test", root=clips, folder=".", frames=4)
    read = open_dataset("arrays", "test", root=output, folder=".", frames=4)
    assert len(read) == len(source) == 6
    assert all((read[i] == source[i]).all() for i in range(6))
    again = run("prepare", "arrays", clips, "-o", output, "--frames", 4)
    assert again.exit_code == 2
    assert "is there already" in again.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("check", "arrays", "absent"), "there is no folder"),
        (("check", "kth", "."), "holds no clip"),
        (("check", "dwd", "."), "holds no files"),
        (("check", "arrays", "clips", "--set", "pool=99"), "more than a frame has cells"),
        (("check", "arrays", "clips", "--set", "pool"), "OPTION=VALUE"),
        (("check", "arrays", "clips", "--set", "folder=a"), "folder is no option here"),
        (("check", "arrays", "clips", "--set", "crop=3"), "crop is 3; expected a list"),
        (
            ("prepare", "arrays", "clips", "-o", "new", "--set", "test_share=0.5"),
            "test_share changes no frame, so it is not prepared; tell it when training",
        ),
        (("prepare", "mmnist", "clips", "-o", "new"), "train-images-idx3-ubyte"),
        (("fetch", "kth"), "get it from www.csc.kth.se/cvap/actions and put the six .zip"),
        (("fetch", "nothing"), "no data set is named"),
    ],
)
def test_what_a_user_can_mend(
    clips: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(clips.parent)
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert told in result.output


def test_check_of_recordings_shorter_than_a_sequence(clips: Path) -> None:
    facts = json.loads(run("check", "arrays", clips, "--json").stdout)
    assert facts["train"] == "36 frames, 36 sequences of 1"


def test_a_broken_file_is_found_by_check(clips: Path) -> None:
    path = clips / "clips.npz"
    path.write_bytes(path.read_bytes()[:-300])
    result = run("check", "arrays", clips, "--frames", 4)
    assert result.exit_code == 2
    assert f"{path}: could not be read" in result.output


CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def server() -> Iterator[Any]:
    """A server that notes what is asked for; /broken stops half-way, /other sends other bytes."""

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


def test_fetch_goes_on_where_it_broke_off(server: Any, tmp_path: Path) -> None:
    running, asked = server
    base = f"http://127.0.0.1:{running.server_port}"
    checksum = hashlib.sha256(CONTENT).hexdigest()
    broken = RemoteFile("f", (f"{base}/broken",), len(CONTENT), checksum)
    with pytest.raises(ZooError, match="could not be fetched"):
        fetch(broken, tmp_path)
    assert (tmp_path / "f.part").stat().st_size == len(CONTENT) // 2
    sound = broken._replace(urls=(f"{base}/absent-host-first", f"{base}/sound"))
    assert fetch(sound, tmp_path).read_bytes() == CONTENT
    assert asked[-1] == f"/absent-host-first bytes={len(CONTENT) // 2}-"
    count = len(asked)
    fetch(sound, tmp_path)  # it is there
    assert len(asked) == count
    assert not (tmp_path / "f.part").exists()


def test_fetch_keeps_nothing_that_is_not_what_was_published(server: Any, tmp_path: Path) -> None:
    running, _ = server
    url = f"http://127.0.0.1:{running.server_port}/other"
    file = RemoteFile("f", (url,), len(CONTENT), hashlib.md5(CONTENT).hexdigest())
    with pytest.raises(ZooError, match="the checksum is"):
        fetch(file, tmp_path)
    assert [*tmp_path.iterdir()] == []
