"""The simulator: one seed, one story; and everything that masking and checking must cope with is in it."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import islice

import orjson
from stdnum import luhn

from contract.payments import EXPECTED_TRANSITIONS, PAYMENT_STATES
from contract.schema import tables
from local.traffic.sample_data import DEVICES, spellings
from local.traffic.simulator import Mutation, Operation, Simulator, cards_made
from pipeline.transforms.cards import find_cards, is_card
from tests.shipped import AUDIT_LOG_TABLE, PAYMENT_TABLE

SEED = 7
OPERATIONS = list(islice(Simulator(SEED), 8000))
MUTATIONS = [mutation for operation in OPERATIONS for mutation in operation.mutations]


def of_payments() -> dict[str, list[Mutation]]:
    lives = defaultdict(list)
    for mutation in MUTATIONS:
        if mutation.table == PAYMENT_TABLE:
            lives[mutation.puid].append(mutation)
    return lives


def test_a_seed_gives_the_same_operations_every_time_and_another_one_others() -> None:
    assert list(islice(Simulator(SEED), 500)) == OPERATIONS[:500]
    assert not {m.puid for o in islice(Simulator(8), 500) for m in o.mutations} & {m.puid for m in MUTATIONS}


def test_operations_are_numbered_from_zero() -> None:
    assert [operation.number for operation in OPERATIONS] == list(range(len(OPERATIONS)))


def test_every_card_number_in_the_operations_is_listed() -> None:
    cards = cards_made(SEED, len(OPERATIONS))
    texts = [value for m in MUTATIONS for value in m.values.values() if value]
    found = {card.digits for text in texts for card in find_cards(str(text))}
    assert found
    # Digits written one by one can be read as a shorter number too, within the one that was written.
    assert not [number for number in found if not any(number in card for card in cards)]
    assert len(found & cards) > 100
    assert all(luhn.is_valid(card) and is_card(card) for card in cards)
    assert len({card[:2] for card in cards}) > 5


def test_the_list_of_card_numbers_grows_with_the_operations() -> None:
    assert cards_made(SEED, 100) < cards_made(SEED, 8000)


def test_each_spelling_of_a_card_number_is_found_as_that_number() -> None:
    for card in cards_made(SEED, 0):
        for spelling in spellings(card):
            assert card in {found.digits for found in find_cards(f"PAN {spelling} (code 05)")}


def test_values_belong_to_the_columns_of_the_schema() -> None:
    columns = {name: {c.name for c in table.columns} for name, table in tables().items()}
    assert all(mutation.values.keys() <= columns[mutation.table] for mutation in MUTATIONS)


def test_payments_begin_with_an_insert_and_end_with_a_delete_or_not_at_all() -> None:
    for life in of_payments().values():
        kinds = [mutation.mod_type for mutation in life]
        assert kinds[0] == "INSERT"
        assert set(kinds[1:-1]) <= {"UPDATE"}


def test_no_commit_changes_a_row_twice() -> None:
    def rows(operation: Operation) -> list[tuple[str, str]]:
        return [(m.table, m.puid) for m in operation.mutations]

    assert all(len(rows(o)) == len(set(rows(o))) for o in OPERATIONS)


def test_audit_logs_are_written_beside_the_payment_and_first_inserted() -> None:
    beside = [o for o in OPERATIONS if len(o.mutations) == 2]
    assert len(OPERATIONS) * 0.2 < len(beside) < len(OPERATIONS) * 0.4
    seen: set[str] = set()
    for payment, log in (o.mutations for o in beside):
        assert (payment.table, log.table) == (PAYMENT_TABLE, AUDIT_LOG_TABLE)
        assert payment.puid == log.puid
        assert (log.kind, log.mod_type) == ("insert_or_update", "UPDATE" if log.puid in seen else "INSERT")
        seen.add(log.puid)


def test_transitions_are_those_that_are_expected_where_both_statuses_are_known() -> None:
    for life in of_payments().values():
        statuses = [m.status for m in life if m.mod_type != "DELETE"]
        for before, after in zip([None, *statuses], statuses, strict=False):
            states = before and PAYMENT_STATES.get(before), PAYMENT_STATES.get(after or "")
            if states[1] and (before is None or states[0]):
                assert states in EXPECTED_TRANSITIONS


def test_the_story_has_everything_that_the_product_must_cope_with() -> None:
    statuses = Counter(m.status for m in MUTATIONS if m.table == PAYMENT_TABLE)
    assert {"SETTLED", "DECLINED", "RETRYING", "REFUNDED", "EXPIRED", "CANCELLED", "FAILED"} <= statuses.keys()
    assert [status for status in statuses if status and status not in PAYMENT_STATES], "unknown statuses"
    assert [m for m in MUTATIONS if m.mod_type == "DELETE"]
    assert len({m.values.get("Currency") for m in MUTATIONS} - {None}) >= 6
    assert len({m.values.get("PaymentMethod") for m in MUTATIONS} - {None}) == 5
    ends = [life[-1].status for life in of_payments().values() if life[0].values["UpdatedAt"]]
    assert [status for status in ends if status in ("INITIATED", "AUTHORIZED", "PENDING")], "stuck ones"


def test_card_numbers_are_hidden_in_free_text_and_in_json() -> None:
    names = numbers = texts = errors = odd = 0
    for mutation in MUTATIONS:
        errors += bool(find_cards(str(mutation.values.get("ErrorDetails") or "")))
        metadata = orjson.loads(str(mutation.values.get("Metadata") or "{}"))
        if not isinstance(metadata, dict):
            odd += 1
            continue
        names += any(is_card(name) for name in metadata.get("limits", {}))
        numbers += is_card(str(metadata.get("legacy", {}).get("account", "0000")).rjust(12, "0"))
        texts += bool(find_cards(metadata.get("note", "")))
    assert min(names, numbers, texts, errors, odd) > 0


def test_only_payments_with_a_card_number_for_a_customer_are_to_be_dead_letters() -> None:
    dead = {m.puid for m in MUTATIONS if m.dead_letter}
    with_card = {m.puid for m in MUTATIONS if is_card(str(m.values.get("CustomerId") or "0" * 12))}
    assert dead == with_card
    assert dead
    for puid, life in of_payments().items():
        assert {m.dead_letter for m in life} == {puid in dead}
    assert not [m for m in MUTATIONS if m.dead_letter and m.table == AUDIT_LOG_TABLE]


def test_merchant_channel_device_and_trace_belong_to_a_payment_and_not_to_each_of_its_changes() -> None:
    told: dict[str, list[bytes]] = defaultdict(list)
    for mutation in MUTATIONS:
        members = orjson.loads(str(mutation.values.get("Metadata") or "{}"))
        if isinstance(members, dict) and "merchant" in members:
            own = {name: members[name] for name in ("merchant", "channel", "device", "traceId", "orderId")}
            told[mutation.puid].append(orjson.dumps(own))
            assert own["device"] in DEVICES[own["channel"]]
    assert max(map(len, told.values())) > 3
    assert {len(set(each)) for each in told.values()} == {1}
    assert len({each[0] for each in told.values()}) == len(told), "traces and orders are a payment's own"
