"""ISO 8583:1987 over TCP, in front of the card acquirer; the protocol is written down in docs/iso8583.md.

`codec` turns bytes into fields and back, `messages` gives the fields their meaning, `host` answers a message by the acquirer,
`server` does the network. Only `server` waits for anything.
"""
