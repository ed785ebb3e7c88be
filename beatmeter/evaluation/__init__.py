"""Second waist and everything right of it: predictions, metrics, findings, reports. Numpy only."""
