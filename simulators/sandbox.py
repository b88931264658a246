"""The configuration of who has none: calm, quick, the same each time, and signed with secrets that everybody knows."""

import base64

from simulators.config import Config, convert

SECRETS = {
    name: "whsec_" + base64.b64encode(f"paydrome-sandbox-{name:->15}".encode()).decode()
    for name in ("card", "upi", "bank", "merchant")
}
SETTINGS = {
    "card": {"latency": {"kind": "constant", "value": "50ms"}, "outcomes": {"00": 1}},
    "upi": {
        "latency": {"kind": "constant", "value": "20ms"},
        "outcomes": {"00": 1},
        "customer": {"delay": {"kind": "constant", "value": "2s"}},  # long enough to see the payment wait
    },
    "bank": {
        "latency": {"kind": "constant", "value": "20ms"},
        "outcomes": {"00": 1},
        "customer": {"acts": False},  # a person opens the redirectURL
    },
}


def config() -> Config:
    """The sandbox."""
    return convert({"secrets": SECRETS, **SETTINGS}, Config, file="sandbox")
