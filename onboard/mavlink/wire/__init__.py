"""Bytes and packets: transports that come back, framing, signing, and the connection to one vehicle."""
