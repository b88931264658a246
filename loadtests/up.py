"""`paydrome up`: gateway and simulators for people, until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import platformdirs
from msgspec import Struct, structs

from loadtests.child import ChildError
from loadtests.collect import start_timeline
from loadtests.scenario import Scenario
from loadtests.stack import Files, Stack
from simulators.admin_cli import DEFAULT_URL

DB_NAME = "gateway.db"


class Order(Struct, frozen=True):
    """What to start. `db` None: the file in the platform's state directory, where the gateway itself looks by default."""

    scenario: Scenario
    port: int
    simulators_port: int
    db: Path | None
    as_json: bool


async def up(order: Order) -> int:
    """Returns 0 when it was told to stop. Raises StackError, or ChildError when a child did not start or ended by itself."""
    told_to_stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    db = (order.db or platformdirs.user_state_path("paydrome", appauthor=False) / DB_NAME).absolute()
    files = Files.under(db.with_name(f"{db.name}.up"), db=db)  # one gateway a database, and one folder a gateway, beside it
    async with Stack(
        files,
        order.scenario.simulators,
        seed=order.scenario.seed,
        port=order.port,
        simulators_port=order.simulators_port,
        fees=structs.asdict(order.scenario.fees),
    ) as stack:
        await start_timeline(stack, time.time())
        print(ready_line(stack) if order.as_json else welcome(stack, order), flush=True)
        await _until(told_to_stop, stack)
        stopped = await stack.stop()
    if not order.as_json:
        print("\nstopped" + "".join(f"; note: {child}" for child in stopped if not child.clean))
    return 0


async def _until(told_to_stop: asyncio.Event, stack: Stack) -> None:
    telling, dying = asyncio.create_task(told_to_stop.wait()), asyncio.create_task(stack.died())
    await asyncio.wait({telling, dying}, return_when=asyncio.FIRST_COMPLETED)
    for task in (telling, dying):
        task.cancel()
    if not told_to_stop.is_set():
        raise ChildError(dying.result())


def ready_line(stack: Stack) -> str:
    """One line for scripts."""
    fields = {
        "gateway": stack.gateway_url,
        "simulators": stack.simulators_url,
        "key": stack.key,
        "merchantID": stack.merchant_id,
        "operatorKey": stack.operator_key,
    }
    return json.dumps({**fields, "db": str(stack.files.db), "pids": stack.pids})


def welcome(stack: Stack, order: Order) -> str:
    """What a person needs to make the first payment."""
    admin = "" if stack.simulators_url == DEFAULT_URL else f"PAYDROME_URL={stack.simulators_url} "
    return f"""paydrome is up (ready in {stack.ready_s:.2f} s), scenario {order.scenario.name}

  gateway     {stack.gateway_url}
  simulators  {stack.simulators_url}   (what really happened: {stack.simulators_url}/journal)
  merchant    {stack.merchant_id}
  key         {stack.key}   (the operator's: {stack.operator_key})
  database    {stack.files.db}
  logs        {stack.files.directory}

Pay ten rupees by card:

{curl_line(stack)}

{TEST_VALUES}
Next:

  every call, with a curl line       {stack.gateway_url}/docs
  from the payment to the bank       docs/walk-through.md, to be pasted line by line
  bad days, and days in a second     {admin}paydrome admin --help

Ctrl-C stops."""


def curl_line(stack: Stack) -> str:
    """A payment that works as pasted into a shell, any number of times."""
    card = {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": str(datetime.now(UTC).year + 3), "cvv": "123"}
    body = {
        "merchantID": stack.merchant_id,
        "amount": 1000,
        "currency": "INR",
        "paymentMethod": "card",
        "cardDetails": card,
        "customerInfo": {"email": "asha@example.com", "phone": "+919812345678"},
        "orderID": "order_1",
    }
    return (
        f"curl -sS {stack.gateway_url}/api/payments/process -H 'Authorization: Bearer {stack.key}' "
        f"-H 'Content-Type: application/json' -d '{json.dumps(body)}'"
    )


TEST_VALUES = """Test values (any future expiry, any CVV):

  card  4111111111111111   approved            upi   success@upi             approved after a moment
        4242424242424242   approved                  failure@upi             declined
        4000000000000002   declined, 05              insufficientfunds@upi   declined, Z9
        4000000000009995   no funds, 51              pending@upi             approved after 10 s
        4000000000000069   expired card, 54    bank  TESTS, TESTF, TESTP     succeeds, fails, stays pending
        4000000000000127   wrong CVC, N7             any IFSC-style code     opens the page in nextAction: OTP 111000
        4000000000003220   3-D Secure: opens the page in nextAction: OTP 111000
        4000000000000259   approved, and disputed 2 s later
"""
