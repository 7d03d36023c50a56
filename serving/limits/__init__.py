"""What a server holds at most, and what it answers when it can take no more."""
