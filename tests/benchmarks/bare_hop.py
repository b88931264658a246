"""The yardstick: aiohttp + uvloop + msgspec, one aiohttp-client hop to the card simulator, and nothing else.

    python bare_hop.py SIMULATORS_URL

Decodes the same request as the gateway, asks the simulator for the same charge over the same kind of client session, encodes the same
answer. No keys, no checks, no database, no ledger.
"""

import itertools
import json
import os
import sys

import msgspec
import uvloop
from aiohttp import web

from gateway.api.payments import PaymentData, ProcessRequest
from gateway.api.wire import Success
from gateway.outbound import open_session
from gateway.providers.card import CardData, Request
from gateway.providers.client import Charge

decode = msgspec.json.Decoder(ProcessRequest).decode
decode_charge = msgspec.json.Decoder(Charge).decode
encode = msgspec.json.Encoder().encode


async def main() -> None:
    charges = sys.argv[1] + "/card/charges"
    numbers = itertools.count()
    prefix = f"bare_{os.getpid()}_{os.urandom(4).hex()}_"
    session = open_session(connections_max=512)

    async def process(request: web.Request) -> web.Response:
        asked = decode(await request.read())
        card = asked.card_details
        reference = f"{prefix}{next(numbers)}"
        data = CardData(card.number, card.expiry_month, card.expiry_year, card.cvv)
        body = encode(Request(reference, asked.amount, asked.currency, asked.merchant_id, asked.order_id, data))
        async with session.post(charges, data=body, headers={"Content-Type": "application/json"}) as answer:
            charge = decode_charge(await answer.read())
        told = PaymentData(
            payment_id=reference,
            status=charge.status,
            amount=charge.amount,
            currency=charge.currency,
            transaction_id=charge.provider_id,
            created_at="2024-01-15T10:30:00.000Z",
        )
        return web.Response(body=encode(Success(True, told)), status=201, content_type="application/json")

    app = web.Application()
    app.router.add_post("/api/payments/process", process)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    print(json.dumps({"ready": "bare_hop", "url": f"http://{host}:{port}", "pid": os.getpid()}), flush=True)
    import asyncio

    await asyncio.Event().wait()


uvloop.run(main())
