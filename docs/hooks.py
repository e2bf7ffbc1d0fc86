"""What the site takes from outside of docs/: the pages of the pipelines."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent


def on_files(files: Any, config: Any) -> Any:
    """A page for each pipeline's README."""
    for readme in sorted(ROOT.glob("pipelines/*/README.md")):
        name = f"pipelines/{readme.parent.name}.md"
        files.append(File.generated(config, name, content=readme.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links as the repository has them become links of the site; a link to a file that it has not becomes its words."""
    if page.file.src_uri.startswith("pipelines/"):
        markdown = markdown.replace("](../../docs/", "](../")
        return re.sub(r"\]\(\.\./([a-z0-9_]+)(?:/README\.md)?(#[\w-]+)?\)", r"](\1.md\2)", markdown)
    markdown = re.sub(r"\]\(\.\./pipelines/([a-z0-9_]+)(#[\w-]+)?\)", r"](pipelines/\1.md\2)", markdown)
    return re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", markdown)
