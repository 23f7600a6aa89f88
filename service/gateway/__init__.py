"""The HTTP gateway: checks requests, writes them to the store, and shows what became of them."""
