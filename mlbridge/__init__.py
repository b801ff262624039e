"""The bridge carries frames to one ML service and alerts back. It finds the router and nothing else.

Pure room: ``scheduler`` (newest frame per stream, fair turns, requests in flight). Edge rooms: ``targets`` (one file a
kind of ML service) and ``app``.
"""
