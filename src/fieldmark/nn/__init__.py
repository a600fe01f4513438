"""Small modules and pure functions that methods and encoders hold."""
