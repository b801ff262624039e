"""mlbridge sends frames to one ML service and its alerts to the router. It connects to nothing else."""
