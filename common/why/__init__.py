"""What each process remembers and measures so that `watchout-ctl why` can say why something was not seen."""
