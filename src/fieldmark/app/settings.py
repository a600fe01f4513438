"""What a service is started with."""

from pathlib import Path

from pydantic import Field

from fieldmark.config import Config


class Settings(Config):
    """Of one service; ``fieldmark serve`` fills it in."""

    place: str | None = None
    """The index: a folder, or a server's URL; None serves runs only."""
    photos: Path | None = None
    """Where the photos of the index are; by default where they were when they were indexed."""
    runs: tuple[Path, ...] = ()
    """Run folders, or folders of run folders, to show."""
    page: bool = True
    """Whether the browser app is served beside the API."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65_535)
    """0 takes a free one."""
    names: tuple[str, ...] = ()
    """Further host names that browsers may call this service by."""
    tokens: Path | None = None
    """File of bearer tokens; none: everybody who reaches this machine's loopback may do everything."""
    device: str = "auto"
    max_upload_bytes: int = Field(default=50_000_000, gt=0)
    """Largest photo that is taken."""
    max_json_bytes: int = Field(default=2_000_000, gt=0)
    """Largest body of any other request."""
    max_waiting: int = Field(default=64, gt=0)
    """Photos that may wait for decoder and encoder; the next is answered 503."""
    max_connections: int = Field(default=2_000, gt=0)
    """Open at a time; then those that said nothing longest are closed for new ones."""
    header_seconds: float = Field(default=10.0, gt=0)
    """Time for the head of a request, from the connection's or the head's first byte."""
    body_seconds: float = Field(default=10.0, gt=0)
    """Time for a body, beside what its size takes at ``body_rate``; also the longest pause in it."""
    body_rate: float = Field(default=32_000.0, gt=0)
    """Bytes a second that a body must come with on average after ``body_seconds``."""
    max_held_bytes: int = Field(default=400_000_000, gt=0)
    """Of bodies of requests that are not answered yet, in all; the next is answered 503."""
    max_bodies: int = Field(default=256, gt=0)
    """Bodies that are on their way at a time; the next is answered 503 before it is read."""
    keep_alive_seconds: float = Field(default=15.0, gt=0)
    """How long a connection is kept for the next request."""
    stop_seconds: float = Field(default=5.0, gt=0)
    """How long requests that are being answered are waited for when the service stops."""
