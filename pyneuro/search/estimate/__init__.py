"""Estimates: a prediction for every (neuron, sample) pair, exact effects of a random few, and honest errors."""
