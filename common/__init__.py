"""What every watchout process speaks: settings, bus messages, frame encodings, process life-cycle, logs.

``gateway``, ``router``, ``mlbridge`` and ``ctl`` import from here; this package imports from none of them.
Pure rooms (no socket, clock, log or random): ``settings``, ``errors``, ``messages``, ``frames``, ``alerts``,
``membership``, ``pacing``, ``zmtp``, ``backlog``. Edge rooms: ``bus`` (the only import of zmq), ``frame_sockets``,
``link``, ``service``, ``log``, ``metrics``, ``embedded_store``.
"""
