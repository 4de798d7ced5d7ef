"""What JupyterLab does with the folder of the original notebooks: it opens and runs them, and saves nothing there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from tornado.web import HTTPError

from labkit import paths


class Originals(AsyncLargeFileManager):
    """Jupyter's files, with the originals read-only, whatever the file system allows (as root it allows all)."""

    def is_writable(self, path: str) -> bool:
        """Whether JupyterLab may save there; where not, it neither tries nor saves by itself."""
        return not self._is_original(path) and bool(super().is_writable(path))  # type: ignore[no-untyped-call]

    async def save(self, model: dict[str, Any], path: str = "") -> dict[str, Any]:
        """Raises HTTPError 403 for an original."""
        if self._is_original(path):
            raise HTTPError(403, f"{path} is an original: batch runs and reports use it. Work in {_own()}/ instead.")
        saved: dict[str, Any] = await super().save(model, path)  # type: ignore[no-untyped-call]
        return saved

    def _is_original(self, path: str) -> bool:
        place = Path(self.root_dir, path.strip("/")).resolve()
        return paths.notebooks().resolve() in place.parents


def _own() -> str:
    return paths.own_notebooks().name
