"""What the tests are made with: fakes, peers, pictures."""
