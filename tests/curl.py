"""As much of curl as README.md uses, for machines that have none: `curl URL [-H HEADER]... [-d BODY]`."""

from __future__ import annotations

import argparse
import sys
import urllib.request


def main() -> None:
    """Send one request and print the answer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("-d")
    said = parser.parse_args()
    headers = dict(header.split(": ", 1) for header in said.H)
    request = urllib.request.Request(said.url, said.d.encode() if said.d else None, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        sys.stdout.buffer.write(answer.read())


if __name__ == "__main__":
    main()
