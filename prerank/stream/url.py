"""Logs by their address: `open_log("sqlite:///events.db?partitions=4")`.

    sqlite:///relative/path.db   sqlite:////absolute/path.db      ?partitions=4  &sync=off
    redis://host:6379/0   rediss://..   unix:///path/to/socket    ?log=events  &partitions=4
    kafka://host:9092,host:9092/topic                             ?partitions=4  and librdkafka's settings, by their names (with a dot)
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qsl, urlencode, urlsplit

from prerank.config.errors import nearest
from prerank.stream.log import Log


def open_log(url: str, *, create: bool = True) -> Log:
    """The log of an address, made when it is not there. Raises LogError when it cannot be opened, ValueError for a wrong address.

    create   false: a log that is not there is an error
    """
    scheme, _, rest = url.partition("://")
    if not rest or scheme not in _SCHEMES:
        raise ValueError(f"log '{url}': must be an address that begins with {', '.join(f'{s}://' for s in _SCHEMES)}")
    parts = urlsplit(url)
    return _SCHEMES[scheme](url, parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)), create)


def _sqlite(url: str, path: str, options: dict[str, str], create: bool) -> Log:
    from prerank.stream.sqlite import SqliteLog

    partitions, sync = _partitions(url, options), options.pop("sync", "on")
    _nothing_left(url, options, ("partitions", "sync"))
    file = path.removeprefix("/")
    if not file or sync not in ("on", "off"):
        raise ValueError(f"log '{url}': must look like sqlite:///events.db, and sync be on or off")
    return SqliteLog(file, partitions, create=create, sync=sync == "on")


def _redis(url: str, path: str, options: dict[str, str], create: bool) -> Log:
    from prerank.stream.redis import RedisLog

    partitions, name = _partitions(url, options), options.pop("log", "events")
    server = "?".join(filter(None, (url.partition("?")[0], urlencode(options))))  # other options are the client's own
    return RedisLog(server, name, partitions, create=create)


def _kafka(url: str, path: str, options: dict[str, str], create: bool) -> Log:
    from prerank.stream.kafka import KafkaLog

    partitions, topic = _partitions(url, options), path.strip("/")
    settings = {key: options.pop(key) for key in list(options) if "." in key}
    _nothing_left(url, options, ("partitions",))
    brokers = urlsplit(url).netloc
    if not topic or not brokers:
        raise ValueError(f"log '{url}': must look like kafka://host:9092/topic")
    return KafkaLog(brokers, topic, partitions, create=create, settings=settings)


def _partitions(url: str, options: dict[str, str]) -> int | None:
    text = options.pop("partitions", None)
    if text is not None and not (text.isdecimal() and int(text) > 0):
        raise ValueError(f"log '{url}': partitions must be a number from 1 on; got '{text}'")
    return None if text is None else int(text)


def _nothing_left(url: str, options: dict[str, str], known: tuple[str, ...]) -> None:
    for name in options:
        raise ValueError(f"log '{url}': no option '{name}'{nearest(name, known)}")


_SCHEMES: dict[str, Callable[[str, str, dict[str, str], bool], Log]] = {
    "sqlite": _sqlite, "redis": _redis, "rediss": _redis, "unix": _redis, "kafka": _kafka,
}  # fmt: skip
