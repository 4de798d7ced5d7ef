"""Text of figures, wherever they are drawn: none is set smaller than what a narrow page can show."""

from __future__ import annotations

import ast

import pytest

from labkit import paths
from labkit.analysis.plots import style
from labkit.analysis.words import SMALL_PT, SMALL_PX

DRAWING = [path for path in sorted((paths.home() / "labkit").rglob("*.py")) if "matplotlib" in path.read_text("utf-8")]


@pytest.mark.parametrize("path", DRAWING, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_text_is_set_smaller(path) -> None:
    set_here = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.keyword)]
    for node in set_here:
        if node.arg in ("fontsize", "size") and isinstance(node.value, ast.Constant):
            assert node.value.value >= SMALL_PT, f"{path.name}:{node.value.lineno}"


def test_the_sizes_that_all_figures_begin_with_are_readable_at_400_px() -> None:
    sizes = [value for name, value in style._SETTINGS.items() if name.endswith(("size", "fontsize"))]
    assert len(sizes) == 6
    assert min(sizes) == SMALL_PT
    assert SMALL_PT * 400 / (72 * style.WIDTH_IN) >= SMALL_PX
