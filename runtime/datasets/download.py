"""Downloads: a file gets its final name only when it is complete and verified."""

from __future__ import annotations

import os
import tempfile
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import IO, Any

from runtime.datasets.dataset import Report
from runtime.errors import RuntimeUserError, quoted

TIMEOUT = 30  # seconds without an answer
CHUNK = 1 << 20  # bytes between two lines of progress


class HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never to an address without encryption."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, path: str, largest: int, verify: Callable[[str], None], report: Report) -> None:
    """Downloads `url` to `path` through a temporary file in the same folder.

    `verify` gets the path of the complete temporary file and raises if it is not the expected one. Nothing remains
    after a failure, and two processes that fetch the same file do not disturb each other. Raises OSError for problems
    of the network or the disk, and RuntimeUserError for more than `largest` bytes or an address without https.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    name = os.path.basename(path)
    with (
        open_url(url) as response,
        tempfile.NamedTemporaryFile(
            dir=os.path.dirname(path), prefix=f".{name}.", suffix=".part", delete=False
        ) as part,
    ):
        try:
            _copy(response, part, largest, lambda size: report(f"downloading {name}: {size / 2**20:.1f} MiB"))
            part.flush()
            os.fsync(part.fileno())
            part.close()
            verify(part.name)
            os.replace(part.name, path)
        except BaseException:  # Ctrl-C too: the temporary file is removed in any case
            part.close()
            os.unlink(part.name)
            raise


def open_url(url: str) -> IO[bytes]:
    """The response to a request for an https address."""
    _require_https(url)
    try:
        return urllib.request.build_opener(HttpsOnly).open(url, timeout=TIMEOUT)
    except HTTPException as error:
        raise OSError(f"the answer of the server is not valid: {error}") from error


def _copy(response: IO[bytes], part: IO[bytes], largest: int, progress: Callable[[int], None]) -> None:
    size = 0
    while chunk := _read(response):
        size += len(chunk)
        if size > largest:
            raise RuntimeUserError("the download is too large", expected=f"at most {largest:,} bytes")
        part.write(chunk)
        progress(size)


def _read(response: IO[bytes]) -> bytes:
    try:
        return response.read(CHUNK)
    except HTTPException as error:
        raise OSError(f"the connection was lost: {error}") from error


def _require_https(url: str) -> None:
    if not url.lower().startswith("https://"):
        raise RuntimeUserError("refused to download without https", found=quoted(url))
