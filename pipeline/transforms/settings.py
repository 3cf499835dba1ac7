"""What the transforms are set to, for the job, for the retry of dead letters, and for what measures and checks them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from contract import payments
from contract.watched import WatchedTables
from pipeline.transforms.erased import ErasedNow, ErasedTokens, ReadTokens
from pipeline.transforms.filter import Ignored
from pipeline.transforms.keys import MaskingKeys
from pipeline.transforms.mask import Masker, NewColumns


@dataclass(frozen=True, kw_only=True)
class TransformSettings:
    """`masking_keys` is where the keys are: a secret's name or `file:PATH`. They are loaded where they are used.

    `erased` reads the tokens of customers who were erased.
    """

    masking_keys: str
    new_columns: NewColumns
    payment_states: Mapping[str, str]
    ignored: Ignored
    watched: WatchedTables
    erased: ReadTokens

    @classmethod
    def of(cls, values: Mapping[str, str]) -> TransformSettings:
        """From launch options. Raises ValueError where a value breaks its rule."""
        return cls(
            masking_keys=values["maskingKeys"],
            new_columns=values["newColumns"],  # type: ignore[arg-type]
            payment_states=payments.parse_states(values["paymentStates"]),
            ignored=Ignored.parse(fields=values["ignoreFields"], tables=values["ignoreTables"]),
            watched=WatchedTables.from_json(values["watchedTables"]),
            erased=ErasedTokens.of(values),
        )

    def masker(self) -> Masker:
        """Loads the keys. Raises MaskingKeyError."""
        return Masker(MaskingKeys.load(self.masking_keys), self.watched, new_columns=self.new_columns)

    def erased_now(self) -> ErasedNow:
        """Loads the keys. Raises MaskingKeyError."""
        return ErasedNow(self.erased, lambda: MaskingKeys.load(self.masking_keys))
