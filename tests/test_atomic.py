"""Atomic writes: files appear complete, and only after they have reached the disk."""

import os
import stat

import pytest

from zoo import atomic
from zoo.atomic import atomic_folder, atomic_path
from zoo.errors import ZooError


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """The calls of os.fsync and os.replace in order, with names relative to tmp_path.

    Temporary names are written as "temporary".
    """
    recorded = []
    fsync, replace = os.fsync, os.replace

    def name(path):
        parts = os.path.relpath(path, tmp_path).split(os.sep)
        return "/".join("temporary" if p.startswith(".") and p != "." else p for p in parts)

    def record_fsync(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        content = (
            os.pread(descriptor, 100, 0) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
        )
        recorded.append(("fsync", name(path), content.decode()))
        fsync(descriptor)

    def record_replace(source, target):
        recorded.append(("replace", name(source), name(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    return recorded


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
class TestOrderOfCalls:
    def test_file_is_synced_before_and_its_folder_after_the_rename(self, tmp_path, calls):
        with atomic_path(tmp_path / "file.txt") as temporary:
            temporary.write_text("complete")
            assert calls == []
        assert calls == [
            ("fsync", "temporary", "complete"),
            ("replace", "temporary", "file.txt"),
            ("fsync", ".", ""),
        ]

    def test_every_part_of_a_folder_is_synced_before_the_rename(self, tmp_path, calls):
        with atomic_folder(tmp_path / "model") as temporary:
            (temporary / "deep").mkdir()
            (temporary / "deep" / "a").write_text("one")
            (temporary / "b").write_text("two")
            (temporary / "link").symlink_to("nowhere")
            assert calls == []
        before, after = calls[:-2], calls[-2:]
        assert sorted(before[:-1]) == [
            ("fsync", "temporary/b", "two"),
            ("fsync", "temporary/deep", ""),
            ("fsync", "temporary/deep/a", "one"),
        ]
        assert before[-1] == ("fsync", "temporary", "")
        assert after == [("replace", "temporary", "model"), ("fsync", ".", "")]

    def test_old_folder_is_removed_only_when_the_new_one_is_on_the_disk(
        self, tmp_path, calls, monkeypatch
    ):
        (tmp_path / "model").mkdir()
        rmtree = atomic.shutil.rmtree

        def record_rmtree(path, **options):
            calls.append(("rmtree", os.path.exists(path)))
            rmtree(path, **options)

        monkeypatch.setattr(atomic.shutil, "rmtree", record_rmtree)
        with atomic_folder(tmp_path / "model") as temporary:
            (temporary / "new").write_text("new")
        assert calls[1:] == [
            ("fsync", "temporary", ""),
            ("replace", "model", "temporary"),
            ("replace", "temporary", "model"),
            ("fsync", ".", ""),
            ("rmtree", True),  # the old folder
            ("rmtree", False),  # the temporary name, now the model
        ]

    def test_nothing_is_renamed_if_the_block_raises(self, tmp_path, calls):
        for write in (atomic_path, atomic_folder):
            with pytest.raises(KeyboardInterrupt), write(tmp_path / "it"):
                raise KeyboardInterrupt
        assert calls == []


@pytest.mark.parametrize("write", [atomic_path, atomic_folder])
def test_failed_sync_leaves_the_old_content(tmp_path, monkeypatch, write):
    def fail(descriptor):
        raise OSError(5, "Input/output error")

    def fill(temporary):
        (temporary if write is atomic_path else temporary / "file").write_text("new")

    path = tmp_path / "it"
    with write(path) as temporary:
        fill(temporary)
    before = path.stat().st_ino
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ZooError, match="Input/output error"), write(path) as temporary:
        fill(temporary)
    assert path.stat().st_ino == before
    assert list(tmp_path.iterdir()) == [path]


def test_pipe_is_not_replaced_by_a_folder(tmp_path):
    os.mkfifo(tmp_path / "it")
    with pytest.raises(ZooError, match="it is a file"), atomic_folder(tmp_path / "it"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


@pytest.mark.parametrize("write", [atomic_path, atomic_folder])
def test_next_write_removes_stale_leftovers_of_the_same_target_only(tmp_path, write):
    """Stale is a day old: a younger temporary path may belong to a running process."""
    unfinished = [write(tmp_path / name) for name in ("it", "it", "other")]
    temporaries = [manager.__enter__() for manager in unfinished]
    if write is atomic_path:
        for path in temporaries:
            path.write_text("half")
    stale, young, other = temporaries
    for path in (stale, other):
        os.utime(path, (0, 0))
    with write(tmp_path / "it") as temporary:
        if write is atomic_path:
            temporary.write_text("complete")
    assert not stale.exists()
    assert young.exists()
    assert other.exists()
    assert (tmp_path / "it").exists()
