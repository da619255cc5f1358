"""`python -m redis_fastbatch` is the console script `redis-fastbatch`."""

import sys

from redis_fastbatch.cli import main

if __name__ == "__main__":
    sys.exit(main())
