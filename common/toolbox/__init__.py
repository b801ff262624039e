"""Small parts without knowledge of streams, alerts or users."""
