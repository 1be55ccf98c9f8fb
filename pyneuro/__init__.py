"""pyneuro."""
