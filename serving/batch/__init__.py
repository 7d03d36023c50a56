"""Many questions about many images, through a server, into one durable output."""
