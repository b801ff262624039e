"""The HTTP paths of the gateway, on aiohttp."""
