"""Statistics: intervals, comparisons of paired rounds, and the law of scalability."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["compare", "intervals", "usl"])
