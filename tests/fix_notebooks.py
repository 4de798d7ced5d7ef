"""What an executed notebook shows."""

from __future__ import annotations

import re

import nbformat

from labkit.analysis.report import report


def figures(document: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Its figures, in order."""
    return [
        output
        for cell in document.cells
        for output in cell.get("outputs", [])
        if "image/svg+xml" in output.get("data", {})
    ]


def smallest_px(svg: str, page_px: int) -> float:
    """The smallest text of a figure as a report shows it on a page of that width."""
    found = re.search(r'width="([\d.]+)pt"', svg)
    assert found
    shown = max(page_px, report.least_width(svg)) / float(found[1])
    return shown * min(float(size) for size in re.findall(r"font(?:-size)?: ?(?:bold |italic )?([\d.]+)px", svg))
