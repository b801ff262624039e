"""Video frames: their encodings, codecs, sizes and rates. No codec is run."""
