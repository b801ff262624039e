"""What every watchout process speaks: settings, bus messages, frame encodings, process life-cycle, logs.

``gateway``, ``router``, ``mlbridge``, ``identity`` and ``ctl`` import from here; this package imports none of them.
Which module does what, and which are pure, stands in docs/architecture.md.
"""
