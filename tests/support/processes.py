"""Child processes of the tests."""

import signal


def heed_interrupts():
    """For `preexec_fn`: a shell starts what runs in its background with Ctrl-C ignored, which children inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
