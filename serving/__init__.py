"""What faces people: HTTP routes, client, command line."""
