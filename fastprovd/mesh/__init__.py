"""The Mesh Protocol, sans-IO: bytes and `now` in, events and bytes out."""
