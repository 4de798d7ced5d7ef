"""Tables and pages: what a reader of a run sees."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["report", "sentences", "tables"])
