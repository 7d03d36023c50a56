"""What a batch reads."""
