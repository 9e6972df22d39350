"""Which parameters of an address hold secrets, by their names."""

from __future__ import annotations

import re
import urllib.parse

# A name with one of these in it, when everything but letters and digits is left out, holds a secret.
_PARTS = (
    *("pass", "pwd", "psw", "secret", "token", "cred", "user", "usr", "uname", "login", "logon", "auth", "signature"),
    *("sess", "jwt", "bearer", "cookie", "account", "keypair", "streamid", "xamz", "xgoog", "hdn", "hmac", "header"),
)
_WORDS = frozenset(  # a name that has one of these as a word of its own holds a secret
    (
        *("u", "p", "pw", "pas", "pin", "otp", "code", "sig", "sign", "sid"),
        *("acct", "acc", "email", "mail", "md5", "hash", "uid", "ticket"),
    )
)
_HARMLESS = frozenset(("useragent", "httpuseragent", "headersize", "keyintmax", "keyframe"))
# Names that often follow a user and a password in the path of a camera's address: `user=a_password=b_channel=1`.
_USUAL = frozenset(("channel", "channelno", "ch", "chn", "stream", "streamtype", "subtype", "type", "unicast", "proto"))


def unquoted(text: str) -> str:
    """Return a text without its percent-encoding, even if it was encoded several times."""
    for _ in range(8):
        if "%" not in text or (decoded := urllib.parse.unquote(text)) == text:
            break
        text = decoded
    return text


def is_secret(name: str, beside_password: bool = False) -> bool:
    """Return whether a parameter of this name holds a secret: a user, a password, a token, a signature and so on.

    Args:
        name: The parameter's name.
        beside_password: Whether there is a password among the parameters, so that `id` and `name` are a user's.
    """
    name = unquoted(name[-200:])
    words = re.findall(r"[a-z]+[0-9]*|[0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower())
    joined = "".join(words)
    if joined in _HARMLESS:
        return False
    return (
        any(part in joined for part in _PARTS)
        or joined.endswith(("key", "pw"))
        or not _WORDS.isdisjoint(words)
        or (beside_password and joined in ("id", "name"))
        or (bool(words) and words[0] in ("key", "pw"))
    )


def is_usual(name: str) -> bool:
    """Return whether a name is that of a parameter that often follows a password."""
    return name.lower() in _USUAL or is_secret(name)
