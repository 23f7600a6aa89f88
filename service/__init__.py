"""What faces people: the HTTP gateway, the client, the command line."""
