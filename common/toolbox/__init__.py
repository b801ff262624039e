"""Small parts that know nothing of frames or alerts."""
