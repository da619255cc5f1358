"""`python -m redis_fastbatch` is the console script `redis-fastbatch`."""

from redis_fastbatch.cli import program

if __name__ == "__main__":
    program()
