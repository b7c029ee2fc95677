"""Downloads an archive over HTTP, from where the operator allows it and no further.

`core.archive` calls it for URLs. The file goes to a folder of the server's; the caller removes it.
"""

from __future__ import annotations

import http.client
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import IO
from urllib.parse import urlsplit, urlunsplit

import structlog

from servegrpc.errors import ArchiveNotFound, InvalidArchive

log = structlog.get_logger()

SILENCE_SECONDS = 30  # without a byte
DOWNLOAD_SECONDS = 3600
_REPORT_SECONDS = 5.0
_CHUNK_BYTES = 2**18


@dataclass(frozen=True)
class Downloads:
    """What may be downloaded: URLs that one of the `allowed` regular expressions matches whole (TorchServe's `allowed_urls`)."""

    allowed: Sequence[str] = ()
    stop: threading.Event = field(default_factory=threading.Event)

    def anywhere(self) -> Downloads:
        """Return the same, with every URL allowed."""
        return replace(self, allowed=(".*",))

    def fetch(self, url: str, target: Path, *, max_bytes: int) -> None:
        """Write what an http or https URL names to `target`, a new file; progress goes to the log.

        Redirects are followed to allowed URLs only. Raises InvalidArchive when it is not allowed or too large, ArchiveNotFound when
        it cannot be had, OSError when the disk is at fault.
        """
        label = shown(url)
        self.check(url)
        try:
            with urllib.request.build_opener(_Redirects(self)).open(url, timeout=SILENCE_SECONDS) as response, target.open("xb") as file:
                self._copy(response, file, label, max_bytes)
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            raise ArchiveNotFound(f'Archive "{label}" could not be downloaded: {_cause(error)}.', archive=label) from error

    def check(self, url: str) -> None:
        """Raise InvalidArchive when a URL is not allowed."""
        if not url.lower().startswith(("http://", "https://")):
            raise _refused(url, "only http and https URLs are downloaded")
        if ".." in urlsplit(url).path:
            raise _refused(url, 'a URL must not contain ".."')
        if not any(re.fullmatch(pattern, url, re.IGNORECASE) for pattern in self.allowed):
            raise _refused(url, "no pattern of allowed_urls matches it; add one, or put the archive into the model store")

    def _copy(self, response: http.client.HTTPResponse, file: IO[bytes], label: str, max_bytes: int) -> None:
        total_bytes, done_bytes = response.length, 0
        started = reported = monotonic()
        while chunk := response.read(_CHUNK_BYTES):
            done_bytes += len(chunk)
            if max(done_bytes, total_bytes or 0) > max_bytes:
                raise InvalidArchive(f'Archive "{label}" is larger than {max_bytes} bytes.', archive=label)
            file.write(chunk)
            now = monotonic()
            if self.stop.is_set() or now - started > DOWNLOAD_SECONDS:
                raise TimeoutError("the server is stopping" if self.stop.is_set() else f"it took longer than {DOWNLOAD_SECONDS} s")
            if now - reported > _REPORT_SECONDS:
                reported = now
                log.info("downloading archive", archive=label, bytes=done_bytes, of=total_bytes or "unknown")
        if total_bytes is not None and done_bytes < total_bytes:
            raise ConnectionError(f"the connection ended after {done_bytes} of {total_bytes} bytes")
        log.info("archive downloaded", archive=label, bytes=done_bytes, seconds=round(monotonic() - started, 1))


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where a download is allowed: a server that is allowed must not lead elsewhere."""

    def __init__(self, downloads: Downloads) -> None:
        self._downloads = downloads

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        try:
            self._downloads.check(newurl)
        except InvalidArchive:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def shown(url: str) -> str:
    """Return a URL without its query and its password, which may be secrets. Raises InvalidArchive when it is none."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidArchive(f"The archive's URL is none: {error}.", field="archive") from error
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _refused(url: str, why: str) -> InvalidArchive:
    return InvalidArchive(f'Archive "{shown(url)}" is not downloaded: {why}.', archive=shown(url), refused_url=shown(url))


def _cause(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
