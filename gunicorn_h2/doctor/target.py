"""The URL that is diagnosed, and the address to connect to."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from .exchange import Request

__all__ = ["Target", "TargetError", "parse_address", "parse_url"]

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_URL = 4_096
_PATH_SAFE = "/%:@!$&'()*+,;=~?"


class TargetError(ValueError):
    """A URL or address that cannot be used; the message says why."""


@dataclass(frozen=True)
class Target:
    """What a URL asks for."""

    scheme: str
    """http or https."""

    host: str
    """The host's name in ASCII, or its IP address without brackets."""

    port: int
    path: str
    """Path and query, in ASCII."""

    @property
    def authority(self) -> str:
        """Host and port as in `:authority` and Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def request(self) -> Request:
        """The request to make."""
        return Request(self.scheme, self.authority, self.path)

    def other(self) -> str:
        """The same URL with the other scheme, and the port written out."""
        scheme = "http" if self.scheme == "https" else "https"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}{self.path}"


def parse_url(url: str) -> Target:
    """Parse an http or https URL. Raises `TargetError`."""
    if len(url) > MAX_URL:
        raise TargetError(f"the URL is longer than {MAX_URL} characters")
    if any(char <= " " or char == "\x7f" for char in url):
        raise TargetError("the URL has spaces or control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise TargetError(f"{url!r} is no URL: {error}") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise TargetError(f"{url!r} must begin with https:// or http://")
    if not parts.hostname or "@" in parts.netloc:
        raise TargetError(f"{url!r} must name a host, and no user")
    query = f"?{quote(parts.query, _PATH_SAFE)}" if parts.query else ""
    path = quote(parts.path, _PATH_SAFE) or "/"
    return Target(parts.scheme, _ascii(parts.hostname), _port(port or DEFAULT_PORTS[parts.scheme]), path + query)


def parse_address(text: str) -> tuple[str, int]:
    """Parse HOST:PORT, an IPv6 address in brackets. Raises `TargetError`."""
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not bare or not port.isascii() or not port.isdigit() or (":" in bare and bare == host):
        raise TargetError(f"{text!r} must be HOST:PORT, for example 127.0.0.1:8443 or [::1]:8443")
    return _ascii(bare), _port(int(port))


def _ascii(host: str) -> str:
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise TargetError(f"{host!r} is no host name: {error}") from None


def _port(number: int) -> int:
    if not 0 < number < 65_536:
        raise TargetError(f"{number} is no port")
    return number
