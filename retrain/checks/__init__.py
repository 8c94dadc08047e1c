"""What may be wrong with a folder of pictures, before or after training on it."""
