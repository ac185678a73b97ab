//! Which pins somebody may have meant who asked for one that is not there.

use crate::pins::Pin;
use crate::reference::Reference;

/// Pins that are offered at the most.
const OFFERED: usize = 3;

/// The pins nearest to what was asked for, nearest first: other tags of the same repository, then names that a slip
/// of the hand explains.
pub(crate) fn nearest<'a>(
    asked: &str,
    wanted: Option<&Reference>,
    pins: impl Iterator<Item = &'a Pin>,
) -> Vec<&'a Pin> {
    let mut near: Vec<_> =
        pins.filter_map(|pin| Some((distance(asked, wanted, pin)?, pin.name(), pin))).collect();
    near.sort_by_key(|(distance, name, _)| (*distance, *name));
    near.into_iter().take(OFFERED).map(|(_, _, pin)| pin).collect()
}

/// How far apart they are, if they are near at all.
fn distance(asked: &str, wanted: Option<&Reference>, pin: &Pin) -> Option<usize> {
    let Some(wanted) = wanted else { return slips(asked, pin.name()) };
    if wanted.is_same_repository(pin.image()) {
        return Some(0);
    }
    let (wanted, pinned) = (last_part(wanted), last_part(pin.image()));
    [slips(wanted, pin.name()), slips(wanted, pinned)].into_iter().flatten().min().map(|slips| slips + 1)
}

fn last_part(reference: &Reference) -> &str {
    reference.repository().rsplit('/').next().unwrap_or_default()
}

/// Letters that were swapped, changed, left out or put in, as long as most of the word is there.
fn slips(asked: &str, known: &str) -> Option<usize> {
    let limit = known.len() / 3;
    if asked.len().abs_diff(known.len()) > limit {
        return None;
    }
    Some(strsim::damerau_levenshtein(asked, known)).filter(|slips| *slips <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_is_near_and_another_word_is_not() {
        assert_eq!(slips("postgres", "postgres"), Some(0));
        assert_eq!(slips("postgrse", "postgres"), Some(1));
        assert_eq!(slips("potgress", "postgres"), Some(2));
        assert_eq!(slips("mysql", "mssql"), Some(1));
        assert_eq!(slips("redis", "kafka"), None);
        assert_eq!(slips("db", "pg"), None);
    }
}
