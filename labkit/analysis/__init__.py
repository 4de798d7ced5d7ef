"""The reading side: a run directory becomes frames, figures, verdicts and pages, with no server at all."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["frames", "plots", "report", "statistics"])
