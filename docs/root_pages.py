"""Puts pages of the repository, such as its README, on the documentation site, with links that hold there."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PAGES = {
    "README.md": "index.md",
    "checkpoints/starter/README.md": "starter.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, beside which stands there what is in `docs` here."""
    for name, page in PAGES.items():
        text = (Path(config.config_file_path).parent / name).read_text(encoding="utf-8")
        text = re.sub(r"([\[(])docs/", r"\1", text)
        for other, target in PAGES.items():
            text = text.replace(f"]({other})", f"]({target})")
        files.append(File.generated(config, page, content=text))
    return files
