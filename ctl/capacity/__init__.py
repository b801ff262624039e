"""What a load needs by measured figures: CPU, memory, network; for `watchout-ctl capacity` and docs/capacity.md."""
