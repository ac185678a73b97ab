//! One way of a connection under faults: what is on its way, and when it arrives. Pure: no IO, no clock of its own.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::plan::{Conditions, MAX_RETRANSMISSIONS, retransmissions};
use super::random::Random;

/// Bytes that may be on their way at once. Whoever sends more waits, as with any connection.
const MAX_HELD: usize = 1 << 20;
/// Pieces that may be on their way at once, for senders of single bytes.
const MAX_PIECES: usize = 4096;
/// A slow line passes as much as it can in this time at once.
const SHARE: Duration = Duration::from_millis(10);
/// How far behind a slow line may fall, because its receiver was slow, and still make up for it.
const CATCH_UP: Duration = Duration::from_millis(50);

/// What is on its way, in order.
#[derive(Debug)]
pub(super) struct Line {
    conditions: Conditions,
    random: Random,
    pieces: VecDeque<Piece>,
    /// Bytes in the pieces.
    held: usize,
    /// What comes after the last piece, and nothing after that.
    end: Option<(Ending, OnItsWay)>,
    /// When the line is free for the next bytes, if only so many a second pass.
    free: Option<Instant>,
    /// Bytes that still pass, by the fault that limits them.
    left: Vec<(u64, u64)>,
    /// Whether bytes were swallowed.
    lost: bool,
}

/// How one way of a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The sender has said all that it has to say.
    Closed,
    /// The sender has reset the connection.
    Reset,
}

#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    /// How many of them have arrived.
    passed: usize,
    way: OnItsWay,
}

#[derive(Clone, Copy, Debug)]
struct OnItsWay {
    since: Instant,
    arrives: Instant,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// Nothing, until something changes.
    Nothing,
    /// Nothing, until then.
    At(Instant),
    /// These bytes arrive; [`Line::passed`] is to be told how many were taken.
    Bytes(&'a [u8]),
    /// This is the end.
    End(Ending),
    /// As many bytes have passed as may.
    Limit,
}

impl Line {
    pub(super) fn new(random: Random) -> Self {
        Self {
            conditions: Conditions::default(),
            random,
            pieces: VecDeque::new(),
            held: 0,
            end: None,
            free: None,
            left: Vec::new(),
            lost: false,
        }
    }

    /// Whether there is nothing to do but to pass bytes on.
    pub(super) fn is_clear(&self) -> bool {
        self.conditions.is_clear() && self.pieces.is_empty() && self.end.is_none()
    }

    /// Whether more may be put on its way.
    pub(super) fn has_room(&self) -> bool {
        self.held < MAX_HELD && self.pieces.len() < MAX_PIECES && self.end.is_none()
    }

    /// Whether its end is on its way.
    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Whether what comes next would come after a gap.
    pub(super) fn is_torn(&self) -> bool {
        self.lost && !self.conditions.cut
    }

    /// Puts bytes on their way.
    pub(super) fn send(&mut self, bytes: &[u8], now: Instant) {
        if self.conditions.cut {
            self.lost |= !bytes.is_empty();
        } else if !bytes.is_empty() {
            let delay = self.delay();
            let way = self.behind_the_last(now, delay);
            self.held += bytes.len();
            self.pieces.push_back(Piece { bytes: bytes.to_vec(), passed: 0, way });
        }
    }

    /// Puts the end on its way. A reset takes the place of an orderly end that has not arrived.
    pub(super) fn end(&mut self, ending: Ending, now: Instant) {
        let delay = match ending {
            Ending::Closed => self.conditions.latency + self.conditions.close_delay,
            Ending::Reset => self.conditions.latency,
        };
        let way = self.behind_the_last(now, delay);
        if ending == Ending::Reset || self.end.is_none() {
            self.end = Some((ending, way));
        }
    }

    /// Other conditions hold from now on. What is on its way comes no later than if it had been sent under them.
    pub(super) fn change(&mut self, conditions: Conditions, now: Instant) {
        let left_of = |(id, bytes): &(u64, u64)| {
            let known = self.left.iter().find(|(known, _)| known == id);
            *known.unwrap_or(&(*id, *bytes))
        };
        self.left = conditions.limits.iter().map(left_of).collect();
        if conditions.bytes_per_second != self.conditions.bytes_per_second {
            self.free = Some(now);
        }
        self.conditions = conditions;
        let longest = self.conditions.longest();
        for piece in &mut self.pieces {
            piece.way.hasten(longest);
        }
        if let Some((_, way)) = &mut self.end {
            way.hasten(longest + self.conditions.close_delay);
        }
        if self.conditions.cut {
            self.lost |= !self.pieces.is_empty();
            self.pieces.clear();
            self.held = 0;
        }
    }

    /// What is to be done at this moment.
    pub(super) fn next(&self, now: Instant) -> Next<'_> {
        if self.conditions.stalled || self.conditions.cut {
            return Next::Nothing;
        }
        if self.left.iter().any(|(_, left)| *left == 0) {
            return Next::Limit;
        }
        match (self.pieces.front(), &self.end) {
            (Some(piece), _) => match self.share(piece) {
                (_, at) if at > now => Next::At(at),
                (share, _) => Next::Bytes(&piece.bytes[piece.passed..piece.passed + share]),
            },
            (None, Some((_, way))) if way.arrives > now => Next::At(way.arrives),
            (None, Some((ending, _))) => Next::End(*ending),
            (None, None) => Next::Nothing,
        }
    }

    /// So many bytes of those that [`Line::next`] gave were taken.
    pub(super) fn passed(&mut self, count: usize, now: Instant) {
        let Some(piece) = self.pieces.front_mut() else { return };
        if let Some(rate) = self.conditions.bytes_per_second {
            let done = piece.way.begins(self.free) + time_for(count, rate);
            self.free = Some(done.max(now.checked_sub(CATCH_UP).unwrap_or(now)));
        }
        piece.passed += count;
        let is_through = piece.passed == piece.bytes.len();
        self.held -= count;
        for (_, left) in &mut self.left {
            *left = left.saturating_sub(count as u64);
        }
        if is_through {
            self.pieces.pop_front();
        }
    }

    /// How many bytes of the first piece go next, and when they have arrived.
    fn share(&self, piece: &Piece) -> (usize, Instant) {
        let rest = piece.bytes.len() - piece.passed;
        let least_left = self.left.iter().map(|(_, left)| *left).min();
        let rest = least_left.map_or(rest, |left| rest.min(usize::try_from(left).unwrap_or(usize::MAX)));
        let Some(rate) = self.conditions.bytes_per_second else { return (rest, piece.way.arrives) };
        let share = rest.min(bytes_in(SHARE, rate));
        (share, piece.way.begins(self.free) + time_for(share, rate))
    }

    /// How long a piece is on its way, bandwidth apart.
    fn delay(&mut self) -> Duration {
        let mut delay = self.conditions.latency;
        if !self.conditions.jitter.is_zero() {
            delay += self.random.up_to(self.conditions.jitter);
        }
        for (percent, first) in &self.conditions.losses {
            let mut times = 0;
            while times < MAX_RETRANSMISSIONS && self.random.happens(*percent) {
                times += 1;
            }
            delay += retransmissions(*first, times);
        }
        delay
    }

    /// What is sent now arrives after so long, and not before what was sent earlier.
    fn behind_the_last(&self, now: Instant, delay: Duration) -> OnItsWay {
        let last = self.pieces.back().map_or(now, |piece| piece.way.arrives);
        OnItsWay { since: now, arrives: last.max(now + delay) }
    }
}

impl OnItsWay {
    /// When a slow line that is free then begins with it.
    fn begins(self, free: Option<Instant>) -> Instant {
        free.map_or(self.arrives, |free| free.max(self.arrives))
    }

    /// Has it come no later than after so long.
    fn hasten(&mut self, longest: Duration) {
        self.arrives = self.arrives.min(self.since + longest);
    }
}

/// How long so many bytes take.
fn time_for(bytes: usize, per_second: u64) -> Duration {
    let nanos = (bytes as u128 * 1_000_000_000).div_ceil(u128::from(per_second));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// How many bytes pass in a time, at least one.
fn bytes_in(time: Duration, per_second: u64) -> usize {
    let bytes = u128::from(per_second) * time.as_nanos() / 1_000_000_000;
    usize::try_from(bytes).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::super::plan::Way;
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn line(conditions: Conditions, now: Instant) -> Line {
        seeded(0, conditions, now)
    }

    fn seeded(seed: u64, conditions: Conditions, now: Instant) -> Line {
        let mut line = Line::new(Random::new(seed, 0, Way::Up));
        line.change(conditions, now);
        line
    }

    /// Everything that arrives, with its time since `begun`, in a world where bytes are taken at once.
    fn arrivals(line: &mut Line, begun: Instant) -> Vec<(Duration, String)> {
        let (mut now, mut seen) = (begun, Vec::new());
        loop {
            let what = match line.next(now) {
                Next::Nothing => return seen,
                Next::At(later) => {
                    assert!(later > now);
                    now = later;
                    continue;
                }
                Next::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                end => {
                    seen.push((now - begun, format!("{end:?}")));
                    return seen;
                }
            };
            line.passed(what.len(), now);
            seen.push((now - begun, what));
        }
    }

    fn text(arrivals: &[(Duration, String)]) -> String {
        arrivals.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn latency_delays_each_piece_alone_and_the_end_too() {
        let now = Instant::now();
        let mut line = line(Conditions { latency: 100 * MS, ..Conditions::default() }, now);
        line.send(b"a", now);
        line.send(b"b", now + 30 * MS);
        line.end(Ending::Closed, now + 40 * MS);
        assert!(!line.has_room(), "nothing comes after the end");
        assert_eq!(
            arrivals(&mut line, now),
            [(100 * MS, "a".into()), (130 * MS, "b".into()), (140 * MS, "End(Closed)".into())]
        );
    }

    #[test]
    fn jitter_keeps_the_order() {
        let now = Instant::now();
        let mut line = line(Conditions { jitter: 1000 * MS, ..Conditions::default() }, now);
        (b'a'..=b'z').for_each(|letter| line.send(&[letter], now));
        assert_eq!(text(&arrivals(&mut line, now)), "abcdefghijklmnopqrstuvwxyz");
    }

    /// The delays of ten pieces, each sent when the one before has arrived.
    fn delays(seed: u64, conditions: &Conditions) -> Vec<Duration> {
        let mut now = Instant::now();
        let mut line = seeded(seed, conditions.clone(), now);
        let one = |_| {
            line.send(b"x", now);
            let arrived = arrivals(&mut line, now)[0].0;
            now += arrived;
            arrived
        };
        (0..10).map(one).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_delays() {
        let jitter = Conditions { latency: 5 * MS, jitter: 20 * MS, ..Conditions::default() };
        let losses = Conditions { losses: vec![(30, 200 * MS)], ..Conditions::default() };
        for conditions in [jitter, losses] {
            assert_eq!(delays(42, &conditions), delays(42, &conditions));
            assert_ne!(delays(42, &conditions), delays(43, &conditions));
        }
    }

    #[test]
    fn jitter_comes_on_top_of_latency() {
        let conditions = Conditions { latency: 5 * MS, jitter: 20 * MS, ..Conditions::default() };
        for delay in delays(1, &conditions) {
            assert!((5 * MS..=25 * MS).contains(&delay), "{delay:?}");
        }
    }

    #[test]
    fn what_is_always_lost_comes_after_the_last_retransmission() {
        let conditions = Conditions { losses: vec![(100, 200 * MS)], ..Conditions::default() };
        assert_eq!(delays(1, &conditions), [200 * 63 * MS; 10]);
    }

    #[test]
    fn bandwidth_spreads_bytes_over_time() {
        let now = Instant::now();
        let mut line = line(Conditions { bytes_per_second: Some(1000), ..Conditions::default() }, now);
        line.send(&[b'x'; 100], now);
        line.send(&[b'y'; 100], now);
        let seen = arrivals(&mut line, now);
        assert_eq!(text(&seen).len(), 200);
        assert_eq!(seen.len(), 20, "ten bytes every ten milliseconds: {seen:?}");
        assert_eq!(seen[0].0, 10 * MS);
        assert_eq!(seen[19].0, 200 * MS);
    }

    #[test]
    fn latency_does_not_hold_up_bandwidth() {
        let now = Instant::now();
        let conditions =
            Conditions { latency: 500 * MS, bytes_per_second: Some(1000), ..Conditions::default() };
        let mut line = line(conditions, now);
        (0..10).for_each(|_| line.send(&[b'x'; 10], now));
        let seen = arrivals(&mut line, now);
        assert_eq!(seen[9].0, 600 * MS, "half a second once, then 100 bytes in 100 ms: {seen:?}");
    }

    #[test]
    fn a_slow_receiver_is_not_flooded_afterwards() {
        let now = Instant::now();
        let mut line = line(Conditions { bytes_per_second: Some(1000), ..Conditions::default() }, now);
        line.send(&[b'x'; 500], now);
        let late = now + 10_000 * MS;
        assert!(matches!(line.next(late), Next::Bytes(bytes) if bytes.len() == 10));
        line.passed(10, late);
        let rest = arrivals(&mut line, late);
        assert_eq!(rest.last().unwrap().0, 490 * MS - CATCH_UP);
    }

    #[test]
    fn slow_lines_pass_single_bytes() {
        let now = Instant::now();
        let mut line = line(Conditions { bytes_per_second: Some(1), ..Conditions::default() }, now);
        line.send(b"ab", now);
        assert_eq!(arrivals(&mut line, now), [(1000 * MS, "a".into()), (2000 * MS, "b".into())]);
    }

    #[test]
    fn a_cut_swallows_what_is_on_its_way_and_what_comes() {
        let now = Instant::now();
        let cut = Conditions { cut: true, ..Conditions::default() };
        let mut cut_line = line(Conditions { latency: 100 * MS, ..Conditions::default() }, now);
        cut_line.send(b"a", now);
        cut_line.change(cut.clone(), now);
        cut_line.send(b"b", now);
        cut_line.end(Ending::Closed, now);
        assert_eq!(cut_line.next(now + 1000 * MS), Next::Nothing);
        assert!(!cut_line.is_torn(), "nobody can tell yet");
        cut_line.change(Conditions::default(), now);
        assert!(cut_line.is_torn());

        let mut idle = line(cut, now);
        idle.end(Ending::Closed, now);
        idle.change(Conditions::default(), now);
        assert!(!idle.is_torn());
        assert_eq!(idle.next(now), Next::End(Ending::Closed));
    }

    #[test]
    fn a_stall_holds_so_much_and_gives_it_back_in_order() {
        let now = Instant::now();
        let mut line = line(Conditions { stalled: true, ..Conditions::default() }, now);
        while line.has_room() {
            line.send(&[b'x'; 64 << 10], now);
        }
        assert_eq!(line.held, MAX_HELD);
        assert_eq!(line.next(now + 1000 * MS), Next::Nothing);
        line.change(Conditions::default(), now + 1000 * MS);
        assert_eq!(text(&arrivals(&mut line, now + 1000 * MS)).len(), MAX_HELD);
        assert!(line.is_clear());
    }

    #[test]
    fn single_bytes_are_held_in_numbers_that_have_a_limit() {
        let now = Instant::now();
        let mut line = line(Conditions { stalled: true, ..Conditions::default() }, now);
        while line.has_room() {
            line.send(b"x", now);
        }
        assert_eq!(line.pieces.len(), MAX_PIECES);
    }

    #[test]
    fn what_is_on_its_way_comes_at_once_when_the_latency_goes() {
        let now = Instant::now();
        let slow = Conditions { latency: 1000 * MS, close_delay: 1000 * MS, ..Conditions::default() };
        let mut line = line(slow, now);
        line.send(b"a", now);
        line.end(Ending::Closed, now);
        let later = now + 10 * MS;
        line.change(Conditions { latency: 50 * MS, ..Conditions::default() }, later);
        assert_eq!(arrivals(&mut line, now), [(50 * MS, "a".into()), (50 * MS, "End(Closed)".into())]);
    }

    #[test]
    fn a_slow_close_delays_the_end_but_no_reset() {
        let now = Instant::now();
        let slow = Conditions { close_delay: 1000 * MS, ..Conditions::default() };
        let mut closed = line(slow.clone(), now);
        closed.send(b"a", now);
        closed.end(Ending::Closed, now);
        assert_eq!(
            arrivals(&mut closed, now),
            [(Duration::ZERO, "a".into()), (1000 * MS, "End(Closed)".into())]
        );
        let mut reset = line(slow, now);
        reset.end(Ending::Closed, now);
        reset.end(Ending::Reset, now + MS);
        assert_eq!(arrivals(&mut reset, now), [(MS, "End(Reset)".into())]);
    }

    #[test]
    fn a_limit_passes_so_many_bytes_and_counts_on_when_other_faults_change() {
        let now = Instant::now();
        let limited = Conditions { limits: vec![(7, 5)], ..Conditions::default() };
        let mut line = line(limited.clone(), now);
        line.send(b"abc", now);
        assert_eq!(text(&arrivals(&mut line, now)), "abc");
        line.change(Conditions { latency: MS, ..limited }, now);
        line.send(b"def", now);
        assert_eq!(text(&arrivals(&mut line, now)), "deLimit");
        // Another limit begins anew.
        line.change(Conditions { limits: vec![(8, 1)], ..Conditions::default() }, now);
        assert_eq!(text(&arrivals(&mut line, now)), "fLimit");
    }

    #[test]
    fn what_is_taken_in_part_goes_on_where_it_was_left() {
        let now = Instant::now();
        let mut line = line(Conditions { latency: MS, ..Conditions::default() }, now);
        line.send(b"abcdef", now);
        let then = now + MS;
        assert_eq!(line.next(then), Next::Bytes(b"abcdef"));
        line.passed(4, then);
        assert_eq!(line.next(then), Next::Bytes(b"ef"));
    }
}
