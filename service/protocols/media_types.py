"""What a body is: by its Content-Type, and for clients that send none or an unspecific one by its first sign."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Collection
from functools import lru_cache

from service.errors import UnsupportedMediaType, shorten

JSON, CSV = "application/json", "text/csv"
UNSPECIFIC = ("", "text/plain", "application/octet-stream", "application/x-www-form-urlencoded", "binary/octet-stream")
"""What clients send who do not think about it: tritonclient none, eas-prediction octets, browsers text,
curl -d a form."""


@lru_cache(maxsize=64)
def media_type(content_type: str) -> str:
    """Return a Content-Type header's media type, with every kind of JSON as `application/json`.

    Raises:
        UnsupportedMediaType: If its charset is not UTF-8.
    """
    found, *parameters = (part.strip().lower() for part in content_type.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedMediaType(f"the charset {shorten(value)!r} is not accepted; send UTF-8")
    return JSON if found.startswith("application/") and found.endswith("+json") else found


def likely_type(content_type: str, body: bytes, known: Collection[str]) -> str:
    """Return a body's media type; where the header says nothing of use, JSON or CSV by its first sign.

    Args:
        content_type: The Content-Type header, "" if absent.
        body: The body.
        known: The media types that the protocol reads.

    Raises:
        UnsupportedMediaType: If the header says another type than the known ones, or a charset that is not UTF-8.
    """
    found = media_type(content_type)
    if found in known:
        return found
    if found not in UNSPECIFIC:
        raise UnsupportedMediaType(f"{shorten(found)!r} is not accepted; send {' or '.join(known)}")
    return JSON if CSV not in known or body[:64].removeprefix(BOM_UTF8).lstrip()[:1] in (b"{", b"[", b"") else CSV
