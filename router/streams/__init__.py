"""Streams as the router knows them: claims, interest and routes. Pure."""
