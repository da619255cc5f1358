"""redis_fastbatch against its peers and against the wire itself: see README.md in this directory."""
