"""Files: whole or not at all, nothing through links, and reading that ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from glamkit.errors import GlamkitError
from glamkit.runs import files
from glamkit.runs.log import Log


def test_a_file_is_replaced_at_once_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.replace_text(path, "one")
    files.replace_text(path, "zwei\u2028")
    assert path.read_text() == "zwei\u2028"

    def half(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    with pytest.raises(GlamkitError, match=r"file cannot be written: No space left on device; what was saved before"):
        files.replace(path, half)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["zwei\u2028"]
    with pytest.raises(GlamkitError, match="cannot be written: No such file or directory"):
        files.replace_text(tmp_path / "nowhere" / "file", "")
    synced = []
    monkeypatch.setattr(os, "fsync", lambda n: synced.append((os.fstat(n).st_ino, path.with_name("file.tmp").exists())))
    files.replace_text(path, "three")
    assert synced == [(path.stat().st_ino, True), (tmp_path.stat().st_ino, False)]  # the file's contents, then its name


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    for name in ("file", "file.tmp"):
        (tmp_path / name).symlink_to(outside)
    files.replace_text(tmp_path / "file", "new")
    assert (outside.read_text(), (tmp_path / "file").read_text()) == ("mine", "new")
    assert not (tmp_path / "file").is_symlink()


def test_only_plain_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "link", "folder"):
        with pytest.raises(GlamkitError, match="is not a plain file"):
            files.read_bytes(tmp_path / name)
    with pytest.raises(GlamkitError, match="cannot be read: No such file"):
        files.read_bytes(tmp_path / "nothing")
    (tmp_path / "long").write_bytes(b"x" * 11)
    with pytest.raises(GlamkitError, match="has 11 bytes, and no such file of a run has more than 10"):
        files.read_bytes(tmp_path / "long", 10)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_what_is_no_json(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(GlamkitError, match=r"x\.json cannot be read: [^\n]+\.$"):
        files.read_json(tmp_path / "x.json")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_log_on_a_full_disk() -> None:
    log = Log(Path("/dev/full"))
    with pytest.raises(GlamkitError, match="/dev/full cannot be written: No space left on device; what was saved"):
        log.write(1, "log", {"x": 1.0})
