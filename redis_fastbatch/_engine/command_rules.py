"""What is known of commands by their names: which ones a batch refuses, and where the keys of others are.

The key of most commands is their first argument. Only the others are listed here.
"""

from __future__ import annotations

from redis_fastbatch._core.resp.commands import CommandRule

_PUBSUB = "{} changes what the connection receives: use pubsub() of the client"
_STATE = "{} changes the state of a connection that other callers use: {}"

_REFUSED = {
    **dict.fromkeys(
        (b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE", b"UNSUBSCRIBE", b"PUNSUBSCRIBE", b"SUNSUBSCRIBE"), _PUBSUB
    ),
    b"MONITOR": "{} turns the connection into a stream of messages: use monitor() of the client",
    **dict.fromkeys(
        (b"MULTI", b"EXEC", b"DISCARD", b"WATCH", b"UNWATCH"),
        "{} is a part of a transaction, whose replies come later: use pipeline(transaction=True)",
    ),
    b"SELECT": _STATE.format("{}", "make the client with db=... for another database"),
    b"AUTH": _STATE.format("{}", "make the client with username=... and password=..."),
    b"HELLO": _STATE.format("{}", "make the client with protocol=..."),
    b"RESET": _STATE.format("{}", "close the client instead"),
    b"QUIT": "{} closes the connection: close the client instead",
    **dict.fromkeys(
        (b"SYNC", b"PSYNC", b"REPLCONF"), "{} is for replicas, and turns the connection into a stream of changes"
    ),
    **dict.fromkeys(
        (b"ASKING", b"READONLY", b"READWRITE"),
        _STATE.format("{}", "use a redis.RedisCluster client, which sends it where needed"),
    ),
}

_CLIENT = {
    b"REPLY": "{} turns replies off, which a batch counts: leave it out",
    b"TRACKING": _STATE.format("{}", "make the client with cache_config=..."),
    b"CACHING": _STATE.format("{}", "make the client with cache_config=..."),
    b"SETNAME": _STATE.format("{}", "make the client with client_name=..."),
    b"NO-EVICT": _STATE.format("{}", "send it over a connection of your own"),
    b"NO-TOUCH": _STATE.format("{}", "send it over a connection of your own"),
    b"CAPA": _STATE.format("{}", "send it over a connection of your own"),
}

_KEYLESS = b"""
    ACL BGREWRITEAOF BGSAVE CLIENT CLUSTER COMMAND CONFIG DBSIZE DEBUG ECHO FAILOVER FLUSHALL FLUSHDB FUNCTION INFO
    KEYS LASTSAVE LATENCY LOLWUT MODULE PING PUBLISH PUBSUB RANDOMKEY REPLICAOF ROLE SAVE SCAN SCRIPT SHUTDOWN
    SLAVEOF SLOWLOG SWAPDB TIME WAIT WAITAOF
""".split()

_ALL = CommandRule(1, -1)
_PAIRS = CommandRule(1, -1, 2)
_BUT_LAST = CommandRule(1, -2)
_TWO = CommandRule(1, 2)
_SECOND_WORD = CommandRule(2, 2)
_COUNTED = CommandRule(0, counted=1)
_COUNTED_LATER = CommandRule(0, counted=2)
_INTO_COUNTED = CommandRule(1, 1, counted=2)
_STREAMS = CommandRule(0, after=b"STREAMS")

_KEYS = {
    **dict.fromkeys(
        b"""DEL UNLINK EXISTS TOUCH MGET SDIFF SINTER SUNION SDIFFSTORE SINTERSTORE SUNIONSTORE PFCOUNT
        PFMERGE""".split(),
        _ALL,
    ),
    **dict.fromkeys(b"MSET MSETNX".split(), _PAIRS),
    **dict.fromkeys(b"BLPOP BRPOP BZPOPMIN BZPOPMAX JSON.MGET".split(), _BUT_LAST),
    b"JSON.MSET": CommandRule(1, -1, 3),
    **dict.fromkeys(
        b"""RENAME RENAMENX COPY SMOVE LMOVE BLMOVE RPOPLPUSH BRPOPLPUSH LCS ZRANGESTORE GEOSEARCHSTORE
        TS.CREATERULE TS.DELETERULE""".split(),
        _TWO,
    ),
    b"BITOP": CommandRule(2, -1),
    **dict.fromkeys(b"OBJECT MEMORY XGROUP XINFO".split(), _SECOND_WORD),
    **dict.fromkeys(b"ZUNION ZINTER ZDIFF ZINTERCARD SINTERCARD LMPOP ZMPOP MSETEX".split(), _COUNTED),
    **dict.fromkeys(b"EVAL EVALSHA EVAL_RO EVALSHA_RO FCALL FCALL_RO BLMPOP BZMPOP".split(), _COUNTED_LATER),
    **dict.fromkeys(b"ZUNIONSTORE ZINTERSTORE ZDIFFSTORE".split(), _INTO_COUNTED),
    **dict.fromkeys(b"XREAD XREADGROUP".split(), _STREAMS),
    b"MIGRATE": CommandRule(3, 3),
    b"TS.MADD": CommandRule(1, -1, 3),
}


def _rules() -> dict[bytes, CommandRule]:
    rules = {name: CommandRule(0) for name in _KEYLESS}
    rules.update(_KEYS)
    for name, refusal in _REFUSED.items():
        rules[name] = CommandRule(refusal=refusal.format(name.decode()))
    rules[b"CLIENT"] = CommandRule(
        0, refusals={word: refusal.format(f"CLIENT {word.decode()}") for word, refusal in _CLIENT.items()}
    )
    rules[b"SCRIPT"] = CommandRule(
        0, refusals={b"DEBUG": "SCRIPT DEBUG turns the connection into a debugger's: use redis-cli --ldb"}
    )
    return rules


RULES = _rules()
"""The rules of commands, by the first word of their name in upper case."""
