"""The checks of the doctor: one module a check, which `ctl.doctor.registry` finds by its `CHECK`.

A check has a probe, which does the I/O and returns facts, and a verdict, a pure function from facts to findings. Each
probe ends within its deadline and changes nothing: it creates no file, uses up no ticket, and releases what it locks.
"""
