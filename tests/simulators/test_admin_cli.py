"""`paydrome admin` as people type it, against simulators that run."""

import asyncio
import io
import json
import shlex
import socket

import pytest
from aiohttp import web

from loadtests.cli import main
from simulators import admin_cli

CARD = {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": "2099", "cvv": "123"}


@pytest.fixture
async def admin(start, capsys, monkeypatch):
    """`await admin("advance 7d")` gives exit code, what was printed, and what was said to stderr."""
    client = await start()
    monkeypatch.setenv("PAYDROME_URL", client.url)

    async def run(line, *before):
        code = await asyncio.to_thread(main, ["admin", *before, *shlex.split(line)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    run.client = client
    return run


async def answer(admin, line):
    code, out, err = await admin(line)
    assert (code, err) == (0, "")
    return json.loads(out)


async def test_settings_are_shown_and_changed(admin):
    changed = await answer(admin, """set card.outcomes '{"00": null, "51": 1}'""")
    assert changed["outcomes"] == {"51": 1}
    assert (await answer(admin, "config"))["card"] == changed
    assert (await answer(admin, "set card.authorization_lifetime 3d"))["authorization_lifetime"] == "3d"
    assert (await admin.client.card("r"))["responseCode"] == "51"


async def test_faults_are_started_listed_and_stopped(admin):
    line = "fault start outage provider=card kind=rate_limited operation=create retry_after=3s bin=411111 first=1"
    fault = await answer(admin, line)
    assert (await answer(admin, "faults"))["faults"] == [fault | {"probability": 1.0}]
    assert (await admin.client.card("r"))["code"] == "rate_limited"
    assert (await answer(admin, "fault stop outage"))["stopped"][0]["name"] == "outage"
    assert (await answer(admin, "faults"))["faults"] == []


async def test_time_moves(admin):
    assert (await answer(admin, "advance 7d"))["offsetMs"] == 7 * 86_400_000
    assert (await answer(admin, "clock"))["offsetMs"] == 7 * 86_400_000


async def test_a_world_is_kept_restored_and_reset(admin):
    await answer(admin, "snapshot clean")
    await admin.client.card("r")
    assert (await answer(admin, "snapshots"))["snapshots"][0]["name"] == "clean"
    await answer(admin, "restore clean")
    assert await admin.client.journal() == []
    await admin.client.card("r")
    assert (await answer(admin, "reset --seed 5"))["seed"] == 5
    assert await admin.client.journal() == []


async def test_the_journal_is_searched_line_by_line(admin):
    for reference in ("a", "b"):
        await admin.client.card(reference)
    code, out, _ = await admin("journal")
    assert (code, [json.loads(line)["reference"] for line in out.splitlines()]) == (0, ["a", "b"])
    assert (await answer(admin, "journal reference=b"))["seq"] == 2


async def test_what_is_verified_decides_the_exit_code(admin):
    await admin.client.card("7")
    assert (await answer(admin, "verify operation=create reference=7 moved=1000"))["ok"]
    code, out, _ = await admin("verify operation=create reference=7 count=2")
    assert (code, json.loads(out)["failures"][0]["found"]) == (1, 1)


async def test_the_digest_is_that_of_the_api(admin):
    await admin.client.card("r")
    assert await answer(admin, "digest") == (await admin.client.call("GET", "/admin/digest"))[1]


async def test_a_tenant_is_controlled_alone(admin, monkeypatch):
    code, _, _ = await admin("advance 1h", "--tenant", "a")
    assert code == 0
    assert (await answer(admin, "clock"))["offsetMs"] == 0
    monkeypatch.setenv("PAYDROME_TENANT", "a")
    assert (await answer(admin, "clock"))["offsetMs"] == 3_600_000


async def test_tenants_are_made_listed_and_ended_whomever_the_environment_names(admin, monkeypatch):
    monkeypatch.setenv("PAYDROME_TENANT", "a")
    assert (await answer(admin, "tenant create job --seed 5"))["seed"] == 5
    assert [one["name"] for one in (await answer(admin, "tenants"))["tenants"]] == ["job"]
    assert await answer(admin, "tenant delete job") == {"deleted": "job"}
    assert (await answer(admin, "tenants"))["tenants"] == []


async def test_the_timeline_begins_now(admin):
    start_ms = (await answer(admin, "timeline"))["startAtMs"]
    clock = await answer(admin, "clock")
    assert clock["nowMs"] - clock["timelineMs"] == start_ms


async def test_json_is_one_line(admin):
    code, out, _ = await admin("config", "--json")
    assert (code, out.count("\n"), "card" in json.loads(out)) == (0, 1, True)


@pytest.mark.parametrize("line", ["clock --json --tenant a", "--json --tenant a clock", "--tenant b clock --json --tenant a"])
async def test_options_may_stand_before_and_after_the_action(admin, line):
    await answer(admin, "--tenant a advance 1h")
    code, out, _ = await admin(line)
    assert (code, out.count("\n"), json.loads(out)["offsetMs"]) == (0, 1, 3_600_000)


@pytest.mark.parametrize("order", ["1e5", "007", "true", "null", "1.50", '"q"'])
async def test_an_order_is_text_whatever_it_looks_like(admin, order):
    body = {"reference": "r", "amount": 1000, "currency": "INR", "merchantID": "m", "orderID": order, "card": CARD}
    await admin.client.call("POST", "/card/charges", json=body)
    assert (await answer(admin, f"journal order={shlex.quote(order)}"))["orderID"] == order
    assert (await answer(admin, f"verify order={shlex.quote(order)} moved=1000"))["ok"]


async def test_what_a_terminal_cannot_show_is_escaped(admin, monkeypatch):
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", ascii_only)
    body = json.dumps({"text": "₹"})
    await admin.client.call("POST", "/merchant/webhooks/shop", data=body)
    assert await asyncio.to_thread(main, ["admin", "journal"]) == 0
    ascii_only.seek(0)
    assert json.loads(ascii_only.read())["body"] == {"text": "₹"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("set card.outcomes 3", "card.outcomes: "),
        ("set crd 3", "did you mean 'card'"),
        ("set nonsense null", "nonsense: there is no such setting"),
        ("set card.latancy null", "card.latancy: there is no such setting; did you mean 'latency'?"),
        ("fault start x provider=crad kind=late", "provider: Invalid enum value 'crad'; use bank or card or upi"),
        ("verify refrence=r", "did you mean 'reference'?"),
        ("tenant delete none", "no tenant 'none'"),
        ("tenant create a/b", "name: "),
        ("fault stop none", "no fault called 'none'"),
        ("fault start x provider=card kind=late", "late needs delay"),
        ("advance 7", "by: "),
        ("restore none", "no snapshot"),
        ("reset --seed -1", "seed: "),
        ("journal colour=red", "colour"),
    ],
)
async def test_a_refusal_is_one_clear_line(admin, line, words):
    code, out, err = await admin(line)
    assert (code, out, err.count("\n"), words in err) == (1, "", 1, True), err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "required: ACTION"),
        ("fault", "required: start|stop"),
        ("fault start x", "required: FIELD=VALUE"),
        ("fault start x provider", "'provider' is not FIELD=VALUE"),
        ("fault start x provider=card kind=late provider=upi", "provider stands there twice"),
        ("journal order=a order=b", "order stands there twice"),
        ("verify", "required: FIELD=VALUE"),
        ("dance", "invalid choice: 'dance'"),
        ("advance", "required: by"),
        ("tenant create", "required: name"),
    ],
)
def test_a_wrong_command_line_is_explained(line, words, capsys):
    with pytest.raises(SystemExit) as end:
        main(["admin", *line.split()])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "usage: paydrome admin" in said
    assert words in said


def test_when_nobody_is_there_it_says_what_to_do(capsys):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    assert main(["admin", "--url", url, "clock"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"paydrome admin: cannot reach {url}: ")
    assert said.endswith("`paydrome simulators` starts them\n")


@pytest.mark.parametrize("url", ["localhost:9000", "http://", "ftp://x", "http://[::1", "", "http://a b"])
def test_a_url_that_is_none_is_told_and_no_traceback(url, capsys):
    assert main(["admin", "--url", url, "clock"]) == 1
    assert "cannot reach" in capsys.readouterr().err


@pytest.mark.parametrize("status", [200, 500])
async def test_another_service_is_recognized(status, capsys):
    async def hello(_):
        return web.Response(status=status, text="<h1>Hello</h1>")

    listener = socket.create_server(("127.0.0.1", 0))
    runner = web.ServerRunner(web.Server(hello), shutdown_timeout=0.1)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    for action in ("clock", "journal"):
        assert await asyncio.to_thread(main, ["admin", "--url", url, action]) == 1
        assert "is it another service?" in capsys.readouterr().err
    await runner.cleanup()


async def test_every_example_of_the_help_is_accepted(admin):
    shown = [line.strip().partition("   ")[0] for line in admin_cli.EPILOG.splitlines() if "  paydrome admin" in line]
    lines = [one for line in shown for one in line.split("; ")]
    assert len(lines) > 8
    for line in lines:
        words = shlex.split(line)
        if words[2] not in ("verify", "explain"):
            assert await asyncio.to_thread(main, words[1:]) == 0
