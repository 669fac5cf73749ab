"""Penstock's reference models: generated customer messages, training, export, measurement."""
