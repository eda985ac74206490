"""The documentation site, from the pages of the repository: ``make docs``."""

import importlib.metadata

from sphinx.application import Sphinx

project = "mining"
author = "The authors of mining"
release = importlib.metadata.version("mining")
extensions = [
    "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_external_toc",
]  # fmt: skip
# Pages are taken from where GitHub shows them, so that links are the same there and here.
include_patterns = ["*.md", "docs/*.md", "docs/reference/*.rst", "analysis/criteria.md"]
external_toc_path = "docs/_toc.yml"
html_theme = "furo"
html_title = f"mining {release}"
templates_path = ["_templates"]
html_additional_pages = {"index": "redirect.html"}
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "description"


def keep_bars(_app: Sphinx, *rest: object) -> None:
    """Read |λ| in docstrings as an absolute value, not as a substitution."""
    lines = rest[-1]
    assert isinstance(lines, list)
    for number, line in enumerate(lines):
        parts = line.split("``")  # every second one is code
        parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
        lines[number] = "``".join(parts)


def setup(app: Sphinx) -> None:
    """Register what differs from the defaults of Sphinx."""
    app.connect("autodoc-process-docstring", keep_bars)
