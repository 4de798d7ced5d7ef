"""Where servers come from. `provider` gives one by name; declared.py says what each can do."""

from __future__ import annotations

from collections.abc import Callable

from labkit.errors import BadInput
from labkit.lab.providers.attach.provider import AttachProvider
from labkit.lab.providers.embedded.provider import EmbeddedProvider
from labkit.lab.providers.protocol import Provider


def _docker() -> Provider:
    # Slow to import, and only some need it.
    from labkit.lab.providers.docker.provider import ComposeProvider

    return ComposeProvider()


PROVIDERS: dict[str, Callable[[], Provider]] = {
    "embedded": EmbeddedProvider,
    "docker": _docker,
    "attach": AttachProvider,
}


def provider(name: str) -> Provider:
    """The provider of that name. Raises BadInput naming those there are."""
    try:
        return PROVIDERS[name]()
    except KeyError:
        raise BadInput(f"there is no provider {name!r}; there are: {', '.join(PROVIDERS)}") from None
