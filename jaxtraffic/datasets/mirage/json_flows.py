"""The JSON documents of MIRAGE, flow by flow: `{"srcip,srcport,dstip,dstport,proto": {"packet_data": ...}, ...}`.

Most of such a document is payload: bytes written as numbers, in lists of lists. That, and the lists and statistics
that no reader of ours uses, are cut out of the text before `json` sees it (by searches for the next quotation mark or
brace), and flows are decoded one at a time, so that neither time nor memory is spent on them. What stands inside what
is cut out is not judged, except that its brackets close. Bare `NaN` is accepted, as the publishers write it.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from jaxtraffic.errors import DataError

CHUNK = 1 << 20
"""Bytes read at a time."""

MAX_FLOW = 1 << 29
"""Characters of one flow at most; the longest flow published (1.7 million packets) needs about a quarter of it."""

EXPECTED = "one JSON object of biflows, as in MIRAGE"

_REMEDY = "fetch the file again from its source"
_UNUSED = (
    "L4_raw_payload", "TCP_win_size", "TCP_flags", "src_port", "dst_port", "IP_header_bytes", "L4_header_bytes",
    "is_clear", "heuristic", "annotations",
)  # fmt: skip
_UNUSED_START = re.compile(rf'"(?:({"|".join(_UNUSED)})"\s*:\s*\[|flow_features"\s*:\s*\{{)')
_OVERLAP = 64  # characters kept back, so that a key on the border of two chunks is found
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


def flows(stream: BinaryIO, where: str) -> Iterator[tuple[str, object]]:
    """Yields key and value of each flow of a document; what is not used comes empty.

    Args:
        stream: the document.
        where: its path, for messages.

    Raises:
        DataError: text that is not one JSON object, or is cut off.
    """
    pieces = _without_unused(stream, where)
    text, complete = _longer("", pieces)
    if not text.strip():
        raise DataError(where, "empty", expected=EXPECTED, remedy=_REMEDY)
    at = _SPACE.match(text).end()
    if text[at : at + 1] != "{":
        raise DataError(where, f"begins with {text[at : at + 20]!r}", expected=EXPECTED, remedy=_REMEDY)
    at, row, separator = _SPACE.match(text, at + 1).end(), 0, ","
    if text[at : at + 1] == "}":
        at, separator = at + 1, "}"
    while separator == ",":
        try:
            key, value, separator, end = _entry(text, at)
        except (ValueError, IndexError, RecursionError) as error:
            if complete or _is_hopeless(error, text):
                raise DataError(where, f"not JSON ({error})", row=row + 1, expected=EXPECTED, remedy=_REMEDY) from error
            if len(text) - at > MAX_FLOW:
                raise DataError(
                    where, f"a flow of more than {MAX_FLOW} characters", row=row + 1, expected=EXPECTED
                ) from error
            text, complete = _longer(text[at:], pieces)
            at = 0
            continue
        at, row = end, row + 1
        yield key, value
    rest = text[at:]
    while True:
        if rest.strip():
            raise DataError(where, "goes on after its end", expected=EXPECTED, remedy=_REMEDY)
        rest = next(pieces, None)
        if rest is None:
            return


def _entry(text: str, at: int) -> tuple[str, object, str, int]:
    """Key, value, what follows ("," or "}") and the position after it."""
    key, at = _DECODER.raw_decode(text, _SPACE.match(text, at).end())
    at = _SPACE.match(text, at).end()
    if not isinstance(key, str) or text[at] != ":":
        raise json.JSONDecodeError("a key and a colon are missing", text, at)
    value, at = _DECODER.raw_decode(text, _SPACE.match(text, at + 1).end())
    at = _SPACE.match(text, at).end()
    if text[at] not in ",}":
        raise json.JSONDecodeError("a comma is missing", text, at)
    return key, value, text[at], at + 1


def _is_hopeless(error: Exception, text: str) -> bool:
    """Whether no further text can mend it: the error is not at the end, where the text may only be cut off."""
    if not isinstance(error, json.JSONDecodeError):
        return not isinstance(error, IndexError)
    return error.pos < len(text) - _OVERLAP and not error.msg.startswith("Unterminated string")


def _longer(text: str, pieces: Iterator[str]) -> tuple[str, bool]:
    """The text and at least as much again, so that decoding anew stays cheap; whether it is all there is."""
    parts, wanted = [text], max(len(text), CHUNK)
    for piece in pieces:
        parts.append(piece)
        wanted -= len(piece)
        if wanted <= 0:
            return "".join(parts), False
    return "".join(parts), True


def _without_unused(stream: BinaryIO, where: str) -> Iterator[str]:
    """The text of the document in pieces, with lists that are not used cut to `[]`, statistics to `{}`."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    text, begin, complete = "", 0, False
    while not complete:
        if len(text) > MAX_FLOW:
            raise DataError(where, f"one list of more than {MAX_FLOW} characters", expected=EXPECTED)
        try:
            data = stream.read(max(CHUNK, len(text)))
            complete = not data
            text += decoder.decode(data, complete)
        except UnicodeDecodeError as error:
            raise DataError(where, f"not text ({error.reason})", expected=EXPECTED, remedy=_REMEDY) from error
        except OSError as error:
            raise DataError(where, f"cannot be read: {error.strerror or error}", remedy="check the file") from error
        at, keep = 0, max(len(text) - _OVERLAP, 0)
        while match := _UNUSED_START.search(text, begin):
            start = match.end() - 1
            end = _end_of_list(text, start, match[1], complete) if match[1] else _end_of_object(text, start, complete)
            if end is None:
                keep = match.start()
                break
            begin = match.end()
            if end:
                yield text[at:begin] + text[end - 1]
                at = begin = end
        keep = len(text) if complete else max(keep, at)
        yield text[at:keep]
        # what was searched in vain is not searched again: only a list that was left to json lies behind `begin`
        text, begin = text[keep:], max(begin - keep, 0)


def _end_of_list(text: str, start: int, name: str, complete: bool) -> int | None:
    """Position after the list that starts there; 0 where it is not a plain one, None where its end is not in the text.

    After a list of numbers, or of lists of them, the next quotation mark opens the next key, and between the two there
    is nothing but brackets, commas and space.
    """
    if name == "TCP_flags":
        end = text.find("]", start) + 1
        if not end:
            return 0 if complete else None
        inside = text[start + 1 : end - 1]
        return 0 if inside.count('"') % 2 or any(symbol in inside for symbol in "\\[{") else end
    quote = text.find('"', start)
    if quote < 0:
        return 0 if complete else None
    content = text[start:quote].rstrip("}, \t\r\n")
    closed = content.endswith("]") and content.count("[") == content.count("]")
    return start + len(content) if closed and "{" not in content and "}" not in content else 0


def _end_of_object(text: str, start: int, complete: bool) -> int | None:
    """Position after the object that starts there, whose names and texts hold no braces; None or 0 as above."""
    end, depth = start, 0
    while True:
        close = text.find("}", end) + 1
        if not close:
            return 0 if complete else None
        depth += text.count("{", end, close) - 1
        end = close
        if not depth:
            return end
