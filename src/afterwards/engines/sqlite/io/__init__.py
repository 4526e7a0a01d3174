"""Connections to the SQLite file, the threads that own them, and the locks and sockets beside the file."""
