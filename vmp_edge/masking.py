"""`masked` hides the secrets of an address. Everything that shows, logs, sends or stores an address calls it.

Secrets are the user and password before the host, however they are written, parameters with such names as `password` or
`token` wherever they stand, the paths of webhooks, and whatever `vmp_edge.credentials` has put into an address. In
doubt, more is hidden than needed, but hosts stay readable.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable

from .secret_names import is_secret, is_usual, unquoted

HIDDEN = "***"

_USUAL_SCHEMES = "(?:rtsp|rtmp|http|mqtt|ftp|srt|rtp|mms|udp|tcp|ws)[a-z]?"
_SCHEME = re.compile(rf"\s*(?:[a-z][a-z0-9+.\-]*://|{_USUAL_SCHEMES}:/{{0,3}}(?=.*@))", re.I | re.S)
_URL = re.compile(  # in a sentence; a path made of a URL has one slash
    rf"(?:[a-z][a-z0-9+.\-]{{0,30}}://|{_USUAL_SCHEMES}:/)[^\s\"'<>]+", re.I
)
_PAIR = re.compile(r"([a-z][\w:.\-]{0,60})=(\"[^\"]*\"|'[^']*'|[^\s\"'&;,)\]]+)", re.I)  # a parameter in a sentence
_HUB_FILE = re.compile(r"hf://[\w.-]+/[\w.-]+@[\w.-]+(?:/[\w.-]+)+", re.A)  # the sign is before a revision
_AT = re.compile("[@\N{FULLWIDTH COMMERCIAL AT}\N{SMALL COMMERCIAL AT}]")
_END_OF_HOST = re.compile(r"[/?#\\]")
_HOST = re.compile(r"(\[[\w:.%\-]+\]|[\w.\-]+)(:\d*)?")
_IPV4 = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_FILE_SUFFIXES = frozenset(
    (
        *(
            "264",
            "265",
            "avi",
            "flv",
            "gif",
            "h264",
            "h265",
            "jpeg",
            "jpg",
            "m3u8",
            "m4v",
            "mjpeg",
            "mjpg",
            "mkv",
            "mov",
        ),
        *("mp4", "mpd", "mpeg", "mpg", "png", "sdp", "stream", "webm", "webp", "y4m"),
        *("asp", "aspx", "cgi", "htm", "html", "js", "json", "jsonl", "php", "txt", "xml"),
    )
)
_WEBHOOK = re.compile(r"hook|^hooks?\.|slack\.com/|api\.telegram\.org/", re.I)
# A word of a pipeline, with its quotes.
_WORD = re.compile(r"(?:\"(?:\\.|[^\"\\])*(?:\"|\\?\Z)|'[^']*(?:'|\Z)|\\.|[^\s\"'\\]|\\\Z)+", re.S)
_PROPERTY = re.compile(r"([\"']?)([a-z][\w:.\-]*)=(.*)", re.I | re.S)

_given: set[str] = set()  # values that came from the environment or from files


def masked(address: str) -> str:
    """Return an address without its secrets, for messages and logs. Never raises.

    Args:
        address: Any source or receiver of events: a URL, a GStreamer pipeline, or a name, which stays as it is.
    """
    return _Hiding().all_of(address)


def masked_receiver(address: str) -> str:
    """Return the address of a receiver of events without its secrets, which a webhook's whole path is."""
    return _Hiding(whole_path=True).all_of(address)


def without_secrets(text: str, *addresses: str, whole_path: bool = False) -> str:
    """Return a message without the secrets of the addresses, in whatever spelling it quotes them.

    Addresses in the message that are not among these lose their secrets, too, as far as a sentence shows where they
    end.

    Args:
        text: The message, for example that of a library's exception.
        addresses: The addresses that the message may be about.
        whole_path: Whether the addresses are of receivers of events, of which only the host is shown.
    """
    hiding = _Hiding(whole_path)
    for address in addresses:
        shown = hiding.all_of(address)
        text = text.replace(address, shown) if len(address) > 3 else text
    for secret in sorted(hiding.spellings(), key=len, reverse=True):
        text = _replaced(text, secret)
    return _Hiding().sentence(text)


def hide_everywhere(value: str) -> None:
    """Let `masked` hide this value from now on, wherever it stands, and `without_secrets` if it is no short one."""
    if value and "://" not in value:  # of a whole address, `masked` finds the secrets
        _given.update((value, urllib.parse.quote(value, safe="", errors="surrogateescape")))


def _replaced(text: str, secret: str) -> str:
    """Hide a secret in a text. A very short one is hidden only where it stands alone."""
    if len(secret) > 3:
        return text.replace(secret, HIDDEN)
    return re.sub(rf"(?<![\w*]){re.escape(secret)}(?![\w*])", HIDDEN, text)


def _plausibility(host: str) -> float:
    """Return how much a text looks like a host: 0 not at all, 1 a name, 2 a name with a domain, 3 an IP address."""
    match = _HOST.fullmatch(host.strip())
    if match is None:
        return 0
    if match[2] == ":":  # a user before an odd password
        return 0.1
    name = match[1].lower()
    if name.startswith("[") or name == "localhost" or _IPV4.fullmatch(name):
        return 3
    labels = name.split(".")
    if len(labels) > 1:
        last = labels[-1]
        return 2 if all(labels) and len(last) > 1 and last.isalpha() and last not in _FILE_SUFFIXES else 0.5
    return 1


class _Hiding:
    """Hides secrets, and remembers them.

    Args:
        whole_path: Whether to hide the path of every http address.
    """

    def __init__(self, whole_path: bool = False) -> None:
        self._whole_path = whole_path
        self._secrets: list[str] = []

    def spellings(self) -> set[str]:
        """Return all spellings of the secrets that were hidden so far."""
        found: set[str] = set()
        for secret in self._secrets:
            for part in (secret, *re.split(r"[:@]", secret), secret.partition(":")[2]):
                plain = unquoted(part)
                quoted = urllib.parse.quote(plain, safe="", errors="replace")
                found.update((part, plain, quoted, urllib.parse.quote_plus(plain, errors="replace")))
        return {text for text in found if text.strip("/?#&=*")}

    def all_of(self, address: str) -> str:
        """Return an address without its secrets."""
        before, text = None, address
        try:
            for _ in range(5):  # what was hidden may uncover another address
                if text == before:
                    break
                before, text = text, self._address(text)
        except Exception:  # a message must not fail because of the address that it names
            text = HIDDEN
        return _without_given(text, _given)

    def sentence(self, text: str) -> str:
        """Return a sentence without the secrets of the addresses in it."""
        try:
            text = _PAIR.sub(lambda match: f"{match[1]}={HIDDEN}" if is_secret(match[1]) else match[0], text)
            text = _URL.sub(lambda match: self._quoted_url(match[0]), text)
        except Exception:
            text = HIDDEN
        return _without_given(text, (secret for secret in _given if len(secret) > 3))  # a short one may be any word

    def _address(self, text: str) -> str:
        if text.lower().startswith("file://") or _HUB_FILE.fullmatch(text):
            return text
        if match := _SCHEME.match(text):
            return match[0] + self._url(text[match.end() :], match[0])
        if "://" in text or "!" in text:
            return self._pipeline(text)
        return self._name(text)

    def _quoted_url(self, text: str) -> str:
        url = text.rstrip(".,;:!)]}")
        return self._address(url) + text[len(url) :]

    def _hide(self, secret: str) -> str:
        if secret and secret != HIDDEN:
            self._secrets.append(secret)
        return HIDDEN

    # URLs

    def _url(self, rest: str, scheme: str) -> str:
        """Return what follows the scheme of a URL, without secrets."""
        host, tail = self._host_and_tail(rest)
        if host and not _plausibility(host):
            host = self._hide(host)
        is_web = scheme.strip().lower().startswith("http")
        if is_web and (self._whole_path or _WEBHOOK.search(host + tail)):
            if tail.strip("/"):
                self._hide(tail.strip("/"))
                self._secrets += [part for part in re.split("[/?&=#]", tail) if len(part) > 5]
                tail = f"/{HIDDEN}"
            return host + tail
        tail = self._parameters(tail)
        if _AT.search(tail):  # perhaps a part of a password
            front, at = _at_last_sign(tail)
            tail = tail[:1] + self._hide(front[1:]) + at
        return host + self._decoded(tail)

    def _host_and_tail(self, rest: str) -> tuple[str, str]:
        """Split what follows a URL's scheme into the host with its port and the rest, and hide what is before the host.

        A user or password with an unencoded `/`, `?` or `#` makes a part of it look like the host. So the last `@`
        decides, unless what precedes it looks more like a host than what follows.
        """
        authority, tail = _host_first(rest)
        if not _AT.search(rest):
            return authority, tail
        signs = [match.start() for match in _AT.finditer(rest)]
        own = [sign for sign in signs if sign < len(authority)]
        if signs[-1] >= len(authority):
            named = rest[own[-1] + 1 : len(authority)] if own else authority
            later, _ = _host_first(rest[signs[-1] + 1 :])
            before, plausible = rest[len(authority) : signs[-1]], _plausibility(named)
            advantage = 0 if own or ":" in authority else 0.5
            if plausible + advantage <= _plausibility(later) - _has_parameter(before, plausible >= 2):
                self._hide(rest[: signs[-1]])
                return _host_first(rest[signs[-1] + 1 :])
        if own:
            self._hide(rest[: own[-1]])
            return rest[own[-1] + 1 : len(authority)], tail
        return authority, tail

    def _decoded(self, tail: str) -> str:
        """Hide secrets in a percent-encoded part of a path or a query, such as an address in a parameter."""
        if not re.search("%(?:25)*(?:3d|40)", tail, re.I):
            return tail
        plain = unquoted(tail)
        if "://" in plain and _AT.search(plain):
            self._hide(tail[1:])
            return tail[:1] + HIDDEN
        hidden = self._parameters(plain)
        return tail if hidden == plain else hidden

    def _parameters(self, text: str) -> str:
        """Hide the values of secret parameters, wherever they stand: `?user=a&b=c`, `/user=a_password=b_channel=1`.

        A value may contain anything. It ends where the next parameter begins.
        """
        first, *pieces = text.split("=")
        shown = [first]
        start = _name_start(first, False)
        has_password = re.search("pass|pwd|psw|pw=", text, re.I) is not None
        secret, value = is_secret(first[start or 0 :], has_password), ""
        for index, piece in enumerate(pieces):
            start = None if index == len(pieces) - 1 else _name_start(piece, secret)
            value += piece if start is None else piece[:start]
            if start is None and index < len(pieces) - 1:
                value += "="
                continue
            shown.append("=" + (self._hide(value) if secret and value else value))
            if start is not None:
                shown.append(piece[start:])
                secret, value = is_secret(piece[start + 1 :], has_password), ""
        return "".join(shown)

    # Pipelines and names

    def _pipeline(self, text: str) -> str:
        """Hide the secrets in a GStreamer pipeline: its properties with secret names, and its URLs."""
        text = re.sub(r"(?<!\s)\s*=\s*", "=", text)
        shown, end, is_open = [], 0, False
        for match in _WORD.finditer(text):
            word = match[0]
            shown.append(text[end : match.start()])
            end = match.end()
            if is_open and _AT.search(word):  # the rest of a password with a space in it
                front, at = _at_last_sign(word)
                shown.append(self._hide(front) + at)
            else:
                shown.append(self._word(word))
            is_open = "://" in word and not _AT.search(word)
        return "".join(shown) + text[end:]

    def _word(self, word: str) -> str:
        if word.startswith(("/", ".")) and "://" not in word:
            return word
        match = _PROPERTY.fullmatch(word)
        if match is None:
            return self._value(word)
        quote, name, value = match.groups()
        if is_secret(name):
            self._hide(value.strip("\"'"))
            return f"{quote}{name}={HIDDEN}{quote}"
        return f"{quote}{name}={self._value(value)}"

    def _value(self, value: str) -> str:
        start = next((match.start() for match in re.finditer(r"[a-z][a-z0-9+.\-]{0,30}://", value, re.I)), None)
        if start is None:
            return self._parameters(self._name(value))
        inner = value[start:].rstrip("\"'")
        return self._parameters(value[:start]) + self._address(inner) + value[start + len(inner) :]

    def _name(self, text: str) -> str:
        """Hide the secrets of an address that lacks its scheme. Any other name stays as it is."""
        rest = text.removeprefix("//")
        if rest.startswith(("/", ".", "camera:", "raw:")):
            return text
        host, tail = _host_first(rest)
        if _plausibility(host) == 3 and tail:
            return text[: len(text) - len(rest)] + host + self._parameters(tail)
        if _AT.search(rest):
            front, at = _at_last_sign(rest)
            host, tail = _host_first(at[1:])
            plausible = _plausibility(host)
            if ":" in front and (plausible >= 2 or (plausible == 1 and (tail or ":" in host))):
                self._hide(front)
                return text[: len(text) - len(rest)] + host + self._parameters(tail)
        return text


def _host_first(text: str) -> tuple[str, str]:
    """Split a text before the first character that cannot belong to a host."""
    match = _END_OF_HOST.search(text)
    return (text, "") if match is None else (text[: match.start()], text[match.start() :])


def _at_last_sign(text: str) -> tuple[str, str]:
    """Split a text before its last `@`. It must have one."""
    *_, last = _AT.finditer(text)
    return text[: last.start()], text[last.start() :]


def _has_parameter(text: str, in_query: bool) -> bool:
    """Return whether a text has a secret parameter or, if `in_query`, any parameter of a query."""
    if in_query and "?" in text.partition("=")[0]:
        return "=" in text
    return any(is_secret(piece) for piece in text.split("=")[:-1])


def _name_start(piece: str, in_secret: bool) -> int | None:
    """Find the name that a piece of text between two `=` ends with.

    Args:
        piece: The text. It begins with the value of the parameter before.
        in_secret: Whether that value is secret. Then only `&`, `;` or a usual name ends it.

    Returns:
        The index of the separator before the name, or None if all of the piece belongs to the value.
    """
    certain = max(piece.rfind(sign) for sign in (";&" if in_secret else "&;?#/,~|! \t\n"))
    if certain >= 0:
        return certain
    match = re.search(r"[^A-Za-z0-9]([A-Za-z0-9]+)\Z", piece[-100:])
    if match is not None and (is_usual if in_secret else is_secret)(match[1]):
        return len(piece) - len(match[0])
    return None


def _without_given(text: str, secrets: Iterable[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        text = _replaced(text, secret)
    return text
