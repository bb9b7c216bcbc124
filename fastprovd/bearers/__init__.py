"""The only room of the daemon that imports bleak."""
