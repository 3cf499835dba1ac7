"""What names say: one matcher for columns, members, elements and queries."""

from __future__ import annotations

import pytest

from pipeline.transforms.names import HINTS, applies, meaning_of, policy_of
from tests.shipped import PAYMENTS

SENSITIVE = {
    "code": (
        "cvv cvc cvv2 CVV2 csc cav2 cardCvv cvv_code securityCode verification_value cardVerificationValue "
        "card_code cardCode "
        "CVC_2 card_security_cd amexCid card[cvc] CVCCode iCVV cvn CVN2 cardSecurityCode cc-csc securitycode cardcvv"
    ),
    "expiry": (
        "exp_month expMonth expYear exp_year validThru valid_thru cardExpiry cardExpDate card_exp "
        "card.exp_month CardExpiryDate "
        "cardexpiration expiryMonth expmonth cardExpireDate expmonth"
    ),
    "holder": (
        "holderName cardholderName cardholder_name CardHolder nameOnCard name_on_card cardName NAME_ON_CARD "
        "cardholdername "
        "cardholderFirstName nameoncard cc-name cardOwner card_owner titularTarjeta nomTitulaire karteninhaber "
        "embossing_line"
    ),
    "track": "track1 track2 track2Data trackData Track2EquivalentData track_2_data magStripeData",
    "pin": "pin PIN pinBlock PinBlock encryptedPinBlock encryptedPin newPin encryptedpinblock",
    "card": ("pan PAN panNumber cardNumber card_no creditCardNumber primaryAccountNumber fpan card.number ccNumber"),
}
HARMLESS = (
    "pineapple shipping expense experience panel span company expiresAt session_expires cid pinned "
    "author_name customerName "
    "tokenExpiresAt access_token_expiry cardBrand cardType last4 cardinal cvs trackingId trackingNumber "
    "cvvResult cvc_check "
    "pinTries cardholderId accountNumber expires_in tracker expand Japan spanner cardId cardToken opinion "
    "security validated "
    "verificationId soundtrack phoneNumber number name code holder shareholder discard postcard expected "
    "export valid isValid "
    "merchantName cardProductName PaymentMethod validFrom pinterest csv primaryKey certificateExpiration "
    "timePinned recvCount "
)


@pytest.mark.parametrize(("meaning", "name"), [(m, name) for m, names in SENSITIVE.items() for name in names.split()])
def test_a_name_is_known_by_its_meaning_however_it_is_spelled(meaning: str, name: str) -> None:
    assert meaning_of(name) == meaning
    assert any(hint in name.lower() for hint in HINTS)


@pytest.mark.parametrize("name", HARMLESS.split())
def test_a_name_that_only_looks_like_a_card_s_means_nothing(name: str) -> None:
    assert meaning_of(name) is None


@pytest.mark.parametrize("name", ["number", "name", "code", "month", "year", "exp", "cvc", "cid", "holder"])
def test_within_a_card_plain_names_are_a_card_s(name: str) -> None:
    assert meaning_of(name, "card") is not None
    assert meaning_of("brand", "card") is None


def test_an_expiry_alone_is_a_card_s_only_where_its_value_looks_so() -> None:
    assert meaning_of("expiry") == meaning_of("exp") == "maybe_expiry"
    for value in ("12/27", "12/2027", "1227", "2712", "2027-12", "12-27"):
        assert applies("maybe_expiry", value), value
    for value in ("1764000000", "2026-11-23T09:15:00Z", "3600", "never", "2027-12-31"):
        assert not applies("maybe_expiry", value), value
    assert applies("maybe_expiry", "2027-12-31", beside_card=True)


def test_the_policy_of_a_column_goes_before_what_its_name_means() -> None:
    assert PAYMENTS.policy_of("CardholderName") == policy_of("cardholder_name") == "token"
    assert policy_of("Track-Data") == policy_of("cvv2") == "drop"
    assert policy_of("PaymentMethod") is None
