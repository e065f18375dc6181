"""Bundles: what is one, and what is said of what is none."""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicethere.core.bundle import BundleLimits, InvalidBundle, read_bundle

AGENT = b"from voicethere.agent import define_agent\n"


def zipped(files: dict[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def with_entry(info: zipfile.ZipInfo, content: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("agent.py", AGENT)
        archive.writestr(info, content)
    return buffer.getvalue()


def problem(data: bytes, **options) -> str:
    with pytest.raises(InvalidBundle) as caught:
        read_bundle(data, **options)
    words = str(caught.value)
    assert words.isprintable()
    assert len(words) < 500
    return words


def test_one_file_becomes_agent_py_whatever_its_name():
    bundle = read_bundle(AGENT, filename="my_bot.py")
    assert dict(bundle.files) == {"agent.py": AGENT}
    assert bundle.checksum == hashlib.sha256(AGENT).hexdigest()


def test_a_byte_order_mark_is_python_too():
    assert read_bundle(b"\xef\xbb\xbf" + AGENT).files["agent.py"].endswith(AGENT)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_keeps_its_files_and_folders(method):
    data = zipped({"agent.py": AGENT, "talk/": b"", "talk/words.py": b"", "data/ö.bin": b"\0\1"}, method)
    bundle = read_bundle(data, filename="bot.zip")
    assert dict(bundle.files) == {"agent.py": AGENT, "talk/words.py": b"", "data/ö.bin": b"\0\1"}
    assert bundle.checksum == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("data", "filename", "words"),
    [
        (b"", None, "the bundle is empty: send one .py file, or a .zip"),
        (b" \n\t", "a.py", "'a.py' holds nothing but white space"),
        (b"print('\xe9')", "a.py", "'a.py' is not UTF-8 text (byte 7 is 0xe9): a bundle is one .py file"),
        (b"x = 1\0", "a.py", "'a.py' has NUL bytes, so it is no Python source"),
        ("x = 1".encode("utf-16"), None, "the bundle looks like UTF-16: save it as UTF-8"),
        (AGENT, "a.zip", "'a.zip' is named .zip but is no zip archive"),
        (b"\x1f\x8b\x08\x00rest", "a.tar.gz", "'a.tar.gz' has NUL bytes"),
        (b"PK\x03\x04" + b"rest" * 20, None, "damaged (its end is missing): upload the whole file"),
        (b"\xff\n", "evil\x1b[2J\n.py", "is not UTF-8"),
    ],
)
def test_what_is_no_bundle_is_told_what_would_be(data, filename, words):
    assert words in problem(data, filename=filename)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no agent.py at its top"),
        ({"a.py": AGENT, "b.py": b""}, "the file that calls define_agent(...) must be named so"),
        ({"bot.py": AGENT}, "rename 'bot.py' to agent.py"),
        ({"Agent.py": AGENT}, "'Agent.py' must be named agent.py"),
        ({"foo/agent.py": AGENT}, "but 'foo/agent.py': zip what is in 'foo', not the folder itself"),
        ({"agent.py": b"\xff"}, "agent.py is not UTF-8 text"),
        ({"agent.py": b"\0"}, "agent.py has NUL bytes"),
        ({"agent.py": b""}, "agent.py holds nothing but white space: it must call define_agent(...)"),
        ({"agent.py": AGENT, "../evil.py": b""}, "'../evil.py', which leads out of the bundle"),
        ({"agent.py": AGENT, "a/../../evil.py": b""}, "leads out of the bundle"),
        ({"agent.py": AGENT, "/etc/passwd": b""}, "the absolute path '/etc/passwd'"),
        ({"agent.py": AGENT, "C:/evil.py": b""}, "the absolute path 'C:/evil.py'"),
        ({"agent.py": AGENT, "a\\b.py": b""}, "write / between its parts, not a backslash"),
        ({"agent.py": AGENT, "./a.py": b""}, "a path is names with / between them"),
        ({"agent.py": AGENT, "a//b.py": b""}, "a path is names with / between them"),
        ({"agent.py": AGENT, "a\x1b[31m.py": b""}, "characters that cannot be printed"),
        ({"agent.py": AGENT, "a" * 201: b""}, "a path that is too long"),
        ({"agent.py": AGENT, "/".join(["a" * 100] * 6): b""}, "a path that is too long"),
        ({"agent.py": AGENT, "a/" * 21 + "b": b""}, "more than 20 folders deep"),
        ({"agent.py": AGENT, "a": b"", "a/b": b""}, "'a' both as a file and as a folder"),
        ({"agent.py": AGENT, "agent.py/x": b""}, "'agent.py' both as a file and as a folder"),
    ],
)
def test_what_is_wrong_in_a_zip_is_named(files, words):
    assert words in problem(zipped(files))


def test_a_name_is_not_cut_at_a_nul_byte():
    data = zipped({"agent.py": AGENT, "innocent.pyXevil": b""}).replace(b"innocent.pyX", b"innocent.py\0")
    assert "characters that cannot be printed" in problem(data)


def test_a_file_twice_is_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("agent.py", AGENT)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("agent.py", b"another")
    assert "'agent.py' twice" in problem(buffer.getvalue())


@pytest.mark.parametrize(
    ("kind", "words"),
    [(stat.S_IFLNK, "the symbolic link 'link'"), (stat.S_IFIFO, "'link', which is no ordinary file")],
)
def test_only_ordinary_files_are_taken(kind, words):
    info = zipfile.ZipInfo("link")
    info.external_attr = (kind | 0o777) << 16
    assert words in problem(with_entry(info, b"/etc/passwd"))


def test_an_encrypted_file_is_refused():
    data = bytearray(zipped({"agent.py": AGENT}, zipfile.ZIP_STORED))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert "'agent.py' in the zip is encrypted" in problem(bytes(data))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(method):
    assert "use deflate" in problem(zipped({"agent.py": AGENT}, method))


def test_a_damaged_file_is_told():
    data = bytearray(zipped({"agent.py": AGENT}, zipfile.ZIP_STORED))
    data[data.index(b"define_agent")] ^= 1
    assert "damaged (Bad CRC-32 for file 'agent.py')" in problem(bytes(data))


def test_zip64_is_refused_before_its_directory_is_read():
    data = zipped({"agent.py": AGENT})
    end = data.rindex(b"PK\x05\x06")
    assert "zip64" in problem(data[:end] + b"PK\x06\x07" + b"\0" * 16 + data[end:])


def test_sizes_are_limited_as_counted():
    limits = BundleLimits(packed_bytes=4000, unpacked_bytes=5000, files=3)
    assert "has 4001 bytes; at most 4000 bytes are taken" in problem(b"#" * 4001, limits=limits)
    bomb = zipped({"agent.py": AGENT, "zeros": b"\0" * 5000})
    assert "unpacks to more than 5000 bytes" in problem(bomb, limits=limits)
    many = zipped({"agent.py": AGENT, "a": b"", "b": b"", "c": b""})
    assert "more than 3 files" in problem(many, limits=limits)
    flood = zipped({str(n): b"" for n in range(7)} | {"agent.py": AGENT})
    assert "the zip has 8 entries; at most 3 files are taken" in problem(flood, limits=limits)


def test_a_bomb_that_lies_about_its_size_is_no_larger_than_it_says():
    data = bytearray(zipped({"agent.py": AGENT, "zeros": b"\0" * 100_000}))
    size = (100_000).to_bytes(4, "little")
    lie = (10).to_bytes(4, "little")
    assert data.count(size) == 2
    words = problem(bytes(data.replace(size, lie)), limits=BundleLimits(unpacked_bytes=50_000))
    assert "damaged" in words or "unpacks to more" in words


def test_the_default_limits_hold():
    assert "10.0 MiB" in problem(b"#" * (10 * 1024 * 1024 + 1))
    assert "unpacks to more than 50.0 MiB" in problem(
        zipped({"agent.py": AGENT, "z": bytes(51 * 1024 * 1024)})
    )


def is_bundle_or_told_why_not(data: bytes) -> bool:
    try:
        bundle = read_bundle(data)
    except InvalidBundle as error:
        return 10 < len(str(error)) < 500
    return "agent.py" in bundle.files


@given(st.binary(max_size=400))
def test_no_bytes_make_it_raise_anything_else(data):
    for start in (b"", b"PK\x03\x04", b"PK\x05\x06"):
        assert is_bundle_or_told_why_not(start + data)


@given(st.data())
def test_no_damage_to_a_zip_makes_it_raise_anything_else(data):
    damaged = bytearray(zipped({"agent.py": AGENT, "a/b.txt": b"some text" * 20}))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    assert is_bundle_or_told_why_not(bytes(damaged))
