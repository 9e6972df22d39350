"""Addresses are shown without their secrets, however odd they are, and with their hosts."""

import random
import time

import pytest

from vmp_edge.masking import masked, masked_receiver, without_secrets

# What may not be shown is written with these letters.
SECRETS = ("ROOT", "PASS", "WORD", "SECRET")

URLS = [
    ("rtsp://ROOT:PASS@cam.local/live", "rtsp://cam.local/live"),
    ("rtsp://ROOT:PASS@WORD@127.0.0.1:9/live", "rtsp://127.0.0.1:9/live"),
    ("rtsp://ROOT:PASS/WORD@127.0.0.1:9/live", "rtsp://127.0.0.1:9/live"),
    ("rtsp://ROOT:PASS#WORD@cam:554/live", "rtsp://cam:554/live"),
    ("rtsp://ROOT:PASS?WORD@[fe80::1]:554/live", "rtsp://[fe80::1]:554/live"),
    ("rtsp://ROOT:PASS\\WORD@cam/live", "rtsp://cam/live"),
    ("rtsp://ROOT:PASS WORD@cam/live", "rtsp://cam/live"),
    ("rtsp://ROOT:PASS!WORD@cam/live", "rtsp://cam/live"),
    ("rtsp://ROOT:PASS@WORD/SECRET?ROOT#x@192.168.1.2/live", "rtsp://192.168.1.2/live"),
    ("rtsp://ROOT:12/34WORD@192.168.1.2/live", "rtsp://192.168.1.2/live"),
    ("rtsp://ROOT:P%40SECRET@cam/live", "rtsp://cam/live"),
    ("rtsp://ROOT:PASS:WORD@cam/live", "rtsp://cam/live"),
    ("rtsp://ROOT@cam/live", "rtsp://cam/live"),
    ("rtsp://ROOT:@cam/live", "rtsp://cam/live"),
    ("rtsp://:PASS@cam/live", "rtsp://cam/live"),
    ("rtsp://ROOT:PASS", "rtsp://***"),
    ("rtsp:/ROOT:PASS@cam/live", "rtsp:/cam/live"),
    ("http:///ROOT:PASS@cam/x", "http://cam/x"),
    ("ROOT:PASS@192.168.1.5:554/live", "192.168.1.5:554/live"),
    ("http://10.0.0.1/?url=rtsp://ROOT:PASS@cam/x", "http://10.0.0.1/***@cam/x"),
    ("http://proxy/?url=rtsp%3A%2F%2FROOT%3APASS%40cam%2Flive", "http://proxy/***"),
    (
        "rtsp://127.0.0.1:9/user=ROOT&password=SECRET&channel=1&stream=0.sdp",
        "rtsp://127.0.0.1:9/user=***&password=***&channel=1&stream=0.sdp",
    ),
    (
        "rtsp://10.0.0.1:554/user=ROOT_password=PASS_WORD_channel=1_stream=0.sdp?real_stream",
        "rtsp://10.0.0.1:554/user=***_password=***_channel=1_stream=0.sdp?real_stream",
    ),
    ("rtsp://cam/user=ROOT;password=PASS@WORD;channel=1", "rtsp://cam/user=***;password=***;channel=1"),
    ("http://cam/CGIProxy.fcgi?cmd=x&usr=ROOT&pwd=SECRET", "http://cam/CGIProxy.fcgi?cmd=x&usr=***&pwd=***"),
    ("http://cam/mjpg?token=SECRET", "http://cam/mjpg?token=***"),
    ("http://cam/mjpg?width=640#access_token=SECRET", "http://cam/mjpg?width=640#access_token=***"),
    ("http://cam/?accessToken=SECRET/WORD==&width=640", "http://cam/?accessToken=***&width=640"),
    (
        "http://cam/?X-Amz-Signature=SECRET&X-Amz-Credential=ROOT%2Fa",
        "http://cam/?X-Amz-Signature=***&X-Amz-Credential=***",
    ),
    ("http://cam/?p%61ssword=SECRET", "http://cam/?p%61ssword=***"),
    ("http://cam/?id=ROOT&passwd=SECRET&fps=5", "http://cam/?id=***&passwd=***&fps=5"),
    ("http://cam/?id=3&fps=5", "http://cam/?id=3&fps=5"),
    ("http://cam/x%3Fpassword%3DSECRET", "http://cam/x?password=***"),
    ("http://cam/a;jsessionid=SECRET", "http://cam/a;jsessionid=***"),
    ("srt://cam:1000?passphrase=SECRET&mode=caller", "srt://cam:1000?passphrase=***&mode=caller"),
    ("https://hooks.slack.com/services/SECRET/WORD", "https://hooks.slack.com/***"),
    ("https://discord.com/api/webhooks/ROOT/SECRET", "https://discord.com/***"),
    ("mqtt://ROOT:PASS@broker:1883/home/camera", "mqtt://broker:1883/home/camera"),
]
PIPELINES = [
    (
        'rtspsrc location=rtsp://ROOT:PASS@cam/a user-id=ROOT user-pw="SECRET WORD" ! decodebin',
        "rtspsrc location=rtsp://cam/a user-id=*** user-pw=*** ! decodebin",
    ),
    (
        "rtspsrc location = 'rtsp://ROOT:PASS WORD@cam/a' \"user-pw=SECRET WORD\" ! decodebin",
        "rtspsrc location='rtsp://cam/a' \"user-pw=***\" ! decodebin",
    ),
    ("rtspsrc location=rtsp://ROOT:PASS WORD@cam/a ! decodebin", None),
    ("rtspsrc location=rtsp://cam/a user-pw='SECRET WORD", "rtspsrc location=rtsp://cam/a user-pw=***"),
    ("uridecodebin uri=srt://cam:1?passphrase=SECRET ! x", "uridecodebin uri=srt://cam:1?passphrase=*** ! x"),
    ('souphttpsrc location=http://cam/ extra-headers="h,Authorization=(string)\\"Bearer SECRET\\"" ! jpegdec', None),
]
PLAIN = [
    *("0", "/dev/video0", "camera:USB@2 Cam", "clip@2x.mp4", "/data/what?pass=1@home.mp4", "clip 10:30@home.mp4", "-"),
    *("a=b.mp4", "raw:640x480:bgr:30", "file:///data/a@b.mp4", "rtsp://cam:554/Streaming/Channels/101", ""),
    *("v4l2src device=/dev/video0 ! video/x-raw,width=640 ! x264enc key-int-max=30", "http://[::1]:8080/a.mjpg?fps=5"),
    *(
        "http://10.0.0.1:8080/video?width=640&height=480",
        "filesrc location=/a/b@2x?.mp4 ! decodebin",
        "/run!/key=5/a.mp4",
        "odd\0\udcff",
    ),
]


@pytest.mark.parametrize(("address", "expected"), URLS + PIPELINES)
def test_secrets_are_hidden_and_hosts_stay(address, expected):
    text = masked(address)
    assert expected is None or text == expected
    assert not [secret for secret in SECRETS if secret in text] and masked(text) == text


@pytest.mark.parametrize("address", PLAIN)
def test_an_address_without_secrets_stays_as_it_is(address):
    assert masked(address) == address


@pytest.mark.parametrize(
    "name",
    [
        *("password", "passwd", "pwd", "pass", "passphrase", "token", "access_token", "api_key", "apikey", "api-key"),
        *("key", "secret", "auth", "authorization", "signature", "sig", "session", "user", "username", "usr", "login"),
        *("account", "credentials", "jwt", "X-Amz-Security-Token", "rtspUser", "u", "p", "loginpas", "user-pw"),
        *("userPassword", "stream_key", "PHPSESSID", "code"),
    ],
)
def test_a_parameter_with_a_secret_name_is_hidden_everywhere(name):
    for separator in "&;":
        address = f"http://cam:80/a?width=640{separator}{name}=SECRET{separator}height=480"
        assert masked(address) == address.replace("SECRET", "***")
    assert masked(f"http://cam/a?{name}=SECRET") == f"http://cam/a?{name}=***"
    assert masked(f"http://cam/a#{name.upper()}=SECRET") == f"http://cam/a#{name.upper()}=***"
    assert "SECRET" not in masked(f"http://cam/{name}=SECRET/live")


def test_of_a_receiver_of_events_only_the_host_is_shown():
    assert masked_receiver("https://ROOT:PASS@example.org:8443/a/SECRET?b=WORD") == "https://example.org:8443/***"
    assert masked_receiver("http://example.org") == "http://example.org"
    assert masked_receiver("mqtt://ROOT:PASS@broker/home/camera") == "mqtt://broker/home/camera"
    assert masked_receiver("events.jsonl") == "events.jsonl"


def test_a_library_s_message_is_cleaned_in_whatever_spelling_it_quotes_the_address():
    address = "rtsp://ROOT:p%40SECRET@cam/live?token=WORD"
    for text in (
        f"cannot open {address}: no route",
        "cannot open 'rtsp://ROOT:p@SECRET@cam/live'",
        "user ROOT is refused, with p@SECRET, or p%40SECRET",
        "bad query token=WORD",
        "http:/ROOT:PASS@cam/a does not exist",
        "redirected to http://PASS:WORD@elsewhere/a, which is down",
    ):
        cleaned = without_secrets(text, address)
        assert not [secret for secret in SECRETS if secret in cleaned], cleaned
    assert without_secrets("cannot open rtsp://u:pw@cam/live: no route") == "cannot open rtsp://cam/live: no route"
    assert (
        without_secrets("a short user is no reason to spoil it", "rtsp://a:b@cam/")
        == "*** short user is no reason to spoil it"
    )
    cleaned = without_secrets("unrecognized arguments: location=rtsp://a:PASS@cam/a user-pw='SECRET WORD' ! --x=1")
    assert cleaned == "unrecognized arguments: location=rtsp://cam/a user-pw=*** ! --x=1"
    assert without_secrets("http://cam/?pwd=SECRET&x=1, --token=SECRET") == "http://cam/?pwd=***&x=1, --token=***"
    pipeline = 'rtspsrc location=rtsp://cam/ user-pw="SECRET WORD" ! x'
    assert without_secrets('no property with "SECRET WORD"', pipeline) == 'no property with "***"'


def test_passwords_of_any_characters_are_hidden():
    random.seed(0)
    signs = "@/?#:&=%!$'\"\\ ;,_-.+~()[]{}|^<>*é\N{SNOWMAN}"
    hosts = ("192.168.1.2", "127.0.0.1:9", "cam", "cam:554", "cam.example.org", "[::1]:554", "localhost")
    for _ in range(8_000):
        host = random.choice(hosts)
        # No run of letters in it looks like a host, or like a parameter's name.
        password = "".join(random.choice(("QXZ", random.choice(signs))) for _ in range(random.randrange(1, 8)))
        if "=" in password and host.isalpha():
            continue
        for address in (f"rtsp://QXZ:{password}@{host}/live", f"rtsp://QXZ:{password}QXZ@{host}"):
            text = masked(address)
            assert "QXZ" not in text and host in text, (address, text)


def test_no_text_makes_it_fail():
    random.seed(1)
    pieces = [
        *(
            "rtsp://",
            "http:",
            "//",
            "@",
            "/",
            "?",
            "#",
            "&",
            ";",
            "=",
            "user",
            "password",
            "%40",
            "%3D",
            "%253d",
            "%",
            "!",
        ),
        *(
            " ",
            '"',
            "'",
            "\\",
            "cam",
            "192.168.1.2",
            "[::1",
            "]",
            ":",
            "554",
            "***",
            "\0",
            "\n",
            "\udcff",
            "é",
            "(",
            ")",
        ),
        *("location=", "token", "${CAM}", "_", "-", ".", "a", "hook", "mqtt://", "file://", "x" * 50),
    ]
    for _ in range(8_000):
        text = "".join(random.choices(pieces, k=random.randrange(14)))
        once = masked(text)
        assert masked(once) == once, (text, once)
        receiver = masked_receiver(text)
        assert masked_receiver(receiver) == receiver, (text, receiver)
        without_secrets(text, text[3:], once)


@pytest.mark.parametrize(
    "unit", ["=", "@", " ", '"', "\\", "a", "a=", "://", "http://", "%25", "!", "' ", "user=_", "&a"]
)
def test_a_long_text_takes_no_long_time(unit):
    begin = time.monotonic()
    for start in ("", "rtsp://", "x ! "):
        text = start + unit * 20_000
        masked(text)
        without_secrets(text, start + unit)
    assert time.monotonic() - begin < 60
