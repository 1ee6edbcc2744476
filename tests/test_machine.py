"""The table, as transcripts (state and orders after each event) and as properties over any run of events."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playbook import FAILURE, POLICY, RUNS, Playbook, Run, exited, found, seen, steps_of

from waguard.core import tables
from waguard.core.health.faults import REFUSALS, Fault, Finding
from waguard.core.health.plans import PLANS, STOPPING, Remedy
from waguard.core.model import Cause, Link, Process, Reading, Reason, Source, Status, Wanted
from waguard.core.session import events as e
from waguard.core.session import orders as o
from waguard.core.session.restart import RestartPolicy
from waguard.core.session.state import State, summary_of
from waguard.core.session.table import TABLE, decide

LATE = found(1, Fault.PAGE_NOT_LOADED)


def up(link: Link = Link.CONNECTED, reason: Reason | None = None) -> Playbook:
    state = State(Wanted.UP, Process.UP, link, reason, epoch=1)
    return Playbook(state)


def test_connect_scan_disconnect() -> None:
    play = Playbook()
    play(e.ConnectAsked(), o.Remember(Wanted.UP), o.Prepare(1), process=Process.PREPARING, wanted=Wanted.UP)
    play(e.Prepared(1), o.Launch(1), process=Process.STARTING)
    play(e.Started(1), o.Open(1), process=Process.UP, link=Link.LOADING)
    play(seen(1, Link.AWAITING_SCAN, qr="2@x"), o.Disarm(), link=Link.AWAITING_SCAN)
    play(seen(1, Link.SYNCING), o.Disarm())
    play(seen(1, Link.CONNECTED), o.Disarm(), link=Link.CONNECTED)
    play(e.DisconnectAsked(), o.Remember(Wanted.DOWN), o.Stop(1, polite=True), process=Process.STOPPING)
    play(e.Gone(1), process=Process.DOWN, link=Link.UNKNOWN, wanted=Wanted.DOWN)


def test_a_second_connect_joins() -> None:
    play = Playbook()
    play(e.ConnectAsked(), o.Remember(Wanted.UP), o.Prepare(1))
    before = play.state
    play(e.ConnectAsked())(e.RestartAsked())
    assert play.state == before
    play(e.Prepared(1), o.Launch(1))(e.ConnectAsked())(e.Started(1), o.Open(1))(e.ConnectAsked())


def test_fresh_joins_fresh_and_replaces_a_kept_start() -> None:
    play = Playbook()
    play(e.ConnectAsked(), o.Remember(Wanted.UP), o.Prepare(1))
    play(e.ConnectAsked(fresh=True), o.Stop(1, polite=False), process=Process.STOPPING)
    play(e.ConnectAsked(fresh=True), o.Remember(Wanted.UP))
    play(e.Gone(1), o.Prepare(2, Source()))
    play(e.ConnectAsked(fresh=True))
    play(e.Prepared(2), o.Launch(2), source=None, asked=Source())
    play(e.Started(2), o.Open(2))(e.ConnectAsked(fresh=True))
    play(seen(2, Link.AWAITING_SCAN), o.Disarm(), asked=None)
    play(e.ConnectAsked(fresh=True), o.Stop(2, polite=True), source=Source())


def test_a_failed_fresh_start_is_not_retired_again() -> None:
    play = Playbook()
    play(e.ConnectAsked(fresh=True), o.Remember(Wanted.UP), o.Prepare(1, Source()))
    play(e.Prepared(1), o.Launch(1))(e.Failed(1, FAILURE), o.Stop(1, polite=False))
    play(e.Gone(1), o.BackOff(1, 0.0, jitter=True), process=Process.BACKOFF)
    assert summary_of(play.state) is Status.RECOVERING
    play(e.WaitEnded(1), o.Prepare(2))


def test_a_restore_stops_replaces_and_connects_and_others_join_it() -> None:
    play = up()
    play(e.RestoreAsked("b1"), o.Stop(1, polite=True), process=Process.STOPPING)
    play(e.Gone(1), o.Prepare(2, Source("b1")))
    play(e.RestoreAsked("b1"))(e.ConnectAsked())
    play(e.Prepared(2), o.Launch(2), source=None)(e.RestoreAsked("b1"))
    play(e.RestoreAsked("b2"), o.Stop(2, polite=False), source=Source("b2"))


def test_a_restore_that_fails_leaves_the_kept_profile_for_the_next_start() -> None:
    play = Playbook()
    play(e.RestoreAsked("b1"), o.Remember(Wanted.UP), o.Prepare(1, Source("b1")))
    play(e.Failed(1, FAILURE), o.Stop(1, polite=False))(e.Gone(1), o.BackOff(1, 0.0, jitter=True))
    play(e.WaitEnded(1), o.Prepare(2))


def test_what_was_put_aside_comes_back_like_a_snapshot_and_is_tried_once() -> None:
    play = Playbook()
    play(e.RestoreAsked(retired="G1"), o.Remember(Wanted.UP), o.Prepare(1, Source(retired="G1")))
    play(e.RestoreAsked(retired="G1"))
    play(e.Failed(1, FAILURE), o.Stop(1, polite=False))(e.Gone(1), o.BackOff(1, 0.0, jitter=True))
    play(e.WaitEnded(1), o.Prepare(2))


def test_a_login_that_is_lost_is_looked_for_at_once_and_only_so_often() -> None:
    play = up(Link.LOADING)
    for epoch in (1, 2, 3):
        play(e.LoginLost(epoch, FAILURE), o.Stop(epoch, polite=False), reason=Reason.DAMAGED, failure=None)
        play(e.Gone(epoch), o.Prepare(epoch + 1))
        play(e.Prepared(epoch + 1), o.Launch(epoch + 1))(e.Started(epoch + 1), o.Open(epoch + 1))
    play(e.LoginLost(4, FAILURE), o.Stop(4, polite=False), failure=FAILURE)
    play(e.Gone(4), o.BackOff(4, 100, jitter=False), process=Process.FAILED)


@pytest.mark.parametrize("when", [Process.PREPARING, Process.STARTING])
def test_a_stop_is_heard_in_the_middle_of_a_start(when: Process) -> None:
    play = Playbook(State(Wanted.UP, when, epoch=4))
    play(e.DisconnectAsked(), o.Remember(Wanted.DOWN), o.Stop(4, polite=False), process=Process.STOPPING)
    play(e.Prepared(4))(e.Started(4))(e.Failed(4, FAILURE))(exited(4))
    play(e.Gone(4), process=Process.DOWN)


@pytest.mark.parametrize("when", [p for p in Process if p is not Process.STOPPING])
def test_cleanup_from_anywhere(when: Process) -> None:
    play = Playbook(State(Wanted.UP, when, epoch=2, restarts=(1.0,)))
    play(e.CleanupAsked(), o.Remember(Wanted.DOWN), o.Clean(2), process=Process.STOPPING, cleaning=True)
    play(e.CleanupAsked(), o.Remember(Wanted.DOWN))  # joins
    play(e.Gone(2), process=Process.STOPPING)  # a late stop does not end the cleanup
    play(e.Cleaned(2))
    assert play.state == State(epoch=2)


def test_cleanup_replaces_a_stop() -> None:
    play = Playbook(State(Wanted.DOWN, Process.STOPPING, epoch=2))
    play(e.CleanupAsked(), o.Remember(Wanted.DOWN), o.Clean(2), cleaning=True)


def test_connect_during_a_cleanup_starts_after_it() -> None:
    play = up()
    play(e.CleanupAsked(), o.Remember(Wanted.DOWN), o.Clean(1))
    play(e.ConnectAsked(), o.Remember(Wanted.UP), process=Process.STOPPING)
    play(e.Cleaned(1), o.Prepare(2), process=Process.PREPARING, cleaning=False)


def test_a_dead_browser_comes_back_within_its_budget() -> None:
    play = up()
    delays = []
    for epoch in (1, 2, 3):
        play(
            exited(epoch),
            o.Stop(epoch, polite=False),
            link=Link.LOST,
            reason=Reason.CRASHED,
            process=Process.STOPPING,
        )
        play.state, (wait,) = decide(play.state, e.Gone(epoch), play.now, POLICY)
        assert isinstance(wait, o.BackOff)
        delays.append(wait.bound_s)
        play(e.WaitEnded(epoch), o.Prepare(epoch + 1))
        play(e.Prepared(epoch + 1), o.Launch(epoch + 1))(e.Started(epoch + 1), o.Open(epoch + 1))
    assert delays == [0.0, 1.0, 2.0]
    play(exited(4), o.Stop(4, polite=False))
    play(e.Gone(4), o.BackOff(4, 100, jitter=False), process=Process.FAILED)
    assert summary_of(play.state) is Status.FAILED
    # An operator is not bound by the budget.
    play(e.ConnectAsked(), o.Remember(Wanted.UP), o.Prepare(5), restarts=(), failure=None)


def test_the_window_slides() -> None:
    play = Playbook(State(Wanted.UP, Process.STOPPING, epoch=1, failure=FAILURE, restarts=(1.0, 2.0, 3.0)))
    play.now = 101.5
    play(e.Gone(1), o.BackOff(1, 2.0, jitter=True), process=Process.BACKOFF, restarts=(2.0, 3.0, 101.5))


def test_what_cannot_be_proved_gone_is_not_replaced() -> None:
    play = up()
    play(e.RestartAsked(), o.Stop(1, polite=True))
    play(e.NotGone(1, FAILURE), o.BackOff(1, 50, jitter=False), process=Process.FAILED)
    play(e.WaitEnded(1), o.Prepare(2))
    play = up()
    play(e.CleanupAsked(), o.Remember(Wanted.DOWN), o.Clean(1))
    play(e.Cleaned(1, FAILURE), process=Process.FAILED, failure=FAILURE, cleaning=False)


def test_the_page_is_late() -> None:
    play = up(Link.LOADING)
    play(LATE, o.Arm(1), o.Cure(1, Fault.PAGE_NOT_LOADED, Remedy.RELOAD), link=Link.LOADING)
    play(LATE, o.Stop(1, polite=True), reason=Reason.HUNG, cause=Cause.RECOVERY)
    play = up(Link.SYNCING)
    play(LATE, link=Link.SYNCING, treatment=None)


def test_a_hung_page_is_started_anew_by_a_connect_unless_it_is_being_cured() -> None:
    play = up(Link.LOST, Reason.HUNG)
    play(e.ConnectAsked(), o.Stop(1, polite=True))(e.Gone(1), o.Prepare(2))
    play = up()
    play(found(1, Fault.PAGE_BLOCKED), o.Arm(1), o.Cure(1, Fault.PAGE_BLOCKED, Remedy.RELOAD))
    play(e.ConnectAsked(), process=Process.UP)


def cured(play: Playbook) -> None:
    assert (play.state.treatment, play.state.well_since) == (None, play.now)


def test_the_cheapest_remedy_first_and_the_next_one_when_it_does_not_help() -> None:
    play = up()
    looping = found(1, Fault.PAGE_LOOPING)
    play(looping, o.Cure(1, Fault.PAGE_LOOPING, Remedy.TERMINATE), link=Link.LOST, reason=Reason.HUNG)
    play(looping)(found(1, Fault.GPU_HUNG))  # one at a time
    play(
        e.NotCured(1),
        o.Arm(1),
        o.Cure(1, Fault.PAGE_LOOPING, Remedy.RELOAD),
    )
    play(e.NotCured(1), o.Stop(1, polite=True), failure=FAILURE)
    play(e.Gone(1), o.BackOff(1, 0.0, jitter=True))(e.WaitEnded(1), o.Prepare(2))
    play(e.Prepared(2), o.Launch(2))(e.Started(2), o.Open(2))
    assert play.state.treatment is not None
    assert play.state.treatment.tried == (Remedy.TERMINATE, Remedy.RELOAD)
    play(seen(2, Link.CONNECTED), o.Disarm(), failure=None)
    cured(play)


def test_a_page_that_answers_again_is_cured() -> None:
    play = up()
    play(found(1, Fault.PAGE_LOOPING), o.Cure(1, Fault.PAGE_LOOPING, Remedy.TERMINATE))
    play(seen(1, Link.CONNECTED), o.Disarm(), link=Link.CONNECTED, reason=None)
    cured(play)
    play(e.NotCured(1), link=Link.CONNECTED)  # too late


def test_a_fault_that_comes_back_soon_was_not_cured() -> None:
    play = up()
    for soon, remedy in ((True, Remedy.RENEW), (False, Remedy.RENEW)):
        play(found(1, Fault.NETWORK_HUNG), o.Cure(1, Fault.NETWORK_HUNG, remedy), link=Link.CONNECTED)
        play(e.Recovered(1, Fault.GPU_HUNG))
        play(e.Recovered(1, Fault.NETWORK_HUNG))
        cured(play)
        play.now += 19 if soon else 21
        if soon:
            again = Playbook(play.state)
            again.now = play.now
            again(found(1, Fault.NETWORK_HUNG), o.Stop(1, polite=True))
            play.now += 2


def test_a_browser_that_ends_ends_every_cure() -> None:
    play = up()
    play(found(1, Fault.PROCESS_STOPPED), o.Cure(1, Fault.PROCESS_STOPPED, Remedy.CONTINUE))
    play(exited(1), o.Stop(1, polite=False), process=Process.STOPPING)


def test_the_profile_is_replaced_last_and_a_browser_that_hangs_is_not_asked_to_close() -> None:
    play = up(Link.LOADING)
    play(LATE, o.Arm(1), o.Cure(1, Fault.PAGE_NOT_LOADED, Remedy.RELOAD))
    for epoch, remedy, source in ((1, "restart", None), (2, "restore", Source("b1")), (3, "fresh", Source())):
        again = found(epoch, Fault.PAGE_NOT_LOADED, snapshot="b1")
        play(again, o.Stop(epoch, polite=True), source=source)
        assert play.state.treatment is not None
        assert play.state.treatment.remedy == remedy
        play(e.Gone(epoch), o.BackOff(epoch, POLICY.delay_bound_s(epoch - 1), jitter=True))
        play(e.WaitEnded(epoch), o.Prepare(epoch + 1, source))
        play(e.Prepared(epoch + 1), o.Launch(epoch + 1))(e.Started(epoch + 1), o.Open(epoch + 1))
    play = up()
    play(found(1, Fault.BROWSER_HUNG), o.Stop(1, polite=False))


def test_without_a_remedy_a_person_is_waited_for() -> None:
    play = up(Link.LOST, Reason.CONFLICT)
    play(found(1, Fault.CONFLICT), process=Process.UP)
    play(e.ConnectAsked())
    play(e.Recovered(1, Fault.CONFLICT))
    cured(play)


def test_offline_is_tried_again_and_again_and_costs_no_restart() -> None:
    play = up(Link.LOADING)
    play(
        e.Unreachable(1, FAILURE, (Remedy.RELOAD,)),
        o.Disarm(usable=False),
        o.Rest(1, Fault.OFFLINE, 2.0, jitter=True),
        link=Link.LOST,
        reason=Reason.OFFLINE,
        failure=FAILURE,
    )
    offline = found(1, Fault.OFFLINE, Remedy.RELOAD)
    for bound_s in (4.0, 8.0, 16.0, 32.0, *[60.0] * 20):
        play(offline)  # it is known
        play(e.RestEnded(1), o.Arm(1), o.Cure(1, Fault.OFFLINE, Remedy.RELOAD))
        play(e.Unreachable(1, FAILURE), o.Disarm(usable=False))
        play(
            e.NotCured(1),
            o.Rest(1, Fault.OFFLINE, bound_s, jitter=True),
            process=Process.UP,
            restarts=(),
        )
    play(e.RestEnded(1), o.Arm(1), o.Cure(1, Fault.OFFLINE, Remedy.RELOAD))
    play(seen(1, Link.CONNECTED), o.Disarm(), failure=None)
    cured(play)


def test_the_host_holds_a_start_at_no_cost_to_the_budget() -> None:
    play = Playbook(State(Wanted.UP, Process.PREPARING, epoch=3, restarts=(900.0,)))
    play(
        e.Held(3, FAILURE, 7.0),
        o.BackOff(3, 7.0, jitter=True, held=True),
        process=Process.BACKOFF,
        restarts=(900.0,),
    )
    play(e.WaitEnded(3), o.Prepare(4), restarts=(900.0,))


SHORT = replace(FAILURE, passing=True, details=(("retry_after_s", 7.0),))
"""For want of something of the host."""


def test_what_the_host_lacks_for_a_moment_counts_against_nobody() -> None:
    held = o.BackOff(1, 7.0, jitter=True, held=True)
    play = Playbook(State(Wanted.UP, Process.STARTING, epoch=1, restarts=(900.0,)))
    play(e.Failed(1, SHORT), o.Stop(1, polite=False))
    play(e.Gone(1), held, process=Process.BACKOFF, failure=SHORT, restarts=(900.0,))


def test_what_could_not_be_ended_for_want_of_something_is_ended_later_though_nobody_wants_it_up() -> None:
    play = Playbook(State(Wanted.DOWN, Process.STOPPING, epoch=1))
    play(e.NotGone(1, SHORT), o.BackOff(1, 7.0, jitter=True, held=True), process=Process.BACKOFF)
    play(e.WaitEnded(1), o.Stop(1, polite=False), process=Process.STOPPING, failure=None)
    play = Playbook(State(Wanted.DOWN, Process.STOPPING, epoch=1))
    play(e.NotGone(1, FAILURE), process=Process.FAILED, failure=FAILURE)
    play(e.WaitEnded(1), process=Process.FAILED)


def test_what_was_wanted_comes_back_and_what_was_not_does_not() -> None:
    play = Playbook(State(Wanted.UP))
    assert summary_of(play.state) is Status.RECOVERING
    play(e.ReturnAsked(), o.Prepare(1), cause=Cause.RETURN)
    play = Playbook(State(Wanted.DOWN))
    play(e.ReturnAsked(), process=Process.DOWN)


def test_a_browser_that_has_outlived_a_daemon_is_watched_or_ended() -> None:
    play = Playbook(State(Wanted.UP))
    play(e.Adopted(), o.TakeOver(1), process=Process.UP, link=Link.LOADING)
    play(e.PageRead(1, Reading(Link.CONNECTED)), o.Disarm(), link=Link.CONNECTED)
    play = Playbook(State(Wanted.DOWN))
    play(e.Adopted(), o.Stop(1, polite=True))(e.Gone(1), process=Process.DOWN)


def test_only_a_session_that_is_well_is_recycled_and_at_no_cost() -> None:
    play = up()
    play(e.RecycleAsked(), o.Stop(1, polite=True), cause=Cause.RECYCLE)(e.Gone(1), o.Prepare(2), restarts=())
    play = up(Link.AWAITING_SCAN)
    play(e.RecycleAsked(), process=Process.UP)


def test_a_session_without_a_budget_rests_until_the_window_lets_it() -> None:
    policy = replace(POLICY, cooldown_s=5)
    state = State(Wanted.UP, Process.STOPPING, epoch=1, failure=FAILURE, restarts=(10.0, 20.0, 30.0))
    state, orders = decide(state, e.Gone(1), 40.0, policy)
    assert orders == (o.BackOff(1, 70.0, jitter=False),)  # until the one at 10 s has left the window of 100 s
    state, _ = decide(state, e.WaitEnded(1), 110.0, policy)
    assert state.restarts == (20.0, 30.0, 110.0)


def test_used_up_codes_are_reloaded_and_unknown_changes_nothing() -> None:
    play = up(Link.AWAITING_SCAN)
    play(seen(1, Link.AWAITING_SCAN, qr_exhausted=True), o.Disarm(), o.ReloadQr(1))
    play(seen(1, Link.UNKNOWN), link=Link.AWAITING_SCAN)


def test_logged_out_is_not_restarted() -> None:
    play = up()
    play(seen(1, Link.LOST, Reason.LOGGED_OUT), o.Arm(1), process=Process.UP)
    assert summary_of(play.state) is Status.LOGGED_OUT
    play(seen(1, Link.AWAITING_SCAN, Reason.LOGGED_OUT), o.Disarm())
    assert summary_of(play.state) is Status.AWAITING_SCAN


def test_who_asks_for_a_scan_with_a_login_is_loaded_again_and_restarted_before_a_snapshot_takes_its_place() -> (
    None
):
    play = up()

    def unpaired(epoch: int, *, again: bool = False) -> e.Found:
        return replace(found(epoch, Fault.UNPAIRED, snapshot="S"), again=again)

    def asks(epoch: int) -> e.PageRead:
        return seen(epoch, Link.AWAITING_SCAN, Reason.UNPAIRED, qr="2@x")

    def restarted(epoch: int, source: Source | None = None) -> None:
        play(e.Gone(epoch), o.BackOff(epoch, POLICY.delay_bound_s(epoch - 1), jitter=True))
        play(e.WaitEnded(epoch), o.Prepare(epoch + 1, source))
        play(e.Prepared(epoch + 1), o.Launch(epoch + 1))(e.Started(epoch + 1), o.Open(epoch + 1))

    play(asks(1), o.Disarm(), failure=None)
    assert summary_of(play.state) is Status.RECOVERING
    play(unpaired(1), o.Arm(1), o.Cure(1, Fault.UNPAIRED, Remedy.RELOAD), link=Link.LOADING)
    play(unpaired(1, again=True))  # of the page that is left
    play(asks(1), o.Disarm())
    play(unpaired(1), o.Stop(1, polite=True))
    restarted(1)
    play(asks(2), o.Disarm())
    assert summary_of(play.state) is Status.RECOVERING
    play(unpaired(2), o.Stop(2, polite=True), source=Source("S"))
    restarted(2, Source("S"))
    play(asks(3), o.Disarm())(unpaired(3))
    assert summary_of(play.state) is Status.AWAITING_SCAN  # nothing is left but a scan
    play(unpaired(3, again=True))
    play(seen(3, Link.CONNECTED), o.Disarm(), treatment=None)
    assert play.state.well_since is not None


def test_a_reload_after_which_the_page_is_logged_in_again_was_enough() -> None:
    play = up()
    play(seen(1, Link.AWAITING_SCAN, Reason.UNPAIRED), o.Disarm())
    play(found(1, Fault.UNPAIRED), o.Arm(1), o.Cure(1, Fault.UNPAIRED, Remedy.RELOAD))
    play(seen(1, Link.CONNECTED), o.Disarm(), treatment=None, failure=None)


def test_a_kill_that_fails_does_not_end_the_cleanup_that_replaced_it() -> None:
    play = up()
    play(e.DisconnectAsked(), o.Remember(Wanted.DOWN), o.Stop(1, polite=True))
    play(e.CleanupAsked(), o.Remember(Wanted.DOWN), o.Clean(1))
    play(e.NotGone(1, FAILURE), process=Process.STOPPING, cleaning=True)
    play(e.Cleaned(1), process=Process.DOWN)


def test_a_page_that_tells_nothing_known_is_unknown_after_some_looks_and_a_connect_restarts_it() -> None:
    play = up()
    play(seen(1, Link.UNKNOWN), link=Link.CONNECTED)
    unread, reload = found(1, Fault.PAGE_UNREAD), o.Cure(1, Fault.PAGE_UNREAD, Remedy.RELOAD)
    play(unread, o.Arm(1), reload, link=Link.LOADING, process=Process.UP)
    for bound_s in (60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0):
        not_cured = e.NotCured(1)
        rest = o.Rest(1, Fault.PAGE_UNREAD, bound_s, jitter=True)
        play(not_cured, o.Disarm(usable=False), rest, link=Link.UNKNOWN, process=Process.UP, restarts=())
        play(unread)
        again = Playbook(play.state)
        again(e.ConnectAsked(), o.Stop(1, polite=True), process=Process.STOPPING)
        play(e.RestEnded(1), o.Arm(1), reload)
    play(seen(1, Link.CONNECTED), o.Disarm(), link=Link.CONNECTED)
    cured(play)


def test_a_page_that_is_not_whatsapps_is_loaded_again_and_again_and_at_once_for_who_asks() -> None:
    play = up()
    wrong, reload = found(1, Fault.PAGE_WRONG), o.Cure(1, Fault.PAGE_WRONG, Remedy.RELOAD)
    play(wrong, o.Arm(1), reload, link=Link.LOADING)
    for bound_s in (2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        rest = o.Rest(1, Fault.PAGE_WRONG, bound_s, jitter=True)
        play(wrong, o.Disarm(usable=False), rest, link=Link.LOST, reason=Reason.WRONG_PAGE, restarts=())
        play(wrong)
        if bound_s == 60:
            play(e.ConnectAsked(), o.Arm(1), reload, process=Process.UP)
        else:
            play(e.RestEnded(1), o.Arm(1), reload)
    play(seen(1, Link.LOADING))(seen(1, Link.CONNECTED), o.Disarm(), link=Link.CONNECTED)
    cured(play)


def test_a_try_that_took_long_has_rested_enough() -> None:
    play = up(Link.LOST, Reason.OFFLINE)
    play(
        e.Unreachable(1, FAILURE, (Remedy.RELOAD,)),
        o.Disarm(usable=False),
        o.Rest(1, Fault.OFFLINE, 2, jitter=True),
    )
    for bound_s in (2.0, 2.0, 2.0, 2.0, 15.0, 15.0):
        play(e.RestEnded(1), o.Arm(1), o.Cure(1, Fault.OFFLINE, Remedy.RELOAD))
        play.now += 45.0
        play(
            e.NotCured(1),
            o.Disarm(usable=False),
            o.Rest(1, Fault.OFFLINE, bound_s, jitter=True),
        )


def test_what_may_end_by_itself_is_found_at_once_and_treated_later() -> None:
    play = up(Link.SYNCING)
    cut_off = replace(found(1, Fault.OFFLINE), finding=Finding(Fault.OFFLINE, FAILURE, wait_s=50.0))
    play(cut_off, o.Rest(1, Fault.OFFLINE, 50.0, jitter=False), link=Link.LOST, reason=Reason.OFFLINE)
    assert summary_of(play.state) is Status.RECOVERING
    play(seen(1, Link.SYNCING, cut_off=True), o.Disarm(), link=Link.LOST, reason=Reason.OFFLINE)
    play(cut_off)
    back = Playbook(play.state)
    back(seen(1, Link.CONNECTED), o.Disarm(), link=Link.CONNECTED, treatment=None)
    play(e.RestEnded(1), o.Arm(1), o.Cure(1, Fault.OFFLINE, Remedy.RELOAD))
    play(seen(1, Link.SYNCING, cut_off=True), o.Disarm(), link=Link.LOST, reason=Reason.OFFLINE)
    play(e.NotCured(1), o.Stop(1, polite=True))


def test_a_page_that_does_not_answer_is_no_longer_called_connected_whatever_is_known_of_it() -> None:
    silent = replace(found(1, Fault.PAGE_SILENT), finding=Finding(Fault.PAGE_SILENT, FAILURE, wait_s=34.0))
    play = up()
    play(silent, o.Rest(1, Fault.PAGE_SILENT, 34.0, jitter=False), link=Link.UNKNOWN)
    play(e.ConnectAsked(), process=Process.UP)  # it may be at work
    worked = Playbook(play.state)
    worked(seen(1, Link.CONNECTED), o.Disarm(), link=Link.CONNECTED, treatment=None)
    play(e.RestEnded(1), o.Rest(1, Fault.PAGE_SILENT, 2.0, jitter=True))
    play(found(1, Fault.PAGE_LOOPING), o.Cure(1, Fault.PAGE_LOOPING, Remedy.TERMINATE), reason=Reason.HUNG)
    play = up(Link.LOST, Reason.CONFLICT)
    play(found(1, Fault.CONFLICT))(silent, link=Link.UNKNOWN)
    assert play.state.treatment is not None
    assert play.state.treatment.finding.fault is Fault.CONFLICT
    play = up(Link.LOADING)
    play(silent, link=Link.LOADING, treatment=None)  # a deadline runs


def test_a_sync_that_does_not_get_on_is_not_over_when_the_new_browser_syncs() -> None:
    play = up(Link.SYNCING)
    stuck = found(1, Fault.SYNC_STUCK)
    play(stuck, o.Arm(1), o.Cure(1, Fault.SYNC_STUCK, Remedy.RELOAD), link=Link.LOADING)
    play(seen(1, Link.SYNCING), o.Disarm(), link=Link.SYNCING)
    assert play.state.treatment is not None
    play(e.NotCured(1), o.Stop(1, polite=True))
    play(e.Gone(1), o.BackOff(1, 0.0, jitter=True))(e.WaitEnded(1), o.Prepare(2))
    play(e.Prepared(2), o.Launch(2))(e.Started(2), o.Open(2))(seen(2, Link.SYNCING), o.Disarm())
    assert play.state.treatment is not None
    play(found(2, Fault.SYNC_STUCK), o.Rest(2, Fault.SYNC_STUCK, 2.0, jitter=True), process=Process.UP)
    play(seen(2, Link.CONNECTED), o.Disarm())(e.Recovered(2, Fault.SYNC_STUCK))
    cured(play)


def test_a_refusal_is_told_to_a_person_and_looked_at_again_and_never_costs_a_restart() -> None:
    for fault in REFUSALS:
        play = up(Link.LOST, Reason(fault.value))
        assert summary_of(play.state) is Status.FAILED
        play(found(1, fault), o.Arm(1), o.Cure(1, fault, Remedy.RELOAD))
        play(seen(1, Link.LOST, Reason(fault.value)), o.Disarm())
        play(e.NotCured(1), o.Rest(1, fault, 60.0, jitter=True), restarts=())
        play(seen(1, Link.CONNECTED), o.Disarm())(e.Recovered(1, fault))
        cured(play)


def test_what_a_probe_is_content_with_is_not_over_before_the_page_says_so() -> None:
    """A page that had been unread was then a wrong one: nothing was found of it, and it was unknown."""
    play = up()
    play(found(1, Fault.PAGE_UNREAD), o.Arm(1), o.Cure(1, Fault.PAGE_UNREAD, Remedy.RELOAD))
    play(
        e.NotCured(1),
        o.Disarm(usable=False),
        o.Rest(1, Fault.PAGE_UNREAD, 60.0, jitter=True),
    )
    play(e.Recovered(1, Fault.PAGE_UNREAD), link=Link.UNKNOWN)
    assert play.state.treatment is not None


def test_a_page_that_loads_again_has_the_deadline_of_the_stage_again() -> None:
    play = up()
    play(seen(1, Link.LOADING), o.Arm(1))
    play(seen(1, Link.LOADING))
    play(LATE, o.Arm(1), o.Cure(1, Fault.PAGE_NOT_LOADED, Remedy.RELOAD))
    play(LATE, o.Stop(1, polite=True), process=Process.STOPPING)


def test_logged_out_without_a_code_to_scan_is_restarted_in_the_end() -> None:
    play = up()
    play(seen(1, Link.LOST, Reason.LOGGED_OUT), o.Arm(1), process=Process.UP)
    play(LATE, o.Arm(1), o.Cure(1, Fault.PAGE_NOT_LOADED, Remedy.RELOAD))
    play(LATE, o.Stop(1, polite=True), process=Process.STOPPING)


def test_every_pair_has_a_rule_and_the_table_prints() -> None:
    events = {event for _, event in TABLE}
    assert set(TABLE) == {(process, event) for process in Process for event in events}
    assert events == set(e.Event.__args__)
    assert all(event.__name__ in tables.as_text() for event in events)


# --- any run of events ------------------------------------------------------------------------------------

SLOW = (o.Prepare, o.Launch, o.Open, o.Stop, o.Clean, o.BackOff)


@given(RUNS)
def test_any_run_keeps_the_promises(run: Run) -> None:
    automatic: list[float] = []
    for before, event, state, orders, now in steps_of(run):
        summary_of(state)
        if isinstance(event, e.Fact) and event.epoch != before.epoch:
            assert (state, orders) == (before, ()), "a late fact did something"
        if isinstance(event, e.NotCured | e.RestEnded) and event.step != before.step:
            assert (state, orders) == (before, ()), "a late verdict did something"
        if state.treatment != before.treatment and any(
            isinstance(order, o.Cure | o.Rest) for order in orders
        ):
            assert state.step > before.step, "two remedies or rests with one number"
        slow = [order for order in orders if isinstance(order, SLOW)]
        assert len(slow) <= 1, "two slow orders at once"
        for order in orders:
            if isinstance(order, o.Launch):
                assert before.process is Process.PREPARING, "a launch without a preparation"
            if isinstance(order, o.Prepare):
                assert state.wanted is Wanted.UP, "started what nobody wants"
                assert before.process not in {Process.UP, Process.STARTING}, "two browsers on one profile"
            if isinstance(order, o.Cure):
                assert order.remedy not in STOPPING
                assert (state.process, slow) == (Process.UP, []), "cured what is not up"
        # Whoever is on the way somewhere has work under way, so no state waits for nothing.
        if state.process is not before.process and state.process not in {Process.DOWN, Process.FAILED}:
            assert slow or state.process is Process.STOPPING
        if state.restarts != before.restarts and state.restarts[-1:] == (now,):
            automatic.append(now)
        if isinstance(event, (e.ConnectAsked, e.RestoreAsked, e.RestartAsked)) or not state.restarts:
            automatic.clear()  # an operator's wish opens a new account
        assert sum(now - at < POLICY.window_s for at in automatic) <= POLICY.budget, "over the restart budget"
        # Nothing starts by itself that is not in that account, but for the first after a start of the daemon.
        prepared = any(isinstance(order, o.Prepare) for order in orders)
        if prepared and state.cause is Cause.RECOVERY and not isinstance(event, e.Cleaned):
            assert state.restarts, "a restart that does not count"


@given(st.integers(0, 10_000), st.floats(0.1, 10), st.floats(10, 1000))
def test_delays_stay_within_bounds(recent: int, base: float, largest: float) -> None:
    policy = RestartPolicy(base_s=base, max_s=largest)
    assert 0 <= policy.delay_bound_s(recent) <= largest
    assert policy.delay_bound_s(recent) <= policy.delay_bound_s(recent + 1)


def test_a_cleanup_takes_back_the_restore_that_it_called_off() -> None:
    """Else the next connect would bring back what somebody has just dropped."""
    state = State()
    for event in (e.RestoreAsked("b"), e.CleanupAsked(), e.ConnectAsked()):
        state, _ = decide(state, event, 0.0, POLICY)
    _, orders = decide(state, e.Cleaned(state.epoch), 0.0, POLICY)
    assert orders == (o.Prepare(state.epoch + 1),)


def test_a_fault_that_takes_long_to_be_found_is_back_at_once_all_the_same() -> None:
    """A loop that allocates is found after 4 * busy_s of work, which is longer than relapse_s: it was TERMINATE for ever."""
    looping = replace(
        found(1, Fault.PAGE_LOOPING), finding=Finding(Fault.PAGE_LOOPING, FAILURE, lasted_s=60.0)
    )
    play = up()
    play(looping, o.Cure(1, Fault.PAGE_LOOPING, Remedy.TERMINATE))
    play(seen(1, Link.CONNECTED), o.Disarm(), treatment=None)
    play.now += 60.5
    play(looping, o.Arm(1), o.Cure(1, Fault.PAGE_LOOPING, Remedy.RELOAD))


def test_a_restart_is_never_the_last_resort_of_who_is_offline() -> None:
    """It was made again and again, until the session failed."""
    tried = ((Fault.OFFLINE, Remedy.RESTART), (Fault.OFFLINE, Remedy.RELOAD))
    play = up(Link.LOST, Reason.OFFLINE)
    play.state = replace(play.state, treated=tried)
    play(found(1, Fault.OFFLINE, *PLANS[Fault.OFFLINE]), o.Rest(1, Fault.OFFLINE, 2.0, jitter=True))
    for bound_s in (4.0, 8.0):
        play(e.RestEnded(1), o.Arm(1), o.Cure(1, Fault.OFFLINE, Remedy.RELOAD))
        play(
            e.NotCured(1),
            o.Disarm(usable=False),
            o.Rest(1, Fault.OFFLINE, bound_s, jitter=True),
            process=Process.UP,
        )


def test_a_reload_that_finds_no_network_is_no_reason_to_restart() -> None:
    for fault in (Fault.PAGE_NOT_LOADED, Fault.QR_STALE):
        play = up(Link.LOADING)
        play(found(1, fault, Remedy.RELOAD, Remedy.RESTART), o.Arm(1), o.Cure(1, fault, Remedy.RELOAD))
        rest = o.Rest(1, Fault.OFFLINE, 2.0, jitter=True)
        play(e.Unreachable(1, FAILURE), o.Disarm(usable=False), rest, reason=Reason.OFFLINE, treated=())
        play(e.NotCured(1), process=Process.UP)


def test_a_page_that_says_anything_after_its_reload_is_up_and_a_conflict_is_told() -> None:
    play = up()
    play(found(1, Fault.PAGE_CRASHED), o.Arm(1), o.Cure(1, Fault.PAGE_CRASHED, Remedy.RELOAD))
    play(seen(1, Link.LOST, Reason.CONFLICT), o.Disarm(), treatment=None)
    play(e.Found(1, Finding(Fault.CONFLICT, FAILURE), ()))
    assert play.state.treatment is not None
    play(e.NotCured(1), process=Process.UP)


def test_what_is_told_only_once_is_not_lost_while_something_else_is_cured() -> None:
    play = up(Link.LOADING)
    play(found(1, Fault.PROCESS_STOPPED), o.Cure(1, Fault.PROCESS_STOPPED, Remedy.CONTINUE))
    play(LATE, o.Arm(1))
    play(e.Recovered(1, Fault.PROCESS_STOPPED), treatment=None)
    play(LATE, o.Arm(1), o.Cure(1, Fault.PAGE_NOT_LOADED, Remedy.RELOAD))
    play = up()
    play(found(1, Fault.GPU_HUNG), o.Cure(1, Fault.GPU_HUNG, Remedy.RENEW))
    play(found(1, Fault.PAGE_CRASHED), o.Arm(1), o.Cure(1, Fault.PAGE_CRASHED, Remedy.RELOAD))


def test_a_page_that_loads_has_a_deadline_also_when_nothing_is_left_to_be_tried() -> None:
    play = up(Link.LOST, Reason.OFFLINE)
    play.state = replace(play.state, treated=((Fault.OFFLINE, Remedy.RESTART),))
    play(found(1, Fault.OFFLINE), o.Arm(1), o.Cure(1, Fault.OFFLINE, Remedy.RELOAD))
    play(LATE, o.Disarm(usable=False), o.Rest(1, Fault.OFFLINE, 2.0, jitter=True), link=Link.LOST)


# --- what comes late ----------------------------------------------------------------------------------------


def test_a_verdict_on_one_reload_does_not_end_the_next() -> None:
    """The first was overtaken, and its verdict was on the way: it cost the second its time, and a restart."""
    play = up()
    blocked = found(1, Fault.PAGE_BLOCKED)
    reload = (o.Arm(1), o.Cure(1, Fault.PAGE_BLOCKED, Remedy.RELOAD))
    play(blocked, *reload)
    first = play.state.step
    play(seen(1, Link.CONNECTED), o.Disarm(), treatment=None)
    play.now += POLICY.relapse_s + 1
    play(blocked, *reload)
    under_way = play.state
    play.late(e.NotCured(1, step=first), process=Process.UP)
    assert play.state == under_way
    play(e.NotCured(1), o.Stop(1, polite=True), process=Process.STOPPING)


def test_a_rest_that_was_over_does_not_end_the_next() -> None:
    play = up(Link.LOADING)
    unreachable = e.Unreachable(1, FAILURE, (Remedy.RELOAD,))
    resting = (o.Disarm(usable=False), o.Rest(1, Fault.OFFLINE, 2.0, jitter=True))
    play(unreachable, *resting)
    first = play.state.step
    play(seen(1, Link.CONNECTED), o.Disarm(), treatment=None)
    play(seen(1, Link.LOADING), o.Arm(1))(unreachable, *resting)
    play.late(e.RestEnded(1, step=first), link=Link.LOST)
    play(e.RestEnded(1), o.Arm(1), o.Cure(1, Fault.OFFLINE, Remedy.RELOAD))


@pytest.mark.parametrize(
    "late",
    [
        LATE,
        found(1, Fault.OFFLINE),
        found(1, Fault.PAGE_WRONG),
        e.Unreachable(1, FAILURE),
        e.Failed(1, FAILURE),
        seen(1, Link.CONNECTED),
        seen(1, Link.LOST, Reason.CONFLICT),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_is_told_of_the_page_that_a_reload_leaves_is_no_verdict_on_the_reload(
    late: e.Found | e.Unreachable | e.Failed | e.PageRead,
) -> None:
    """Its deadline had passed, it was open elsewhere, it was well after all: all of it is about the page before."""
    play = up(Link.LOADING)
    play(e.Unreachable(1, FAILURE), o.Disarm(usable=False), o.Rest(1, Fault.OFFLINE, 2.0, jitter=True))
    play(e.RestEnded(1), o.Arm(1), o.Cure(1, Fault.OFFLINE, Remedy.RELOAD))
    under_way = play.state
    play.late(replace(late, step=under_way.step - 1))
    assert play.state == under_way
    play(seen(1, Link.CONNECTED), o.Disarm(), treatment=None, link=Link.CONNECTED)


@pytest.mark.parametrize("fault", [Fault.PAGE_CRASHED, Fault.BROWSER_EXITED, Fault.PIPE_CLOSED])
def test_what_ends_any_page_is_heard_whichever_it_was_told_of(fault: Fault) -> None:
    play = up()
    play(found(1, Fault.PAGE_BLOCKED), o.Arm(1), o.Cure(1, Fault.PAGE_BLOCKED, Remedy.RELOAD))
    play.late(found(1, fault), o.Stop(1, polite=fault is Fault.PAGE_CRASHED), process=Process.STOPPING)
