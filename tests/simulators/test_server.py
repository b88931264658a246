"""What the server does below the handlers: callers who hang up, and those who ask before they send."""

import asyncio
import socket

from aiohttp import web

from simulators.server import Server


async def test_who_hangs_up_while_the_answer_goes_out_is_no_error_of_the_server(caplog):
    served = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        request.transport.abort()  # what the caller's end of the connection comes to here
        served.set()
        await response.write(b"too late")
        return response

    with socket.create_server(("127.0.0.1", 0)) as listener:
        runner = web.ServerRunner(Server(answer))
        await runner.setup()
        await web.SockSite(runner, listener).start()
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"GET /journal HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"too late" not in await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await runner.cleanup()
    assert served.is_set()
    assert caplog.records == []


async def test_who_asks_before_sending_is_told_to_go_on(start):
    client = await start()
    body = b'{"amount":1000,"currency":"INR"}'
    reader, writer = await asyncio.open_connection("127.0.0.1", int(client.url.rpartition(":")[2]))
    head = b"POST /card/charges/ref/reverse HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\n"
    writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body))
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'"status":"reversed"' in answer
    writer.close()
