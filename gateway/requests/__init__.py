"""What a request says of its sender: addresses, web origins, credentials."""
