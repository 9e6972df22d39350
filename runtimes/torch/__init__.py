"""The reference engine: the source model itself."""
