"""Customer-managed keys, and what Google keeps when a stack is destroyed."""

from dataclasses import dataclass
from typing import Self

from components.settings.reader import Reader


@dataclass(frozen=True, kw_only=True)
class KeySettings:
    """`adopt_retained`: a second `up` after a destroy takes over the keys and pools that Google never deletes."""

    customer_managed: bool
    rotation_days: int
    adopt_retained: bool

    @classmethod
    def read(cls, read: Reader) -> Self:
        return cls(
            customer_managed=read.boolean("customerManagedKeys"),
            rotation_days=read.integer("keyRotationDays", 2, 365),
            adopt_retained=read.boolean("adoptRetained"),
        )

    def relations(self, read: Reader) -> None:
        if read.stack == "prod" and not self.customer_managed:
            read.refuse("customerManagedKeys", "true in prod", "false")
