"""The docs site is built with warnings as errors; its links lead somewhere; it loads nothing foreign."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[3]

# Each builds the whole site: seconds of work, and minutes where a machine has other things to do.
pytestmark = pytest.mark.timeout(300)


def build(out: Path, config: Path = ROOT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(out)],
        # The theme's notice about a coming version is no warning of the build; it goes past its log.
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs") / "site"
    done = build(out)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return out


class Page(HTMLParser):
    """What a page links to, what it loads, and the anchors in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.anchors.add(given["id"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and "href" in given:
            self.loads.append(given["href"])
        elif "src" in given:
            self.loads.append(given["src"])


def pages(site: Path) -> dict[Path, Page]:
    # 404.html is served for any path: its links are absolute.
    return {path: Page(path.read_text()) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_link_leads_somewhere(site: Path) -> None:
    found = pages(site)
    assert len(found) > 30
    lost = []
    for path, page in found.items():
        for link in (*page.links, *page.loads):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                lost.append(f"{path.name}: {link}")
            elif parts.fragment and target in found and unquote(parts.fragment) not in found[target].anchors:
                lost.append(f"{path.name}: {link} (no such anchor)")
    assert lost == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    foreign = [
        link
        for page in pages(site).values()
        for link in page.loads
        if urlsplit(link).scheme or urlsplit(link).netloc
    ]
    assert foreign == []
    for style in site.rglob("*.css"):
        assert "url(http" not in style.read_text()
        assert "@import" not in style.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [("[lost](nowhere.md)", "nowhere.md"), ("[lost](tutorial.md#nowhere)", "nowhere"), (None, "stray.md")],
    ids=["link", "anchor", "page that is not in the navigation"],
)
def test_a_mistake_fails_the_build(tmp_path: Path, words: str | None, said: str) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "docs_hooks.py", tmp_path / "tools")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    if words is None:
        (tmp_path / "docs" / "stray.md").write_text("# Stray\n")
    else:
        with (tmp_path / "docs" / "index.md").open("a") as page:
            page.write(f"\n{words}\n")
    done = build(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert done.returncode != 0
    assert said in done.stderr


def test_long_codes_may_break_behind_an_underscore(site: Path) -> None:
    page = (site / "errors" / "IDLE_TIMEOUT_CALLBACK_FAILED.html").read_text()
    assert ">IDLE_<wbr>TIMEOUT_<wbr>CALLBACK_<wbr>FAILED<" in page
    assert "<title>IDLE_TIMEOUT_CALLBACK_FAILED - VoiceThere</title>" in page
