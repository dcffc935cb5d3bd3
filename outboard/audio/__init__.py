"""Signal processing on NumPy arrays of float32, shape ``(channels, frames)``, nominal full scale ±1.0."""
