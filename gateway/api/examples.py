"""Requests that work in a sandbox as they stand, once there is what they are about; the tests make each of them."""

from typing import Any, NamedTuple


class Example(NamedTuple):
    summary: str
    body: Any  # JSON, or a text for other media types


CUSTOMER = {"email": "asha@example.com", "phone": "+91 98765 43210"}
CARD = {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": "2035", "cvv": "123", "holderName": "ASHA RAO"}
PAYMENT = {"merchantID": "merchant_123", "amount": 1000, "currency": "INR", "customerInfo": CUSTOMER, "orderID": "order-1"}
BY_CARD = PAYMENT | {"paymentMethod": "card", "cardDetails": CARD}
SHOP = {"returnUrl": "https://shop.example/thanks"}
COLLECT = {"flow": "collect", "vpa": "success@upi"}
BANK = {"bankCode": "HDFC0000001"}
ENDPOINT = {"url": "http://127.0.0.1:8000/webhooks", "events": ["payment.*", "refund.*"], "description": "the shop's backend"}
DAY = "2026-01-31"
FILE = "reference,subject,type,gross,fee,net,currency,at,providerID,merchantID\r\n"

EXAMPLES: dict[tuple[str, str], dict[str, Example]] = {
    ("POST", "/api/payments/process"): {
        "card": Example("By card", BY_CARD),
        "authorize": Example("Authorize a card, capture later", BY_CARD | {"captureMethod": "manual"}),
        "challenge": Example(
            "A card that asks for 3-D Secure", BY_CARD | SHOP | {"cardDetails": CARD | {"number": "4000000000003220"}}
        ),
        "declined": Example("A card that is declined", BY_CARD | {"cardDetails": CARD | {"number": "4000000000009995"}}),
        "upi": Example("By UPI, asking the customer", PAYMENT | {"paymentMethod": "upi", "upiDetails": COLLECT}),
        "qr": Example("By UPI, with a QR code", PAYMENT | {"paymentMethod": "upi", "upiDetails": {"flow": "qr"}}),
        "netbanking": Example("By net banking", PAYMENT | SHOP | {"paymentMethod": "netbanking", "netbankingDetails": BANK}),
    },
    ("POST", "/api/payments/{paymentID}/capture"): {
        "all": Example("All that is authorized", {}),
        "part": Example("A part", {"amount": 400}),
        "final": Example("A part; the rest is released", {"amount": 400, "final": True}),
    },
    ("POST", "/api/payments/{paymentID}/void"): {"void": Example("Void", {})},
    ("POST", "/api/refunds/process"): {
        "part": Example("A part", {"paymentID": "{paymentID}", "amount": 400, "reason": "one item came back"}),
        "all": Example("All that can be refunded", {"paymentID": "{paymentID}"}),
    },
    ("POST", "/api/disputes/{disputeID}/accept"): {"accept": Example("Give in", {})},
    ("POST", "/api/disputes/{disputeID}/evidence"): {
        "evidence": Example("Answer", {"text": "Delivered and signed for on 20 November."})
    },
    ("POST", "/api/settlements/process"): {"day": Example("A day", {"merchantID": "merchant_123", "date": DAY})},
    ("POST", "/api/reconciliation/run"): {
        "csv": Example("With the provider's CSV file", {"provider": "card", "date": DAY}),
    },
    ("POST", "/api/reconciliation/upload"): {"csv": Example("A day on which nothing moved", FILE)},
    ("POST", "/api/reconciliation/breaks/{breakID}/resolve"): {
        "note": Example("With a note", {"note": "The provider will correct it."})
    },
    ("POST", "/api/webhooks/endpoints"): {
        "some": Example("Some events", ENDPOINT),
        "all": Example("All events", {"url": ENDPOINT["url"]}),
    },
    ("PATCH", "/api/webhooks/endpoints/{endpointID}"): {"events": Example("Other events", {"events": ["payment.completed"]})},
    ("POST", "/api/webhooks/endpoints/{endpointID}"): {"events": Example("Other events", {"events": ["payment.completed"]})},
    ("POST", "/api/webhooks/endpoints/{endpointID}/rotate"): {
        "day": Example("Both secrets sign for a day", {}),
        "now": Example("The old secret ends at once", {"overlapSeconds": 0}),
    },
    ("POST", "/api/webhooks/endpoints/{endpointID}/disable"): {"disable": Example("Disable", {})},
    ("POST", "/api/webhooks/endpoints/{endpointID}/enable"): {"enable": Example("Enable", {})},
    ("POST", "/api/webhooks/endpoints/{endpointID}/replay"): {"replay": Example("All its dead letters", {})},
    ("POST", "/api/webhooks/events/{eventID}/replay"): {
        "all": Example("To all endpoints that it is for", {}),
        "one": Example("To one endpoint", {"endpointID": "{endpointID}"}),
    },
}
