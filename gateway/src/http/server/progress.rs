//! What moved on a connection, and when: enough to tell a slow head and a standstill from work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::Limits;

/// How finely time is told here.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// Counts ticks. To ask the system for the time would cost each request more than all the rest of this module.
#[derive(Debug, Default)]
pub(super) struct Clock(AtomicU32);

impl Clock {
    pub(super) fn advance(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    fn now(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// Nothing has come since the last answer.
const WAITING: u8 = 0;
/// A head has begun.
const HEAD: u8 = 1;
/// A handler works.
const HANDLING: u8 = 2;

/// Written by the one task that serves a connection, and by that of a handler which reads a body. Each word stands for
/// itself, so no order between them is needed.
#[derive(Debug)]
pub(super) struct Progress {
    clock: Arc<Clock>,
    phase: AtomicU8,
    /// Whether the body of the request may still be coming, also after its answer has begun.
    receiving: AtomicBool,
    /// When the head began, or an answer moved after that.
    head: AtomicU32,
    /// When anything moved.
    moved: AtomicU32,
    /// Why the connection has to end; 0 if it has not.
    ended: AtomicU8,
}

/// Why a connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// A head has begun and does not come to its end.
    HeadTooSlow = 1,
    /// Nothing moves.
    Standstill = 2,
}

impl Progress {
    pub(super) fn new(clock: Arc<Clock>) -> Self {
        let now = clock.now();
        Self {
            clock,
            phase: AtomicU8::new(WAITING),
            receiving: AtomicBool::new(false),
            head: AtomicU32::new(now),
            moved: AtomicU32::new(now),
            ended: AtomicU8::new(0),
        }
    }

    /// Bytes have come.
    pub(super) fn read(&self) {
        let now = self.clock.now();
        self.moved.store(now, Relaxed);
        if self.phase.load(Relaxed) == WAITING && !self.receiving.load(Relaxed) {
            self.phase.store(HEAD, Relaxed);
            self.head.store(now, Relaxed);
        }
    }

    /// Bytes have left. One answer may still be leaving while the next head comes: it is not slow meanwhile.
    pub(super) fn written(&self) {
        let now = self.clock.now();
        self.moved.store(now, Relaxed);
        self.head.store(now, Relaxed);
    }

    /// A head is complete.
    pub(super) fn handling(&self, body_follows: bool) {
        self.receiving.store(body_follows, Relaxed);
        self.phase.store(HANDLING, Relaxed);
    }

    /// The body has been received, or nobody wants the rest of it.
    pub(super) fn received(&self) {
        self.receiving.store(false, Relaxed);
    }

    /// The handler has answered.
    pub(super) fn answered(&self) {
        self.phase.store(WAITING, Relaxed);
    }

    /// Whether a handler is at work. Then what is written is no refusal of a head.
    pub(super) fn is_handling(&self) -> bool {
        self.phase.load(Relaxed) == HANDLING
    }

    /// Whether a head has begun and not ended.
    fn is_unheard(&self) -> bool {
        self.phase.load(Relaxed) == HEAD
    }

    /// When to look again, if the connection may go on; otherwise it is marked as ended.
    pub(super) fn judge(&self, limits: &Limits) -> Result<Duration, End> {
        let now = self.clock.now();
        let since = |when: &AtomicU32| TICK * now.wrapping_sub(when.load(Relaxed));
        let still = since(&self.moved);
        let head = if self.is_unheard() { since(&self.head) } else { Duration::ZERO };
        let end = if head >= limits.head {
            End::HeadTooSlow
        } else if still >= limits.idle {
            End::Standstill
        } else {
            // Never sooner than the clock goes on.
            return Ok((limits.head - head).min(limits.idle - still).max(TICK));
        };
        self.ended.store(end as u8, Relaxed);
        Err(end)
    }

    pub(super) fn ended(&self) -> Option<End> {
        match self.ended.load(Relaxed) {
            0 => None,
            1 => Some(End::HeadTooSlow),
            _ => Some(End::Standstill),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { connections: 1, head: Duration::from_secs(1), idle: Duration::from_secs(3) };

    fn after(clock: &Clock, ticks: u32) {
        (0..ticks).for_each(|_| clock.advance());
    }

    fn new() -> (Arc<Clock>, Progress) {
        let clock = Arc::new(Clock(AtomicU32::new(u32::MAX - 5)));
        (Arc::clone(&clock), Progress::new(clock))
    }

    #[test]
    fn a_head_may_take_so_long() {
        let (clock, progress) = new();
        after(&clock, 20);
        assert_eq!(progress.judge(&LIMITS), Ok(Duration::from_secs(1)), "nothing has begun");
        progress.read();
        after(&clock, 9);
        progress.read();
        assert_eq!(progress.judge(&LIMITS), Ok(TICK), "more bytes are no more time");
        after(&clock, 1);
        assert_eq!(
            (progress.judge(&LIMITS), progress.ended()),
            (Err(End::HeadTooSlow), Some(End::HeadTooSlow))
        );
    }

    #[test]
    fn a_handler_and_its_body_are_not_a_head() {
        let (clock, progress) = new();
        progress.read();
        progress.handling(true);
        progress.read();
        after(&clock, 15);
        assert!(progress.judge(&LIMITS).is_ok() && !progress.is_unheard());
        // The answer comes before the body has ended, as that of a stream of lines does.
        progress.answered();
        progress.read();
        after(&clock, 15);
        assert!(progress.judge(&LIMITS).is_ok() && !progress.is_unheard());
        progress.received();
        progress.read();
        assert!(progress.is_unheard(), "the next head");
    }

    #[test]
    fn a_standstill_ends_whatever_waits() {
        for handling in [false, true] {
            let (clock, progress) = new();
            if handling {
                progress.read();
                progress.handling(false);
            }
            after(&clock, 25);
            progress.written();
            after(&clock, 29);
            assert!(progress.judge(&LIMITS).is_ok());
            after(&clock, 1);
            assert_eq!(progress.judge(&LIMITS), Err(End::Standstill));
        }
    }
}
