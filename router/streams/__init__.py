"""The registry of streams: claims, viewers, routes of frames, and owners of stream ids. Pure."""
