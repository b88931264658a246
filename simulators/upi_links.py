"""UPI payment links and their QR codes: pure.

The parameters are those of NPCI's "UPI Linking Specifications", version 1.6 (November 2017), for a dynamic merchant payment; the
initiation modes are NPCI's list as it grew with UPI 2.0 (04 intent, 15 dynamic QR code). The links are not signed (modes 05 and
16 would be), so `sign` and `orgid` are absent.
"""

import io
from hashlib import blake2b
from typing import Literal
from urllib.parse import quote

import segno

from simulators.behaviour import Draw

PAYEE_VPA = "merchant@paydrome"
PAYEE_MCC = "5999"  # ISO 18245: miscellaneous and specialty retail; 0000 would make it a payment between persons
MODES = {"intent": "04", "qr": "15"}
PURPOSE = "00"  # default

# The UPI message that the link becomes has these limits: Txn id and refId 35, note 50, payee name 99 characters.
ID_LENGTH_MAX = 35
NOTE_LENGTH_MAX = 50
NAME_LENGTH_MAX = 99

QR_PIXELS_PER_MODULE = 8
QR_QUIET_ZONE_MODULES = 4  # ISO/IEC 18004 asks for 4
QR_ERROR_CORRECTION = "m"  # 15%: what printed and displayed UPI codes use


def payment_link(
    flow: Literal["intent", "qr"], *, payee: str, reference: str, order: str | None, amount_paise: int, draw: Draw
) -> str:
    """`upi://pay?...` for a payment of `amount_paise` (1/100 rupee) to `payee`, which the customer's app opens or scans."""
    return (
        f"upi://pay?pa={PAYEE_VPA}&pn={_encoded(payee[:NAME_LENGTH_MAX])}&mc={PAYEE_MCC}"
        f"&tid={transaction_id(draw)}&tr={transaction_reference(reference)}"
        f"&tn={_encoded((order or 'Payment')[:NOTE_LENGTH_MAX])}"
        f"&am={rupees(amount_paise)}&cu=INR&mode={MODES[flow]}&purpose={PURPOSE}"
    )


def transaction_id(draw: Draw) -> str:
    """The id that a PSP gives its transaction: 35 letters and digits, the first three its own."""
    return f"PDR{draw.identity:016x}{draw.numbers:016x}"


def transaction_reference(reference: str) -> str:
    """Our reference where it fits into a link (35 characters), otherwise 35 that always stand for the same one."""
    if len(reference) <= ID_LENGTH_MAX:
        return reference
    return "PDR" + blake2b(reference.encode(), digest_size=16).hexdigest()


def rupees(paise: int) -> str:
    """An amount as a UPI link writes it: rupees with two decimals."""
    return f"{paise // 100}.{paise % 100:02d}"


def qr_svg(link: str) -> bytes:
    """An SVG file with the QR code of a link. Takes about 15 ms: call it in a thread."""
    file = io.BytesIO()
    segno.make_qr(link, error=QR_ERROR_CORRECTION).save(
        file, kind="svg", scale=QR_PIXELS_PER_MODULE, border=QR_QUIET_ZONE_MODULES, light="#fff"
    )
    return file.getvalue()


def _encoded(text: str) -> str:
    # RFC 3986: a space is %20 (a plus sign would stay one in many apps); @ needs no escape in a query.
    return quote(text, safe="@")
