"""The demo firmware in software, reached through the API of bleak."""
