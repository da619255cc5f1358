"""The compiled core: buffers, RESP and codecs. It knows bytes, not Redis clients."""
