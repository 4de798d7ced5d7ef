"""Tables as pandas writes them in HTML: how wide a page shows them, and which of their cells are sentences."""

from __future__ import annotations

import re
from html import unescape

_LETTER_PX, _BOLD_PX, _PADDING_PX = 7.5, 8.5, 14  # of the style sheet's tables
_SENTENCE_PX = 70  # what the style sheet leaves a sentence in a table of words
_SENTENCE, _WORD = 30, 20  # letters: an interval with its middle is shorter, and a word that may not break


def width(page: str) -> int:
    """About how many pixels wide the tables of a page are shown at least; 0 if it holds none.

    Numbers do not break; headings, the names of rows and a table of words break between words, sentences as they must.
    """
    return max((_width(table) for table in re.findall(r"<table.*?</table>", page, re.DOTALL)), default=0)


def _width(table: str) -> int:
    words = re.match(r"<table[^>]*\bwords\b", table) is not None
    most: dict[int, float] = {}
    for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL):
        cells = [(kind, _text(inside)) for kind, inside in re.findall(r"<(t[hd])[^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
        # A name that spans rows stands in the first of them: later rows are counted from their end.
        for place, (kind, text) in enumerate(reversed(cells)):
            needed: float
            if words and kind == "td" and _is_sentence(text) and _longest_word(text) > _WORD:
                needed = _SENTENCE_PX
            elif words or kind == "th":
                needed = _longest_word(text) * (_BOLD_PX if kind == "th" else _LETTER_PX) + _PADDING_PX
            else:
                needed = min(len(text), _SENTENCE) * _LETTER_PX + _PADDING_PX
            most[place] = max(most.get(place, 0.0), needed)
    return round(sum(most.values()))


def with_sentences(page: str) -> str:
    """The page with a class for cells that hold a sentence, so that these may break."""
    return re.sub(r"<td>(.*?)</td>", _marked, page, flags=re.DOTALL)


def _marked(cell: re.Match[str]) -> str:
    text = _text(cell[1])
    if not _is_sentence(text):
        return cell[0]
    return f'<td class="sentence{" path" * (_longest_word(text) > _WORD)}">{cell[1]}</td>'


def _is_sentence(text: str) -> bool:
    return len(text) > _SENTENCE and re.search(r"[a-z]{4}", text) is not None


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)


def _text(inside: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", inside)).strip()
