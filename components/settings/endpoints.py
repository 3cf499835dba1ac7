"""Where the services are."""

from dataclasses import dataclass
from typing import Final, Self

from components.settings.reader import Reader

_LOOPBACK: Final = r"(127\.0\.0\.1|localhost|\[::1\])"
_ADDRESS: Final = (rf"|{_LOOPBACK}:\d+|[\w.-]+:443", "empty, a host:port of this machine or a host:443 (TLS)")
_URL: Final = (
    rf"|http://{_LOOPBACK}(:\d+)?|https://[\w.-]+(:\d+)?",
    "empty, an http:// URL of this machine or an https:// URL",
)


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Empty is Google Cloud."""

    spanner: str
    spanner_admin: str
    big_query: str
    big_query_storage: str

    @classmethod
    def read(cls, read: Reader) -> Self:
        return cls(
            spanner=read.text("spannerEndpoint", *_ADDRESS),
            spanner_admin=read.text("spannerAdminEndpoint", *_URL),
            big_query=read.text("bigQueryEndpoint", *_URL),
            big_query_storage=read.text("bigQueryStorageEndpoint", *_ADDRESS),
        )

    def relations(self, read: Reader) -> None:
        if bool(self.big_query) != bool(self.big_query_storage):
            read.refuse("bigQueryEndpoint", "set together with bigQueryStorageEndpoint, or neither", self.big_query)
