"""What a batch writes beside its journal."""
