"""What pyproject.toml cannot say: a package index shows no relative pictures and follows no relative links.

A build that knows the repository's public address, in REPOSITORY_URL, writes it before README's pictures and links.
"""

import os
import re
from pathlib import Path

from setuptools import setup

PAPER = "https://arxiv.org/abs/2501.11949"
RELATIVE = re.compile(r"(!?)(\[[^\]]*\]\()(?!https?:|#)([^)]+\))")  # a picture has the exclamation mark


def absolute(text: str, address: str) -> str:
    """README's text with whole addresses: a picture's is that of its file, a link's that of the page that shows it."""
    return RELATIVE.sub(lambda m: f"{m[1]}{m[2]}{address}/{'raw' if m[1] else 'blob'}/main/{m[3]}", text)


readme, address = Path("README.md").read_text(encoding="utf-8"), os.environ.get("REPOSITORY_URL", "").rstrip("/")
setup(
    long_description=absolute(readme, address) if address else readme,
    long_description_content_type="text/markdown",
    project_urls={"Paper": PAPER, **({"Repository": address, "Issues": f"{address}/issues"} if address else {})},
)
