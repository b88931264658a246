"""What the fields of requests and answers mean: said once a name, for openapi.py. A field that means something else somewhere says so in
its own struct."""

import re
from typing import NamedTuple

from gateway.core.money import CURRENCY_EXPONENTS

INSTANT = "2026-11-23T10:30:00.000Z"
MOMENT_NAME = re.compile(r"\w+At|respondBy|at|timestamp")  # of texts: RFC 3339 in UTC, with milliseconds
_SERIAL = "019c3f0a5b7e4d21a96f3b8c5d0e7f12"


class Word(NamedTuple):
    means: str
    example: object = None
    pattern: str | None = None


def _id(prefix: str, what: str) -> Word:
    return Word(what, f"{prefix}_{_SERIAL}", f"^{prefix}_[0-9a-f]{{32}}$")


def _amount(what: str, example: int = 1000) -> Word:
    return Word(f"{what}, in the currency's minor unit", example)


_CURRENCIES = "|".join(CURRENCY_EXPONENTS)

GLOSSARY: dict[str, Word] = {
    # who and what
    "paymentID": _id("pay", "The payment"),
    "transactionID": _id("txn", "The movement of money, as transactions and reports list it"),
    "refundID": _id("ref", "The refund"),
    "captureID": _id("cap", "The capture"),
    "disputeID": _id("dsp", "The dispute"),
    "settlementID": _id("set", "The settlement"),
    "runID": _id("rec", "The reconciliation of a provider's day"),
    "breakID": Word("The break", f"brk_{_SERIAL}", "^brk_[0-9a-f]{32}$"),
    "eventID": Word("The event; its webhook's `webhook-id`", f"evt_{_SERIAL}_2", "^evt_[0-9a-f]{32}_[0-9]+$"),
    "subjectID": Word("The payment or settlement that the event is about", f"pay_{_SERIAL}", "^(pay|set)_[0-9a-f]{32}$"),
    "endpointID": Word("The webhook endpoint", f"ep_{_SERIAL}", "^[A-Za-z0-9_-]{1,64}$"),
    "entryID": Word("The entry of the ledger", f"ent_{_SERIAL}_capture"),
    "merchantID": Word("The merchant that the API key belongs to", "merchant_123", "^[A-Za-z0-9_.:-]{1,64}$"),
    "orderID": Word("Your own id of the order", "order-1"),
    "providerID": Word("The provider's own id of it", "prov_1"),
    "deviceID": Word("Your own id of the customer's device"),
    "requestID": Word("The request, as the gateway's log has it", f"req_{_SERIAL}"),
    "id": Word("Your own id of the customer", "customer-7"),
    # money
    "amount": Word("The amount, in the currency's minor unit: a whole number, without a decimal point", 1000),
    "currency": Word("ISO 4217 code", "INR", f"^({_CURRENCIES})$"),
    "capturedAmount": _amount("What was captured so far"),
    "capturableAmount": _amount("What can still be captured", 0),
    "refundableAmount": _amount("What can still be refunded"),
    "refundedAmount": _amount("What was refunded, or is being refunded", 0),
    "disputedAmount": _amount("What disputes have taken", 0),
    "totalAmount": _amount("What is paid out"),
    "openingBalance": _amount("What the settlement before left below zero", 0),
    "carriedForward": _amount("What is left below zero for the next settlement", 0),
    "captured": _amount("Captures"),
    "refunds": _amount("Refunds", 0),
    "chargebacks": _amount("Chargebacks", 0),
    "fees": _amount("Fees of the captures", 20),
    "fee": _amount("The fee", 20),
    "gross": _amount("Before the fee"),
    "net": _amount("What is left for the merchant", 980),
    "expectedAmount": _amount("What our books have"),
    "actualAmount": _amount("What the provider's file has", 900),
    "expectedFee": _amount("The fee that was agreed", 20),
    "actualFee": _amount("The fee that the provider's file has", 25),
    # how it stands
    "status": Word("How it stands", "completed"),
    "failureReason": Word("Why it failed, for a program", "insufficient_funds"),
    "declineCode": Word("The provider's code: ISO 8583 field 39 for cards, NPCI's for UPI", "51"),
    "reason": Word("Why"),
    "captureMethod": Word("`manual`: authorize now, and capture later (cards only)"),
    "refundStatus": Word("How much of it was refunded"),
    "disputeStatus": Word("How its latest dispute stands"),
    "ending": Word("What it becomes once the provider has acknowledged a void or expiry that is under way"),
    "nextAction": Word("What the customer has to do now"),
    "final": Word("Whether what is left after this capture is released"),
    "responding": Word("The answer that is on its way to the provider"),
    "evidence": Word("What was submitted to the issuer", "Delivered and signed for on 20 November."),
    "capture": Word("The capture that was made"),
    "authentication": Word("How 3-D Secure went"),
    "transStatus": Word("EMV 3-D Secure: Y authenticated, A attempted, N not, R rejected, U unable, C challenged", "Y"),
    "transStatusReason": Word("EMV 3-D Secure: why not, as a number of two digits", "01"),
    "eci": Word("The electronic commerce indicator: who is liable", "05"),
    "respondBy": Word("Until when an answer counts"),
    "createdAt": Word("When it was made"),
    "updatedAt": Word("When it last changed"),
    "timestamp": Word("When it happened"),
    "bookedAt": Word("When it was entered in the ledger"),
    "endsAt": Word("The end of that day in the merchant's time zone"),
    "at": Word("When"),
    "date": Word("The day", "2026-11-22"),
    "foundDate": Word("The day of the file that it was found in", "2026-11-23"),
    "timezone": Word("The merchant's time zone, by its IANA name", "Asia/Kolkata"),
    "type": Word("What kind it is"),
    "kind": Word("What is wrong"),
    # who pays, and with what
    "paymentMethod": Word("How the customer pays"),
    "customerInfo": Word("Who pays"),
    "cardDetails": Word("With paymentMethod `card`"),
    "upiDetails": Word("With paymentMethod `upi`"),
    "netbankingDetails": Word("With paymentMethod `netbanking`"),
    "number": Word("The card's number, 12 to 19 digits, of which the last one checks the others (Luhn)", "4111111111111111"),
    "expiryMonth": Word("1 to 12", "12"),
    "expiryYear": Word("Four digits, not in the past and at most 20 years ahead", "2035"),
    "cvv": Word("The three or four digits on the card; never stored", "123"),
    "holderName": Word("As it stands on the card", "ASHA RAO"),
    "brand": Word("The card's scheme", "visa"),
    "bin": Word("The card's first six digits", "411111"),
    "last4": Word("The card's last four digits", "1111"),
    "flow": Word("`collect` asks the customer by their VPA, `intent` opens their app, `qr` shows a code"),
    "vpa": Word("The customer's UPI address; flow `collect` needs it", "success@upi"),
    "bankCode": Word("The customer's bank, as an IFSC or its bank code", "HDFC0000001"),
    "email": Word("The customer's e-mail address", "asha@example.com"),
    "phone": Word("The customer's telephone number", "+91 98765 43210"),
    "ip": Word("The address that the customer comes from", "203.0.113.7"),
    "country": Word("ISO 3166-1 code of the customer's country", "IN"),
    "returnUrl": Word(
        "Where the customer's browser is sent afterwards, with `paymentID` and `status`", "https://shop.example/thanks"
    ),
    "metadata": Word("Anything of yours, up to 50 texts by name"),
    "url": Word("Where to"),
    "payload": Word("What a UPI app is given", "upi://pay?pa=shop@bank&am=10.00"),
    # lists
    "limit": Word("How many at most"),
    "offset": Word("How many to leave out"),
    "cursor": Word("The `nextCursor` of the page before"),
    "nextCursor": Word("What to send as `cursor` for the next page; absent on the last one"),
    "hasMore": Word("Whether there is more"),
    "total": Word("How many there are in all", 1),
    "rows": Word("The lines"),
    "totals": Word("Sums of the rows, by currency and type"),
    "count": Word("How many rows", 1),
    "from": Word("From this moment on", "2026-11-01T00:00:00Z"),
    "to": Word("Up to, and without, this moment", "2026-12-01T00:00:00Z"),
    "format": Word("In which format"),
    "report": Word("The report's name", "transactions"),
    "method": Word("The payment method"),
    "state": Word("How it stands"),
    # settlements and reconciliation
    "provider": Word("The provider behind the payment method"),
    "lines": Word("By provider"),
    "settlements": Word("One a currency"),
    "unsettled": Word("One a currency"),
    "payout": Word("How it was paid out"),
    "transactionCount": Word("How many movements", 1),
    "captureCount": Word("How many captures", 1),
    "refundCount": Word("How many refunds", 0),
    "chargebackCount": Word("How many chargebacks", 0),
    "account": Word("The end of the merchant's account number", "...6789"),
    "ifsc": Word("The branch of the merchant's bank", "HDFC0000001"),
    "utr": Word("The payment network's own reference", "123456789012"),
    "reference": Word("Our reference at the provider", f"att_{_SERIAL}_01"),
    "subject": Word("The capture, refund or dispute; absent for a charge that was captured at once", f"ref_{_SERIAL}"),
    "source": Word("Where the file came from", "upload"),
    "error": Word("What is wrong"),
    "movements": Word("Movements in our books", 1),
    "matched": Word("Rows that our books agree with", 1),
    "breaks": Word("What was found wrong, by kind"),
    "amount_mismatch": Word("How many with another amount or fee", 0),
    "missing_in_provider": Word("How many that only our books have", 0),
    "missing_in_gateway": Word("How many that only the file has", 0),
    "duplicate": Word("How many that the file has twice", 0),
    "late": Word("How many that were in a later day's file than they should have been", 0),
    "uncovered": Word("Movements in currencies that the file is not about", 0),
    "runs": Word("How often this day was reconciled", 1),
    "resolvedBy": Word("Who resolved it: `operator`, `system` or a merchant", "operator"),
    "history": Word("What was done about it, the oldest first"),
    "note": Word("What a person should know", "The provider will correct it."),
    "by": Word("Who", "operator"),
    # webhooks
    "event": Word("What has happened"),
    "events": Word("Which events: exact names, families such as `payment.*`, or `*` for all", ["payment.*"]),
    "sequence": Word("Its number among the events of its subject, from 1 without gaps", 2),
    "data": Word("What the event tells"),
    "body": Word("The webhook's body, byte for byte"),
    "deliveries": Word("One for each endpoint that it goes to"),
    "attempts": Word("The latest tries"),
    "tries": Word("How often it was tried", 1),
    "dueAt": Word("When it is tried next"),
    "lastError": Word("What went wrong last", "HTTP 500"),
    "durationMs": Word("How long it took, in milliseconds", 12),
    "response": Word("How the receiver's answer begins", "ok"),
    "description": Word("Your own note", "the shop's backend"),
    "enabled": Word("Whether events are sent there"),
    "secret": Word("What the webhooks are signed with; told this once", "whsec_bWVyY2hhbnQqKioqKioqKioqKioqKioqKioqKioqKg=="),
    "oldSecretExpiresAt": Word("Until when the old secret signs, too"),
    "overlapSeconds": Word("For how long the old secret goes on signing beside the new one; 0: not at all", 86400),
    "replayed": Word("How many are sent again", 3),
    "received": Word("It was taken"),
    # the envelope, errors, health
    "success": Word("Whether it was done"),
    "code": Word("What is wrong, for a program", "invalid_request"),
    "param": Word("The field or parameter that is wrong", "cardDetails.number"),
    "title": Word("The status' own phrase", "Bad Request"),
    "detail": Word("What is wrong"),
    "totalPayments": Word("Payments ever made", 2),
    "totalTransactions": Word("Movements of money", 3),
    "text": Word("What the issuer should know", "Delivered and signed for on 20 November."),
    "name": Word("What it is called"),
}
