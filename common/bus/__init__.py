"""The bus between the processes: its messages, membership, queues, and the transports that carry it.

From the bytes up: `messages`, `frames` and `reply_records` are what crosses the bus; `transport` says what a carrier
has to do, `zeromq` does it, `transport_choice` selects one; `peer_queue` and `credit` bound the frames that wait for
one peer; `membership` and `client` are a member's side. The router's side is `router.app`. The contract is docs/bus.md.
"""
