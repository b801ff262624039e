"""The bridge carries frames to one ML service and alerts back. It finds the router and nothing else.

Pure rooms: ``scheduler`` (newest frame per stream, fair turns, requests in flight), ``alerts`` (what the service may
say, what waits for the router). Edge rooms: ``feed`` (frames to the service), ``outbox`` (alerts to the router),
``targets`` (one file a kind of ML service). ``app`` wires them and decides nothing.
"""
