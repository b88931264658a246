"""3-D Secure: the rules, the calls, and the ACS's page as a browser meets it."""

import base64
import re
from html import unescape
from itertools import product
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import msgspec
import pytest

from simulators import threeds
from simulators.acs import SUBMIT_SCRIPT, cres
from simulators.charges import Charge
from simulators.clock import Clock, system_clock_ms
from simulators.config import ConfigError
from simulators.magic import AUTHENTICATIONS, TransStatus
from simulators.threeds import ENDINGS, Authentication, Event, assess, concluded, network_of, proof

CHALLENGED, CHALLENGED_THEN_DECLINED, APPROVED = "4000000000003220", "4000008400001629", "4111111111111111"
DECOUPLED, DECOUPLED_REFUSED = "4000000000001158", "4000000000001166"
STATUSES = get_args(TransStatus)
RIGHT, WRONG = {"action": "submit", "otp": "111000"}, {"action": "submit", "otp": "123456"}
OUTCOME = ("transStatus", "transStatusReason", "challengeCancel", "eci")


def areq(number: str = APPROVED, reference: str = "auth", **fields: Any) -> dict[str, Any]:
    return {
        "reference": reference,
        "amount": 49_900,
        "currency": "INR",
        "merchantID": "Books & Co",
        "card": {"number": number, "expiryMonth": "12", "expiryYear": "2099"},
        "returnURL": "http://127.0.0.1:9/return",
    } | fields


async def authenticate(client, number: str = APPROVED, reference: str = "auth", **fields: Any) -> dict[str, Any]:
    status, body, _ = await client.call("POST", "/card/3ds/authentications", json=areq(number, reference, **fields))
    assert status == 200, body
    return body


async def result(client, key: str = "auth") -> dict[str, Any]:
    status, body, _ = await client.call("GET", f"/card/3ds/authentications/{key}")
    assert status == 200
    return body


async def charge(client, number: str = APPROVED, **fields: Any) -> dict[str, Any]:
    body = areq(number, "charge")
    body = {name: value for name, value in body.items() if name != "returnURL"} | {"card": body["card"] | {"cvv": "123"}}
    status, answer, _ = await client.call("POST", "/card/charges", json=body | fields)
    assert status == 200, answer
    return answer


def outcome(body: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(body.get(name) for name in OUTCOME)


@pytest.fixture
async def clock() -> Clock:
    """A clock that stands still unless it is advanced."""
    began_ms = system_clock_ms()
    return Clock(lambda: began_ms)


# The rules.


def waiting(status: TransStatus) -> Authentication:
    open_one = Authentication("ref", "server", "ds", "acs", "C", 100, "INR", 1, 1, acsURL="http://acs/")
    return concluded(open_one, threeds.Ending(status), network="other", value="cavv", now_ms=1)


def test_an_authentication_ends_by_what_the_table_says_and_by_nothing_else():
    ends = {pair: ending.status for pair in product(STATUSES, get_args(Event)) if (ending := ENDINGS.get(pair))}
    assert ends == {
        ("C", "pass"): "Y",
        ("C", "exhaust"): "N",
        ("C", "cancel"): "N",
        ("C", "no_creq"): "N",
        ("C", "time"): "N",
        ("D", "pass"): "Y",
        ("D", "refuse"): "N",
        ("D", "time"): "N",
    }


@pytest.mark.parametrize("status", STATUSES)
def test_what_goes_with_each_status(status):
    found = waiting(status)
    assert (found.acsURL is not msgspec.UNSET) == (status == "C")
    assert (found.acsDecConInd is not msgspec.UNSET) == (status == "D")
    assert (found.eci is not msgspec.UNSET) == (status not in "CD")
    assert (found.authenticationValue is not msgspec.UNSET) == (status in "YA")


VISA = {"Y": "05", "A": "06", "N": "07", "U": "07", "R": "07", "I": "07", "C": None, "D": None}
MASTERCARD = {"Y": "02", "A": "01", "N": "00", "U": "00", "R": "00", "I": "04", "C": None, "D": None}


@pytest.mark.parametrize(
    ("prefixes", "expected"), [(("4", "6521", "2220", "2721"), VISA), (("51", "55", "2221", "2720"), MASTERCARD)]
)
def test_the_eci_is_that_of_the_card_scheme(prefixes, expected):
    for prefix in prefixes:
        network = network_of(prefix.ljust(16, "0"))
        assert {status: threeds.eci(status, network) or None for status in STATUSES} == expected


def test_what_an_authentication_proves():
    verdicts = {status: proof(waiting(status), "other").verdict for status in STATUSES}
    expected = dict.fromkeys("YA", "authenticated") | dict.fromkeys("UI", "unauthenticated") | dict.fromkeys("NRCD", "refused")
    assert verdicts == expected
    assert proof(None, "mastercard") == ("00", "refused")


@pytest.mark.parametrize(
    ("drawn", "indicator", "decoupled", "expected"),
    [
        ("Y", "06", False, "I"),
        ("C", "06", False, "I"),
        ("N", "06", False, "N"),
        ("Y", "03", False, "C"),
        ("Y", "04", False, "C"),
        ("Y", "02", False, "Y"),
        ("C", "02", False, "C"),  # the merchant asks, the issuer decides
        ("R", "04", False, "R"),
        ("A", "04", False, "A"),  # the directory stands in for an issuer that is not there to challenge
        ("D", "01", True, "D"),
        ("D", "01", False, "U"),
    ],
)
def test_the_issuer_weighs_what_the_merchant_asks_for(drawn, indicator, decoupled, expected):
    found = assess(APPROVED, card_code=None, drawn=drawn, indicator=indicator, decoupled=decoupled)
    assert found.status == expected


# The calls.


@pytest.mark.parametrize("number", sorted(AUTHENTICATIONS))
async def test_a_test_card_has_its_status(start, number):
    client = await start(card={"authentication": {"U": 1}})
    body = await authenticate(client, number, threeDSRequestorDecMaxTime="00005")
    assert body["transStatus"] == AUTHENTICATIONS[number]
    assert await result(client) == body


@pytest.mark.parametrize("status", [status for status in STATUSES if status != "I"])
async def test_any_other_card_follows_the_mix(start, status):
    client = await start(card={"authentication": {status: 1}})
    assert (await authenticate(client, threeDSRequestorDecMaxTime="00005"))["transStatus"] == status


async def test_an_ares_is_complete_and_the_same_in_each_run(start):
    first, second = [await authenticate(await start(), APPROVED) for _ in range(2)]
    for body in (first, second):
        del body["createdAt"], body["updatedAt"]
    assert first == second
    ids = [first.pop(name) for name in ("threeDSServerTransID", "dsTransID", "acsTransID")]
    assert len(set(ids)) == 3
    assert all(UUID(trans_id).version == 4 for trans_id in ids)
    assert len(base64.b64decode(first.pop("authenticationValue"), validate=True)) == 20
    shown = {
        "reference": "auth",
        "amount": 49_900,
        "currency": "INR",
        "messageVersion": "2.2.0",
        "transStatus": "Y",
        "eci": "05",
    }
    assert first == shown


@pytest.mark.parametrize(("number", "year", "reason"), [("4242424242424240", "2099", "06"), (APPROVED, "2020", "05")])
async def test_a_card_that_cannot_be_is_not_authenticated(start, number, year, reason):
    client = await start()
    card = {"number": number, "expiryMonth": "12", "expiryYear": year}
    assert outcome(await authenticate(client, card=card)) == ("N", reason, None, "07")


async def test_the_same_reference_is_the_same_authentication_and_no_other(start):
    client = await start()
    body = await authenticate(client, CHALLENGED)
    assert await authenticate(client, CHALLENGED) == body
    for changed in ({"amount": 1}, {"merchantID": "other"}, {"card": areq(APPROVED)["card"]}, {"currency": "USD"}):
        status, refused, _ = await client.call("POST", "/card/3ds/authentications", json=areq(CHALLENGED) | changed)
        assert (status, refused["code"]) == (409, "reference_conflict")
    assert await result(client, body["threeDSServerTransID"]) == body


async def test_what_never_arrived_is_not_found(start):
    client = await start()
    other = await authenticate(client, CHALLENGED, "other")
    pages = [f"/card/acs/{name}" for name in ("auth", "other", other["threeDSServerTransID"], other["dsTransID"])]
    for path in ("/card/3ds/authentications/auth", *pages):
        status, body, _ = await client.call("GET", path)
        assert (status, body["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"threeDSRequestorDecMaxTime": "10081"}, "threeDSRequestorDecMaxTime: must be 00001 to 10080 (minutes)"),
        ({"threeDSRequestorDecMaxTime": "00000"}, "threeDSRequestorDecMaxTime: must be 00001 to 10080 (minutes)"),
        ({"threeDSRequestorDecMaxTime": "5"}, "threeDSRequestorDecMaxTime: "),
        ({"challengeIndicator": "10"}, "challengeIndicator: "),
        ({"returnURL": "javascript:alert(1)"}, "returnURL: "),
        ({"merchantID": "a\nb"}, "merchantID: contains a control character"),
        ({"card": {"number": "x" * 16, "expiryMonth": "1", "expiryYear": "2099"}}, "card: number: must be digits"),
    ],
)
async def test_a_bad_request_is_refused_with_its_field(start, fields, sentence):
    client = await start()
    status, body, _ = await client.call("POST", "/card/3ds/authentications", json=areq(APPROVED) | fields)
    assert (status, body["code"]) == (400, "invalid_request")
    assert sentence in body["error"]


async def test_the_journal_has_each_call_and_the_end_and_no_card_number(start, clock):
    client = await start(clock=clock)
    body = await authenticate(client, CHALLENGED)
    await result(client)
    await act(client, body, RIGHT)
    entries = await client.journal()
    assert [(entry["operation"], entry["reference"], entry["status"], entry["moved"]) for entry in entries] == [
        ("authenticate", "auth", "C", 0),
        ("authenticate", "auth", "C", 0),
        ("authenticate", "auth", "Y", 0),
    ]
    assert CHALLENGED not in str(entries)


async def test_a_fault_of_authenticate_can_match_the_card_number(start):
    fault = {"kind": "unavailable", "operation": "authenticate", "bin": "400000"}
    client = await start(card={"faults": [fault]})
    assert (await authenticate(client, APPROVED, "other"))["transStatus"] == "Y"
    status, body, headers = await client.call("POST", "/card/3ds/authentications", json=areq(CHALLENGED))
    assert (status, body["code"], headers["X-Paydrome-Fault-Id"]) == (503, "unavailable", "card.authenticate.0")


# Charges.


@pytest.mark.parametrize("by", ["id", "values"])
@pytest.mark.parametrize(
    ("number", "expected"), [(CHALLENGED, ("approved", "00")), (CHALLENGED_THEN_DECLINED, ("declined", "05"))]
)
async def test_a_challenged_card_is_charged_once_its_customer_was_authenticated(start, number, expected, by):
    client = await start()
    without = await charge(client, number, reference="without")
    assert (without["status"], without["responseCode"], "eci" in without) == ("declined", "1A", False)
    body = await authenticate(client, number)
    early = await charge(client, number, reference="early", threeDS={"threeDSServerTransID": body["threeDSServerTransID"]})
    assert (early["responseCode"], early["eci"]) == ("1A", "07")
    await act(client, body, RIGHT)
    body = await result(client)
    names = ("threeDSServerTransID",) if by == "id" else ("eci", "authenticationValue", "dsTransID")
    charged = await charge(client, number, threeDS={name: body[name] for name in names})
    assert (charged["status"], charged["responseCode"], charged["eci"]) == (*expected, "05")


@pytest.mark.parametrize(
    ("status", "number", "code", "eci"),
    [
        ("Y", APPROVED, "00", "05"),
        ("A", APPROVED, "00", "06"),
        ("U", APPROVED, "00", "07"),  # no liability shift, and yet a charge
        ("N", APPROVED, "1A", "07"),
        ("R", APPROVED, "1A", "07"),
        ("C", APPROVED, "1A", "07"),
        ("D", APPROVED, "1A", "07"),
        ("A", "5555555555554444", "00", "01"),
        ("N", "5555555555554444", "1A", "00"),
        ("Y", "4000000000009995", "51", "05"),  # who was authenticated may still be out of money
    ],
)
async def test_a_charge_follows_its_authentication(start, status, number, code, eci):
    client = await start(card={"authentication": {status: 1}, "customer": {"acts": False}})
    body = await authenticate(client, number, threeDSRequestorDecMaxTime="00005")
    charged = await charge(client, number, threeDS={"threeDSServerTransID": body["threeDSServerTransID"]})
    assert (charged["responseCode"], charged["eci"]) == (code, eci)


async def test_data_share_only_proves_nothing(start):
    client = await start()
    for number, code in ((APPROVED, "00"), (CHALLENGED, "1A")):
        body = await authenticate(client, number, number, challengeIndicator="06")
        assert (body["transStatus"], body["eci"]) == ("I", "07")
        shown = {"threeDSServerTransID": body["threeDSServerTransID"]}
        assert (await charge(client, number, reference=f"charge{number}", threeDS=shown))["responseCode"] == code


async def test_a_card_that_cannot_be_is_declined_as_such_whatever_its_authentication(start):
    client = await start()
    past = {"number": APPROVED, "expiryMonth": "12", "expiryYear": "2020", "cvv": "123"}
    body = await authenticate(client, card=past)
    charged = await charge(client, card=past, threeDS={"threeDSServerTransID": body["threeDSServerTransID"]})
    assert (charged["responseCode"], charged["eci"]) == ("54", "07")


@pytest.mark.parametrize(
    "changed",
    [
        {"amount": 49_901},
        {"currency": "USD"},
        {"merchantID": "other"},
        {"card": areq("4242424242424242")["card"] | {"cvv": "123"}},
        {"threeDS": {"threeDSServerTransID": "unknown"}},
        {"threeDS": {"eci": "05", "authenticationValue": "AAAA", "dsTransID": "unknown"}},
    ],
)
async def test_an_authentication_counts_only_for_what_it_was_asked_for(start, changed):
    client = await start()
    body = await authenticate(client)
    shown = {"threeDS": {"threeDSServerTransID": body["threeDSServerTransID"]}}
    assert (await charge(client, **shown, reference="right", amount=49_899))["responseCode"] == "00"
    wrong = await charge(client, **shown | changed)
    assert (wrong["responseCode"], wrong["eci"]) == ("1A", "07")


@pytest.mark.parametrize("name", ["eci", "authenticationValue", "dsTransID"])
async def test_each_of_the_three_values_must_be_right(start, name):
    client = await start()
    body = await authenticate(client)
    values = {key: body[key] for key in ("eci", "authenticationValue", "dsTransID")}
    other = {"eci": "06", "authenticationValue": base64.b64encode(bytes(20)).decode(), "dsTransID": body["acsTransID"]}
    assert (await charge(client, reference="right", threeDS=values))["responseCode"] == "00"
    assert (await charge(client, threeDS=values | {name: other[name]}))["responseCode"] == "1A"


@pytest.mark.parametrize("given", [{}, {"eci": "05"}, {"threeDSServerTransID": "x", "eci": "05"}])
async def test_half_a_proof_is_refused(start, given):
    client = await start()
    body = areq() | {"threeDS": given, "card": areq()["card"] | {"cvv": "123"}}
    del body["returnURL"]
    status, refused, _ = await client.call("POST", "/card/charges", json=body)
    assert (status, refused["code"]) == (400, "invalid_request")
    assert refused["error"].startswith("threeDS: needs either threeDSServerTransID")


# The customer and the clock.


async def test_a_simulated_customer_meets_the_challenge_and_the_merchant_is_told(start, ear, clock):
    client = await start(clock=clock, card={"customer": {"delay": {"kind": "constant", "value": "2s"}}})
    asked = {"challenge": "simulated", "callbackURL": ear.url}
    assert (await authenticate(client, CHALLENGED, **asked))["transStatus"] == "C"
    clock.advance(1_999)
    assert (await result(client))["transStatus"] == "C"
    clock.advance(1)
    told = await ear.next()
    assert (told.pop("type"), told.pop("provider"), told.pop("id")[:3]) == ("authentication", "card", "cb_")
    assert told == await result(client)
    assert (outcome(told), told["interactionCounter"]) == (("Y", None, None, "05"), "01")


@pytest.mark.parametrize("fields", [{"challenge": "person"}, {"challenge": "simulated"}])
async def test_nobody_meets_the_challenge_unless_it_is_asked_for_and_customers_act(start, clock, fields):
    acts = fields["challenge"] == "person"
    client = await start(clock=clock, card={"customer": {"acts": acts, "delay": {"kind": "constant", "value": "0ms"}}})
    body = await authenticate(client, CHALLENGED, **fields)
    clock.advance(threeds.CHALLENGE_MS - 1)
    assert (await result(client))["transStatus"] == "C"
    clock.advance(1)
    assert outcome(await result(client)) == ("N", "14", "05", "07")
    text = await show(client, body)
    assert "Not verified" in text


async def test_who_opens_the_page_and_leaves_times_out_at_the_acs(start, clock):
    client = await start(clock=clock)
    body = await authenticate(client, CHALLENGED)
    await show(client, body)
    clock.advance(threeds.CHALLENGE_MS)
    assert outcome(await result(client)) == ("N", "14", "04", "07")


@pytest.mark.parametrize(
    ("number", "delay", "expected"),
    [
        (DECOUPLED, "1min", ("Y", None, None, "05")),
        (DECOUPLED_REFUSED, "1min", ("N", "01", None, "07")),
        (DECOUPLED, "6min", ("N", "24", "03", "07")),
    ],
)
async def test_a_decoupled_authentication_ends_by_the_customer_or_by_its_time(start, ear, clock, number, delay, expected):
    client = await start(clock=clock, card={"customer": {"delay": {"kind": "constant", "value": delay}}})
    body = await authenticate(client, number, threeDSRequestorDecMaxTime="00005", callbackURL=ear.url)
    assert (body["transStatus"], body["acsDecConInd"], "acsURL" in body) == ("D", "Y", False)
    status, _, _ = await client.call("GET", f"/card/acs/{body['acsTransID']}")
    assert status == 404
    clock.advance(5 * 60_000)
    assert outcome(await ear.next()) == expected


# The page.


async def show(client, body: dict[str, Any]) -> str:
    async with client.session.get(f"{client.url}/card/acs/{body['acsTransID']}") as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        return await answer.text()


async def act(client, body: dict[str, Any], *forms: dict[str, str]) -> str:
    """The page after these forms, each followed to where it leads."""
    for form in forms:
        async with client.session.post(f"{client.url}/card/acs/{body['acsTransID']}", data=form) as answer:
            text = await answer.text()
            assert answer.status == 200, text
            assert answer.method == "GET"  # it was redirected, so that reloading sends nothing again
    return text


def returning(text: str) -> tuple[str, dict[str, str]]:
    """Where the page's form leads, and what is in it."""
    (action,) = re.findall(r'action="([^"]*)"', text)
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', text)
    return unescape(action), {name: unescape(value) for name, value in hidden}


def read_message(text: str) -> dict[str, Any]:
    return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def creq(body: dict[str, Any], **changes: Any) -> str:
    message = {name: body[name] for name in ("threeDSServerTransID", "acsTransID", "messageVersion")}
    message |= {"messageType": "CReq", "challengeWindowSize": "05"} | changes
    return base64.urlsafe_b64encode(msgspec.json.encode(message)).decode().rstrip("=")


async def test_a_browser_goes_from_the_merchant_to_the_bank_and_back(start, ear):
    client = await start()
    body = await authenticate(client, CHALLENGED, returnURL=ear.url, deviceChannel="browser")
    assert body["acsURL"] == f"{client.url}/card/acs/{body['acsTransID']}"
    text = await act(client, body, {"creq": creq(body), "threeDSSessionData": "c2Vzc2lvbg"})
    assert all(part in text for part in ("INR 499.00", "Books &amp; Co", "•••• 3220", "<code>111000</code>"))
    assert CHALLENGED not in text
    assert not re.search(r"(src|href|@import|url\()", text)  # nothing from outside
    assert "2 tries left" in await act(client, body, WRONG)
    where, form = returning(await act(client, body, RIGHT))
    assert where == ear.url
    async with client.session.post(where, data=form) as answer:
        assert answer.status == 200
    headers, _ = await ear.hear()
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert form["threeDSSessionData"] == "c2Vzc2lvbg"
    ids = {name: body[name] for name in ("threeDSServerTransID", "acsTransID")}
    said = {"messageType": "CRes", "messageVersion": "2.2.0", "challengeCompletionInd": "Y", "transStatus": "Y"}
    assert read_message(form["cres"]) == ids | said
    found = await result(client)
    assert (found["transStatus"], found["interactionCounter"], "acsURL" in found) == ("Y", "02", False)


@pytest.mark.parametrize(
    ("forms", "expected", "counted"),
    [
        ([WRONG, WRONG, RIGHT], ("Y", None, None, "05"), "03"),
        ([WRONG, WRONG, WRONG], ("N", "19", None, "07"), "03"),
        ([WRONG, WRONG, WRONG, RIGHT, WRONG], ("N", "19", None, "07"), "03"),
        ([{"action": "cancel"}], ("N", "01", "01", "07"), None),
        ([{"action": "cancel"}, RIGHT], ("N", "01", "01", "07"), None),
        ([RIGHT, {"action": "cancel"}, WRONG, RIGHT], ("Y", None, None, "05"), "01"),
        ([{"action": "resend"}] * 4 + [RIGHT], ("Y", None, None, "05"), "01"),
        ([{"action": "submit", "otp": " 111000 "}], ("Y", None, None, "05"), "01"),
        ([{"action": "submit"}] * 3, ("N", "19", None, "07"), "03"),
    ],
)
async def test_what_the_cardholder_does_decides_once(start, clock, forms, expected, counted):
    client = await start(clock=clock)
    body = await authenticate(client, CHALLENGED)
    text = await act(client, body, *forms)
    found = await result(client)
    assert (outcome(found), found.get("interactionCounter")) == (expected, counted)
    assert clock.waiting == 0
    assert read_message(returning(text)[1]["cres"])["transStatus"] == expected[0]


async def test_a_password_is_sent_again_three_times(start):
    client = await start()
    body = await authenticate(client, CHALLENGED)
    text = [await act(client, body, {"action": "resend"}) for _ in range(4)]
    assert [f"({count} of 3 times)" in page for count, page in zip((1, 2, 3, 3), text, strict=True)] == [True] * 4
    assert ['value="resend"' in page for page in text] == [True, True, False, False]


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"action": "pay"}, "action: must be one of submit, resend, cancel"),
        ({"creq": "%"}, "creq: must be JSON in base64url"),
        ({"creq": "é"}, "creq: must be JSON in base64url"),
        ({"creq": "W10"}, "creq: Expected `object`"),  # []
        ({"creq": {"messageType": "CRes"}}, "creq: threeDSServerTransID"),
        ({"creq": {"messageVersion": "2.1.0"}}, "creq: threeDSServerTransID"),
        ({"creq": {"threeDSServerTransID": "other"}}, "creq: threeDSServerTransID"),
        ({"creq": {}, "threeDSSessionData": '"><script>'}, "threeDSSessionData: must be base64url"),
    ],
)
async def test_a_form_that_is_none_is_refused_and_changes_nothing(start, form, sentence):
    client = await start()
    body = await authenticate(client, CHALLENGED)
    if isinstance(form.get("creq"), dict):
        form = form | {"creq": creq(body, **form["creq"])}
    status, refused, _ = await client.call("POST", f"/card/acs/{body['acsTransID']}", data=form)
    assert (status, refused["code"]) == (400, "invalid_request")
    assert refused["error"].startswith(sentence)
    assert await result(client) == body


async def test_the_page_may_be_framed_and_posts_anywhere_and_runs_one_script(start):
    client = await start()
    body = await authenticate(client, CHALLENGED, returnURL="https://shop.example:8443/back?order=1&x='2'")
    text = await act(client, body, {"action": "cancel"})
    async with client.session.get(f"{client.url}/card/acs/{body['acsTransID']}") as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert policy.endswith("form-action 'self' http: https:")
    assert "frame-ancestors" not in policy
    assert re.findall(r"<script>(.*?)</script>", text) == [SUBMIT_SCRIPT]
    assert 'order=1&amp;x=&#x27;2&#x27;"' in text
    assert returning(text)[0] == "https://shop.example:8443/back?order=1&x='2'"


def test_a_cres_has_no_padding():
    assert "=" not in cres(waiting("Y"))


# The configuration.


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"authentication": {"I": 1}}, "authentication: unknown code 'I'; known are A, C, D, N, R, U, Y"),
        ({"authentication": {"Y": 0.5}}, "authentication must add up to 1, not 0.5"),
    ],
)
def test_a_mix_that_cannot_be_is_refused(configure, section, reason):
    for sections in (
        {"card": section},
        {"phases": [{"name": "p", "from": "0s", "until": "1s", "card": section}]},
    ):
        with pytest.raises(ConfigError, match=re.escape(reason)):
            configure(**sections)


async def test_a_phase_may_change_the_mix(start, clock):
    phase = {"name": "p", "from": "0s", "until": "1s", "card": {"authentication": {"R": 1}}}
    client = await start(clock=clock, phases=[phase])
    assert (await authenticate(client, APPROVED, "before"))["transStatus"] == "Y"
    await client.call("POST", "/admin/timeline", json={"startAtMs": clock.now_ms()})
    assert outcome(await authenticate(client, APPROVED, "within")) == ("R", "11", None, "07")


def test_a_charge_without_3d_secure_says_nothing_of_it():
    fields = Charge("ref", "id", "approved", "00", 1, "INR", 1, 1)
    assert "eci" not in msgspec.to_builtins(fields)


async def test_a_tenant_has_challenges_of_its_own(start):
    client = await start()
    path = "/t/job-7/card/3ds/authentications"
    _, body, _ = await client.call("POST", path, json=areq(CHALLENGED))
    assert body["acsURL"] == f"{client.url}/t/job-7/card/acs/{body['acsTransID']}"
    async with client.session.post(body["acsURL"], data=RIGHT) as answer:
        assert (answer.status, str(answer.url)) == (200, body["acsURL"])
    assert (await client.call("GET", f"{path}/auth"))[1]["transStatus"] == "Y"
    assert (await client.call("GET", "/card/3ds/authentications/auth"))[0] == 404


async def test_a_challenge_outlives_a_snapshot(start, clock):
    client = await start(clock=clock)
    body = await authenticate(client, CHALLENGED)
    assert (await client.call("POST", "/admin/snapshots", json={"name": "s"}))[0] in (200, 201)
    await act(client, body, {"action": "cancel"})
    assert (await client.call("POST", "/admin/snapshots/s/restore", json={}))[0] == 200
    assert await result(client) == body
    clock.advance(threeds.CHALLENGE_MS)
    assert outcome(await result(client)) == ("N", "14", "05", "07")


# The docs.


def test_the_docs_have_each_test_card_and_each_eci():
    text = (Path(__file__).parents[2] / "docs/3ds.md").read_text()
    found = re.findall(r"\| (\d{16}(?:, \d{16})?) \| `([A-Z])`", text)
    assert {number: status for numbers, status in found for number in numbers.split(", ")} == AUTHENTICATIONS
    rows = re.findall(r"^\| `([A-Z])` \|[^|]*\|[^|]*\|([^|]*)\|([^|]*)\|", text, re.MULTILINE)
    shown = {status: tuple(re.findall(r"\d\d", visa + mastercard)) for status, visa, mastercard in rows}
    networks = ("other", "mastercard")
    assert shown == {status: tuple(filter(None, (threeds.eci(status, name) for name in networks))) for status in STATUSES}
