from redis_fastbatch._core.codec import ValueCodec

class Compressing(ValueCodec):
    def __init__(
        self, codec: ValueCodec, algorithm: str, level: int | None, min_size: int, max_value_size: int
    ) -> None: ...
    def limited(self, max_value_size: int) -> Compressing: ...
