"""The languages in which names of users can be made."""

from __future__ import annotations

from typing import Literal, get_args

Locale = Literal["en_US", "ru_RU", "de_DE", "fr_FR", "es_ES", "pl_PL", "uk_UA", "pt_BR", "it_IT", "cs_CZ"]
LOCALES: tuple[Locale, ...] = get_args(Locale)
