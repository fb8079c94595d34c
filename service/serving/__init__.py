"""gunicorn, as this service needs it: processes, connections, the event loop, and refusing what is too much."""
