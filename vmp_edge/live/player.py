"""`play`: opens all that a live session needs, and runs it."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable

from ..errors import UsageError
from ..events.detector import Event
from ..events.watch import Watch
from ..recognizer import Prediction, Recognizer, load
from ..sources import USUAL_FPS, Paced, Source, open_source
from ..sources.waiting import close_in_background
from ..stream.governor import Decision
from ..stream.stream import Stream
from ..stream.variants import load_variants
from ..view.recording import Recorder
from .filling import Filling, FillingWatch
from .options import Options
from .sampling import doubt, too_short, too_slow
from .session import Session
from .summary import Summary
from .view import View, open_display

_CLOSING_TIMEOUT = 0.2  # seconds that the end of the source is waited for; if it hangs, it is left behind


def play(
    options: Options,
    on_prediction: Callable[[Prediction, float], None],
    on_message: Callable[[str], None],
    on_event: Callable[[Event], None] = lambda event: None,
    on_decision: Callable[[Decision], None] = lambda decision: None,
    on_filling: Callable[[Filling], None] = lambda filling: None,
) -> Summary:
    """Recognise a source until it ends, its window is closed, or Ctrl-C is pressed.

    Args:
        options: What to recognise, and what to do with the results.
        on_prediction: Called in this thread with each result, and its time in seconds since the first frame.
        on_message: Called with what the user should know: there can be no window, or a camera vanished.
        on_event: Called in this thread with each event when it has started and when it has ended.
        on_decision: Called in this thread with each decision of the governor. Its time counts from the first frame.
        on_filling: Called in this thread while a long window is filling up, see `FillingWatch`.

    Returns:
        The summary, after Ctrl-C too. The recording is finished and the events are delivered by then.

    Raises:
        UsageError: There is a budget, but the source has no pace to keep up with.
        VmpError: The bundle or the source cannot be opened, or something failed on the way.
    """
    with contextlib.ExitStack() as stack:
        recognizer = stack.enter_context(load(options.bundle, options.threads, options.gallery, options.threshold))
        recognizer.require_classes()
        source = opened = open_source(options.source, on_message, fps=options.source_fps)
        stack.callback(lambda: close_in_background(source).join(_CLOSING_TIMEOUT))
        display = None
        if not options.headless:
            display = open_display(f"vmp-edge: {recognizer.manifest.name}", on_message)
        if display is not None:
            stack.callback(display.close)
        watch = _make_watch(options, recognizer, source, on_event, on_message)
        if watch is not None:
            stack.callback(watch.close)
        source = _at_its_pace(options, source, display is not None)
        recorder = None
        if options.record is not None:
            recorder = stack.enter_context(Recorder(options.record, source.fps or USUAL_FPS, on_message))
        decisions: queue.SimpleQueue[Decision] = queue.SimpleQueue()
        variants = load_variants(recognizer, options.stream, options.threads, stack)
        stream = Stream(recognizer, options.stream, bgr=True, variants=variants, on_decision=decisions.put)
        for warning in (too_slow(stream.window, source), doubt(recognizer.manifest, options.stream)):
            if warning is not None:
                on_message(warning)
        view = View(stream, display, recorder, options.top)
        filling = FillingWatch(stream, on_filling)
        summary = Session(options, source, stream, view, watch, on_prediction, decisions, on_decision, filling).run()
        if not summary.windows and summary.interrupted is None and (reason := too_short(stream.window)) is not None:
            on_message(reason)
        summary.undecodable = getattr(opened, "undecodable", 0)
        summary.damage = getattr(opened, "damage", None)
        if watch is not None:
            watch.close()
            summary.events, summary.clips = watch.events, watch.clips
        if recorder is not None and (path := recorder.finish()) is not None:
            summary.recorded = str(path)
        return summary


def _make_watch(
    options: Options,
    recognizer: Recognizer,
    source: Source,
    on_event: Callable[[Event], None],
    on_message: Callable[[str], None],
) -> Watch | None:
    """Make the watch over events, or return None if the options ask for no events."""
    if options.events is None:
        return None
    interval = options.stream.longest_hop / (source.fps or USUAL_FPS)
    labels, sinks, clips = recognizer.labels, options.sinks, options.clips
    return Watch(options.events, labels, source, interval, sinks, clips, on_event, on_message)


def _at_its_pace(options: Options, source: Source, has_window: bool) -> Source:
    """Return the source, slowed down to its own pace if that is asked for or there is a window."""
    realtime = options.realtime if options.realtime is not None else has_window
    if realtime and not source.live:
        source = Paced(source)
    if options.stream.budget is not None and not source.live:
        raise UsageError("a budget is for a live source: play a file at its own pace with --realtime")
    return source
