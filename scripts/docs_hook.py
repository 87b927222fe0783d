# SPDX-License-Identifier: Apache-2.0
"""What mkdocs needs to make a site of pages that lie all over the repository and link to each other and to its files.

README.md is the site's first page; the other pages outside of docs/ keep their paths. A link to a page goes to that page
of the site; one to anything else (a source file, a folder) goes to the forge where mkdocs.yml says `repo_url`, and is
plain text where not.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "sdk/README.md",
           "sdk/ABI.md"]
LINK = re.compile(r"(!?)\[((?:[^\]\[]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
CODE = re.compile(r"^(```.*?^```|(?: {4}|\t).*?$)|(`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def pages():
    """{path in the repository: path in the site} of all pages."""
    paths = [*OUTSIDE, *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("plugins/*/FORMAT.md")))]
    out = {path: path for path in paths} | {"README.md": "index.md"}
    return out | {f"docs/{path.name}": path.name for path in (ROOT / "docs").glob("*.md")}


def on_files(files, config):
    for path, uri in pages().items():
        if not path.startswith("docs/"):
            files.append(File.generated(config, uri, content=(ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown, page, config, files):
    del files
    sites = pages()
    here = next(path for path, uri in sites.items() if uri == page.file.src_uri)

    def rewritten(link):
        bang, text, target = link.groups()
        path, _, anchor = target.partition("#")
        if not path or "://" in target or target.startswith("mailto:"):
            return link[0]
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
        picture = wanted[len("docs/"):] if wanted.startswith("docs/") and (ROOT / wanted).suffix == ".svg" else None
        if wanted in sites or picture:
            to = posixpath.relpath(picture or sites[wanted], posixpath.dirname(page.file.src_uri) or ".")
            return f"{bang}[{text}]({to}{'#' + anchor if anchor else ''})"
        if not (ROOT / wanted).exists():
            raise ValueError(f"{here}: expected a link to a file of the repository, found {target}")
        return f"{bang}[{text}]({config.repo_url.rstrip('/')}/blob/main/{wanted})" if config.repo_url else text

    # Indented code and code spans have no links.
    parts, end = [], 0
    for code in CODE.finditer(markdown):
        if code[1]:
            parts += [LINK.sub(rewritten, markdown[end:code.start()]), code[0]]
            end = code.end()
    return "".join([*parts, LINK.sub(rewritten, markdown[end:])])
