"""The operator's tool ``watchout-ctl``: one file a command.

It joins the bus as a member, and connects to the gateway as a client.
"""
