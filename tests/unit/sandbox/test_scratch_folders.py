"""Scratch folders: one lock per sandbox, orphans removed, whatever lies in them."""

from __future__ import annotations

import glob
from pathlib import Path

from voicethere.adapters.sandbox.scratch import ScratchRoot


async def test_folders_are_private_and_go(tmp_path: Path) -> None:
    root = ScratchRoot(tmp_path / "deep" / "scratch")
    await root.open()
    first, second = root.new(), root.new()
    assert first != second
    assert first.stat().st_mode & 0o777 == 0o700
    assert first.parent.stat().st_mode & 0o777 == 0o700
    (first / "file").write_text("x")
    await root.remove(first)
    await root.remove(first)
    assert not first.exists()
    await root.aclose()
    assert list((tmp_path / "deep" / "scratch").glob("sandbox-*")) == []
    await root.aclose()


async def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    root = ScratchRoot(tmp_path / "scratch")
    await root.open()
    folder = root.new()
    (folder / "link").symlink_to(outside, target_is_directory=True)
    (folder / "inner").mkdir()
    (folder / "inner" / "dangling").symlink_to(tmp_path / "nowhere")
    await root.remove(folder)
    assert not folder.exists()
    assert (outside / "kept").exists()
    await root.aclose()


async def test_orphans_go_and_the_living_stay(tmp_path: Path) -> None:
    living = ScratchRoot(tmp_path)
    await living.open()
    (living.new() / "file").write_text("x")
    locked_no_more = tmp_path / "sandbox-locked-no-more"
    (locked_no_more / "1").mkdir(parents=True)
    (locked_no_more / ".lock").touch()
    never_locked = tmp_path / "sandbox-never-locked"
    never_locked.mkdir()
    not_ours = tmp_path / "something-else"
    not_ours.mkdir()
    successor = ScratchRoot(tmp_path)
    await successor.open()
    assert not locked_no_more.exists()
    assert not never_locked.exists()
    assert not_ours.exists()
    assert len(glob.glob(f"{tmp_path}/sandbox-*/1/file")) == 1
    await successor.aclose()
    await living.aclose()
