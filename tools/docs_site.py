"""What mkdocs does beside its own: pages that lie outside docs/ are part of the site, and links lead to them.

The repository's own files stay where its code host shows them: README.md is the site's first page, and results of
benchmarks and walks through clusters lie beside what they tell of. What is no page at all is named, without a link.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
RENAMED = {"README.md": "index.md", "README.es.md": "es.md"}
"""Pages of the repository's root by their place in the site."""
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
OTHERS = ("http://", "https://", "mailto:")


def outside() -> dict[str, str]:
    """Pages outside docs/, by their path in the repository; what they are called in the site."""
    found = [
        *ROOT.glob("*.md"),
        *ROOT.glob("benchmarks/**/*.md"),
        ROOT / "cluster/README.md",
        ROOT / "raylora/demo/README.md",
    ]
    paths = [path.relative_to(ROOT).as_posix() for path in sorted(found)]
    return {path: RENAMED.get(path, path) for path in paths}


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages outside docs/, and the pictures that they show."""
    for source, place in outside().items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=text))
        for link in LINK.finditer(text):
            picture = _resolved(source, link["target"])
            if link["image"] and not picture.startswith("docs/") and (ROOT / picture).is_file():
                files.append(File.generated(config, picture, abs_src_path=str(ROOT / picture)))
    return files


def on_page_markdown(markdown: str, page: Any, **more: Any) -> str:
    """Leads a page's links to where their targets are in the site."""
    places = {place: source for source, place in outside().items()}
    return relinked(markdown, page.file.src_uri, places.get(page.file.src_uri, f"docs/{page.file.src_uri}"))


def relinked(markdown: str, place: str, source: str) -> str:
    """The text with links as the site needs them.

    Args:
        place: the page's path in the site.
        source: its path in the repository.
    """

    def lead(link: re.Match[str]) -> str:
        if link["target"].startswith(OTHERS):
            return link[0]
        target = place_of(_resolved(source, link["target"]), bool(link["image"]))
        if target is None:
            return f"{link['text']} (`{_resolved(source, link['target'])}`)"
        way = posixpath.relpath(target, posixpath.dirname(place) or ".")
        return f"{link['image']}[{link['text']}]({way}{link['anchor'] or ''})"

    return LINK.sub(lead, markdown)


def place_of(path: str, is_picture: bool) -> str | None:
    """Where a file of the repository is in the site; None where it is not."""
    if path.startswith("docs/") or is_picture:
        return path.removeprefix("docs/")
    pages = outside()
    return pages.get(path) or pages.get(f"{path.rstrip('/')}/README.md")


def _resolved(source: str, target: str) -> str:
    """A link's target as a path in the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
