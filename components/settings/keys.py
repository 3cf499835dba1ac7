"""Customer-managed keys, and what Google keeps when a stack is destroyed."""

from dataclasses import dataclass
from typing import Final, Self

from components.settings.reader import Reader

# A key must be where its store is, so one ring's name stands for the rings of every place.
_PLACE: Final = "{location}"
_RING: Final = (
    r"|projects/[^/]+/locations/\{location\}/keyRings/[a-zA-Z0-9_-]{1,63}",
    "empty or projects/KEYS/locations/{location}/keyRings/NAME, with {location} as it is written here",
)
_SECRET: Final = (r"|projects/[^/]+/secrets/[A-Za-z0-9_-]{1,255}", "empty or projects/P/secrets/S")


@dataclass(frozen=True, kw_only=True)
class KeySettings:
    """`ring` is of others' keys, empty where the stack makes its own; `grants`: it lets its stores' services use those.
    `masking_secret` is the full name of a secret of others with the masking keys; empty where the stack makes it.

    `adopt_retained`: a second `up` after a destroy takes over the keys and pools that Google never deletes.
    """

    customer_managed: bool
    ring: str
    grants: bool
    masking_secret: str
    rotation_days: int
    adopt_retained: bool

    @classmethod
    def read(cls, read: Reader) -> Self:
        return cls(
            customer_managed=read.boolean("customerManagedKeys"),
            ring=read.text("keyRing", *_RING),
            grants=read.boolean("keyGrants"),
            masking_secret=read.text("maskingSecret", *_SECRET),
            rotation_days=read.integer("keyRotationDays", 2, 365),
            adopt_retained=read.boolean("adoptRetained"),
        )

    def relations(self, read: Reader) -> None:
        if read.stack == "prod" and not self.customer_managed:
            read.refuse("customerManagedKeys", "true in prod", "false")
        if self.ring and not self.customer_managed:
            read.refuse("customerManagedKeys", "true where keyRing names the keys", "false")

    def ring_in(self, location: str) -> str:
        """The full name of the others' ring of a place."""
        return self.ring.replace(_PLACE, location)
