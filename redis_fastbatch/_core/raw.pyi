from redis_fastbatch._core.codec import ValueCodec

class RawCodec(ValueCodec):
    def __init__(self) -> None: ...
